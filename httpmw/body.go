package httpmw

// body is the request's body as the handler reads it.
type body struct{ *exchange }

// Read is io.Reader's.
func (b body) Read(p []byte) (int, error) {
	if err := b.enter(&b.reading, false, blocking); err != nil {
		return 0, err
	}
	n, err := b.request.Body.Read(p)
	if halted := b.exit(&b.reading, err); halted != nil {
		return 0, halted
	}
	return n, err
}

// Close is io.Closer's. That of HTTP/1.1 reads what is left of a small body.
func (b body) Close() error {
	if err := b.enter(&b.reading, false, blocking); err != nil {
		return err // the server closes it
	}
	err := b.request.Body.Close()
	if halted := b.exit(&b.reading, err); halted != nil {
		return halted
	}
	return err
}

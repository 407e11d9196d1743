package httpmw

import (
	"context"
	"io"
	"net/http"
	"reflect"
	"sync"
)

// withUpload has the body of a request end with its context. r is the guard's own copy.
func withUpload(r *http.Request) *http.Request {
	ctx := r.Context()
	if !hasBody(r) || inMemory(r) {
		return r
	}
	r.Body = newUpload(ctx, r.Body)
	if again := r.GetBody; again != nil {
		r.GetBody = func() (io.ReadCloser, error) {
			inner, err := again()
			if err != nil || inner == http.NoBody {
				return inner, err
			}
			return newUpload(ctx, inner), nil
		}
	}
	return r
}

// inMemory tells of the bodies that http.NewRequest makes of strings and bytes: they never block, and as
// their length is known, half of one never looks whole. So net/http may as well see its type, and send a
// small one together with the header.
func inMemory(r *http.Request) bool {
	if r.GetBody == nil || r.ContentLength <= 0 {
		return false
	}
	t := reflect.TypeOf(r.Body)
	return t == reflect.TypeOf(io.NopCloser(http.NoBody)) || t == reflect.TypeOf(io.NopCloser(struct{ io.Reader }{}))
}

// upload is a request's body. When the context ends, it is closed, because nothing else releases a
// read that waits for its source; and it never comes to a proper end then, as many a source does that
// is closed: the server would take half an upload for a whole one.
type upload struct {
	io.ReadCloser

	ctx    context.Context //nolint:containedctx // of the one call that it is sent with
	mu     sync.Mutex
	unhook func() bool
	closed bool
}

func newUpload(ctx context.Context, inner io.ReadCloser) *upload {
	u := &upload{ReadCloser: inner, ctx: ctx}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.unhook = context.AfterFunc(ctx, func() { _ = u.Close() })
	return u
}

// Read is io.Reader's.
func (u *upload) Read(p []byte) (int, error) {
	n, err := u.ReadCloser.Read(p)
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return n, err
}

// Close is io.Closer's. The body inside is closed once.
func (u *upload) Close() error {
	if !u.close() {
		return nil
	}
	return u.ReadCloser.Close()
}

func (u *upload) close() (first bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	first, u.closed = !u.closed, true
	u.unhook()
	return first
}

package httpmw_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/httpmw"
)

// B1: a denial releases a call that waits for its answer, and the server sees it go.
func TestTransport_DeniedBeforeTheAnswer(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		log := &callLog{}
		g, v := newGuard(t, guard.WithObserver(log.observe))
		reached, left := make(chan struct{}), make(chan struct{})
		addr, c := serve(t, p, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(reached)
			<-r.Context().Done()
			close(left)
		}))
		done := place(calling(g, c), newCall(t, http.MethodGet, addr, nil))
		await(t, "the request", reached)
		revoke(t, g, v)
		o := await(t, "the call", done)
		wantCallDenied(t, o.err, guard.CodeDeviceRevoked, true)
		await(t, "the server's handler", left)
		wantOver(t, g)
		if n := len(log.of(guard.EventStopped)); n != 1 {
			t.Errorf("%d runs were stopped, want 1", n)
		}
	})
}

// A denial cuts an upload: its body is closed, and what the server has got does not look whole.
func TestTransport_DeniedWhileUploading(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		g, v := newGuard(t)
		half, got := make(chan struct{}), make(chan error, 1)
		addr, c := serve(t, p, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadFull(r.Body, make([]byte, 4))
			close(half)
			_, err := io.Copy(io.Discard, r.Body)
			got <- err
		}))
		in, out := io.Pipe()
		body := newUpload(in)
		done := place(calling(g, c), newCall(t, http.MethodPost, addr, body))
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for {
				if _, err := out.Write([]byte("more")); err != nil {
					return
				}
			}
		}()
		await(t, "half of it", half)
		revoke(t, g, v)
		wantCallDenied(t, await(t, "the call", done).err, guard.CodeDeviceRevoked, true)
		await(t, "the body's Close", body.closed)
		await(t, "the upload's end", ended)
		if err := await(t, "the server's read", got); err == nil {
			t.Error("the server takes half an upload for a whole one")
		}
		wantOver(t, g)
	})
}

// An upload that has nothing to send at the moment is released by a denial as well: with HTTP/1.1
// net/http waits for the read of the request's body, and only its Close ends that.
func TestTransport_DeniedWhileTheUploadPauses(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		g, v := newGuard(t)
		half, got := make(chan struct{}), make(chan error, 1)
		addr, c := serve(t, p, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadFull(r.Body, make([]byte, 4))
			close(half)
			_, err := io.Copy(io.Discard, r.Body)
			got <- err
		}))
		in, out := io.Pipe()
		defer func() { _ = out.Close() }()
		body := newUpload(in)
		done := place(calling(g, c), newCall(t, http.MethodPost, addr, body))
		if _, err := out.Write([]byte("half")); err != nil {
			t.Fatal(err)
		}
		await(t, "half of it", half)
		revoke(t, g, v)
		wantCallDenied(t, await(t, "the call", done).err, guard.CodeDeviceRevoked, true)
		await(t, "the body's Close", body.closed)
		if err := await(t, "the server's read", got); err == nil {
			t.Error("the server takes half an upload for a whole one")
		}
		wantOver(t, g)
	})
}

// serveParts serves an answer of which each part is sent when the test says so; an empty one ends it.
func serveParts(t *testing.T, p protocol, header http.Header) (addr string, c *http.Client, parts chan<- string) {
	t.Helper()
	next := make(chan string)
	addr, c = serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		maps.Copy(w.Header(), header)
		for {
			_ = http.NewResponseController(w).Flush()
			select {
			case part := <-next:
				if part == "" {
					return
				}
				fmt.Fprint(w, part)
			case <-r.Context().Done():
				return
			}
		}
	}))
	return addr, c, next
}

// readBytes reads n bytes.
func readBytes(t *testing.T, r io.Reader, n int) string {
	t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatalf("reading: %v", err)
	}
	return string(b)
}

// A denial releases who waits for more of an answer, and is what he gets from then on.
func TestTransport_DeniedWhileTheAnswerIsRead(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		log := &callLog{}
		g, v := newGuard(t, guard.WithObserver(log.observe))
		addr, c, parts := serveParts(t, p, nil)
		resp := get(t, calling(g, c), addr)
		parts <- "one"
		if got := readBytes(t, resp.Body, 3); got != "one" {
			t.Errorf("got %q", got)
		}
		read := make(chan error, 1)
		go func() {
			rest, err := io.ReadAll(resp.Body)
			if len(rest) > 0 {
				t.Errorf("got %q after the denial", rest)
			}
			read <- err
		}()
		revoke(t, g, v)
		wantCallDenied(t, await(t, "the read", read), guard.CodeDeviceRevoked, true)
		v.Allow(device)
		learn(t, g)
		for range 2 { // a denial stays, S5
			n, err := resp.Body.Read(make([]byte, 1))
			if n != 0 {
				t.Errorf("read %d bytes", n)
			}
			wantCallDenied(t, err, guard.CodeDeviceRevoked, true)
			wantCallDenied(t, resp.Body.Close(), guard.CodeDeviceRevoked, true)
		}
		wantOver(t, g)
		if n := len(log.of(guard.EventStopped)); n != 1 {
			t.Errorf("%d runs were stopped, want 1", n)
		}
	})
}

// What has come before the denial and was not read by then is not handed on, to its last byte: an
// answer whose length is known never looks whole.
func TestTransport_NothingAfterTheDenial(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		g, v := newGuard(t)
		sent := make(chan struct{})
		addr, c := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "6")
			fmt.Fprint(w, "onetwo")
			close(sent)
		}))
		resp := get(t, calling(g, c), addr)
		if got := readBytes(t, resp.Body, 3); got != "one" || resp.ContentLength != 6 {
			t.Errorf("got %q of %d bytes", got, resp.ContentLength)
		}
		await(t, "the rest", sent)
		revoke(t, g, v)
		rest, err := io.ReadAll(resp.Body)
		if len(rest) > 0 {
			t.Errorf("got %q after the denial", rest)
		}
		wantCallDenied(t, err, guard.CodeDeviceRevoked, true)
		wantOver(t, g)
	})
}

// An answer that was read to its end ends the call, before anybody closes it; after that a denial
// changes nothing.
func TestTransport_ReadToTheEnd(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		for _, length := range []string{"", "5"} {
			log := &callLog{}
			g, v := newGuard(t, guard.WithObserver(log.observe))
			addr, c := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Trailer", "X-After")
				if length != "" {
					w.Header().Set("Content-Length", length)
				}
				fmt.Fprint(w, "whole")
				if length == "" {
					_ = http.NewResponseController(w).Flush()
				}
				w.Header().Set("X-After", "trailer")
			}))
			resp := get(t, calling(g, c), addr)
			if got, err := io.ReadAll(resp.Body); string(got) != "whole" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
			if length == "" && resp.Trailer.Get("X-After") != "trailer" {
				t.Errorf("the trailer is %v", resp.Trailer)
			}
			if n := len(log.of(guard.EventFinished)); n != 1 { // told before Read returned
				t.Errorf("%d runs have finished", n)
			}
			revoke(t, g, v)
			for range 2 {
				if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
					t.Errorf("after the end: %d bytes, %v", n, err)
				}
			}
			for range 2 {
				if err := resp.Body.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}
			if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, guard.ErrDenied) {
				t.Errorf("after Close: %d bytes, %v", n, err)
			}
			wantOver(t, g)
			if f := log.of(guard.EventFinished); len(f) != 1 || f[0].Err != nil || len(log.of(guard.EventStopped)) > 0 {
				t.Errorf("the observers were told %+v", f)
			}
		}
	})
}

// So does Close before the end.
func TestTransport_ClosedEarly(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		log := &callLog{}
		g, v := newGuard(t, guard.WithObserver(log.observe))
		addr, c, parts := serveParts(t, p, nil)
		resp := get(t, calling(g, c), addr)
		parts <- "one"
		_ = readBytes(t, resp.Body, 3)
		if err := resp.Body.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if n := len(log.of(guard.EventFinished)); n != 1 {
			t.Errorf("%d runs have finished", n)
		}
		revoke(t, g, v)
		if err := resp.Body.Close(); err != nil {
			t.Errorf("the second Close: %v", err)
		}
		if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || err == nil || err == io.EOF || errors.Is(err, guard.ErrDenied) {
			t.Errorf("after Close: %d bytes, %v", n, err)
		}
		wantOver(t, g)
	})
}

// An answer without a body is over when it is there. With HTTP/2 net/http tells it from others only
// when it is closed, as it has to be.
func TestTransport_NoBody(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		for _, c := range []struct {
			method string
			status int
		}{
			{http.MethodHead, http.StatusOK},
			{http.MethodGet, http.StatusNoContent},
			{http.MethodGet, http.StatusNotModified},
			{http.MethodPut, http.StatusResetContent},
			{http.MethodDelete, http.StatusOK},
		} {
			t.Run(c.method+strconv.Itoa(c.status), func(t *testing.T) {
				log := &callLog{}
				g, v := newGuard(t, guard.WithObserver(log.observe))
				addr, client := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodHead {
						w.Header().Set("Content-Length", "7")
					}
					w.WriteHeader(c.status)
				}))
				resp, err := calling(g, client).Do(newCall(t, c.method, addr, nil))
				if err != nil {
					t.Fatal(err)
				}
				if p.major == 2 {
					_ = resp.Body.Close()
				}
				if n := len(log.of(guard.EventFinished)); n != 1 {
					t.Errorf("%d runs have finished", n)
				}
				revoke(t, g, v)
				if resp.StatusCode != c.status || c.method == http.MethodHead && resp.ContentLength != 7 {
					t.Errorf("status %d, %d bytes", resp.StatusCode, resp.ContentLength)
				}
				if n, err := resp.Body.Read(make([]byte, 1)); p.major == 1 && (n != 0 || err != io.EOF) {
					t.Errorf("read %d bytes, %v", n, err)
				}
				if err := resp.Body.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
				wantOver(t, g)
			})
		}
	})
}

// What net/http decompresses on the way is guarded like any other answer.
func TestTransport_Compressed(t *testing.T) {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write([]byte("hello"))
	_ = z.Flush()
	head := zipped.String()
	_ = z.Close()
	end := zipped.String()[len(head):]
	eachProtocol(t, func(t *testing.T, p protocol) {
		log := &callLog{}
		g, v := newGuard(t, guard.WithObserver(log.observe))
		addr, c, parts := serveParts(t, p, http.Header{"Content-Encoding": {"gzip"}})
		for i, denied := range []bool{false, true} {
			resp := get(t, calling(g, c), addr)
			if !resp.Uncompressed || resp.Header.Get("Content-Encoding") != "" {
				t.Fatalf("net/http does not decompress: %v", resp.Header)
			}
			parts <- head
			if got := readBytes(t, resp.Body, 5); got != "hello" {
				t.Errorf("got %q", got)
			}
			read := make(chan error, 1)
			go func() {
				_, err := io.ReadAll(resp.Body)
				read <- err
			}()
			if denied {
				revoke(t, g, v)
				wantCallDenied(t, await(t, "the read", read), guard.CodeDeviceRevoked, true)
			} else {
				parts <- end
				parts <- ""
				if err := await(t, "the read", read); err != nil {
					t.Errorf("read %v", err)
				}
			}
			if n := len(log.of(guard.EventFinished)) + len(log.of(guard.EventStopped)); n != i+1 {
				t.Errorf("%d runs are over, want %d", n, i+1)
			}
		}
		wantOver(t, g)
	})
}

// deafBody is the body of a base that does not heed the request's context: only Close releases
// who reads it.
type deafBody struct {
	once    sync.Once
	entered chan struct{}
	closed  chan struct{}
	rest    string // what Read gives when it was released
}

func newDeafBody(rest string) *deafBody {
	return &deafBody{entered: make(chan struct{}, 10), closed: make(chan struct{}), rest: rest}
}

func (b *deafBody) Read(p []byte) (int, error) {
	b.entered <- struct{}{}
	<-b.closed
	if b.rest != "" {
		return copy(p, b.rest), nil
	}
	return 0, io.EOF
}

func (b *deafBody) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

// A read that nothing but Close releases is released by a denial; neither data nor the end that
// it comes back with are handed on.
func TestTransport_BodyThatIgnoresTheContext(t *testing.T) {
	for name, rest := range map[string]string{"data": "late", "the end": ""} {
		t.Run(name, func(t *testing.T) {
			g, v := newGuard(t)
			b := newDeafBody(rest)
			resp := get(t, &http.Client{Transport: httpmw.Transport(g, httpmw.Fixed(device), baseWith(b))}, "http://example.invalid/")
			read := make(chan error, 1)
			go func() {
				n, err := resp.Body.Read(make([]byte, 10))
				if n != 0 {
					t.Errorf("read %d bytes", n)
				}
				read <- err
			}()
			await(t, "the read", b.entered)
			revoke(t, g, v)
			wantCallDenied(t, await(t, "the read's end", read), guard.CodeDeviceRevoked, true)
			wantOver(t, g)
		})
	}
}

// The same where the base does not heed the context: an answer's body must not be read on, unguarded,
// when the caller's context has ended the run.
func TestTransport_BodyOutlivesTheCallersContext(t *testing.T) {
	g, v := newGuard(t)
	in, out := io.Pipe()
	defer func() { _ = out.Close() }()
	tr := httpmw.Transport(g, httpmw.Fixed(device), baseWith(in))
	ctx, cancel := context.WithCancel(t.Context())
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://example.invalid/", nil)
	resp, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	cancel()
	wantOver(t, g) // the run has ended with the context
	revoke(t, g, v)
	go func() { _, _ = out.Write([]byte("work")) }()
	if n, err := resp.Body.Read(make([]byte, 4)); n != 0 || err == nil {
		t.Errorf("read %d bytes, %v, of an answer that nobody guards any more", n, err)
	}
}

// An answer that comes after the denial is not handed on, its status neither: who looks at nothing
// else would take the call for done. net/http itself may return one that comes at that very moment.
func TestTransport_AnswerAfterTheDenial(t *testing.T) {
	mine, other := net.Pipe()
	defer other.Close()
	for name, body := range map[string]io.ReadCloser{
		"a body": newUpload(strings.NewReader("done")), "a connection": mine,
	} {
		t.Run(name, func(t *testing.T) {
			g, v := newGuard(t)
			tr := httpmw.Transport(g, httpmw.Fixed(device), baseFunc(func(*http.Request) (*http.Response, error) {
				revoke(t, g, v)
				return &http.Response{StatusCode: http.StatusOK, Body: body, ContentLength: 4}, nil
			}))
			resp, err := tr.RoundTrip(newCall(t, http.MethodDelete, "http://example.invalid/", nil))
			if resp != nil {
				_ = resp.Body.Close()
				t.Errorf("got the answer %d", resp.StatusCode)
			}
			wantCallDenied(t, err, guard.CodeDeviceRevoked, true)
			if u, ok := body.(*upload); ok {
				await(t, "the body's Close", u.closed)
			}
			wantOver(t, g)
		})
	}
}

// A call whose answer comes without a body after the denial is denied: it may have done nothing.
func TestTransport_NoBodyAfterTheDenial(t *testing.T) {
	for name, body := range map[string]io.ReadCloser{"none": nil, "NoBody": http.NoBody} {
		t.Run(name, func(t *testing.T) {
			g, v := newGuard(t)
			tr := httpmw.Transport(g, httpmw.Fixed(device), baseFunc(func(*http.Request) (*http.Response, error) {
				revoke(t, g, v)
				return &http.Response{StatusCode: http.StatusNoContent, Body: body}, nil
			}))
			resp, err := tr.RoundTrip(newCall(t, http.MethodDelete, "http://example.invalid/", nil))
			if resp != nil {
				t.Errorf("got %d", resp.StatusCode)
			}
			wantCallDenied(t, err, guard.CodeDeviceRevoked, true)
			wantOver(t, g)
		})
	}
}

// A base that fails after the denial for a reason of its own: the denial is what counts, and its
// reason is found in it.
func TestTransport_BaseFailsAfterTheDenial(t *testing.T) {
	g, v := newGuard(t)
	tr := httpmw.Transport(g, httpmw.Fixed(device), baseFunc(func(*http.Request) (*http.Response, error) {
		revoke(t, g, v)
		return nil, errMine
	}))
	_, err := tr.RoundTrip(newCall(t, http.MethodGet, "http://example.invalid/", nil))
	wantCallDenied(t, err, guard.CodeDeviceRevoked, true)
	if !errors.Is(err, errMine) {
		t.Errorf("err = %v, want it to hold what the base said", err)
	}
	wantOver(t, g)
}

// A base that panics after the denial: its panic goes on.
func TestTransport_BasePanicsAfterTheDenial(t *testing.T) {
	g, v := newGuard(t)
	tr := httpmw.Transport(g, httpmw.Fixed(device), baseFunc(func(*http.Request) (*http.Response, error) {
		revoke(t, g, v)
		panic(errMine)
	}))
	defer func() {
		if got := recover(); got != errMine {
			t.Errorf("it panicked with %v", got)
		}
		wantOver(t, g)
	}()
	_, _ = tr.RoundTrip(newCall(t, http.MethodGet, "http://example.invalid/", nil))
}

// lateDenial is a Runner that finds out when the function has returned, as a guard does whose clock
// has passed the line before any timer fired.
type lateDenial struct{}

func (lateDenial) Run(ctx context.Context, id string, fn func(context.Context) error) error {
	_ = fn(ctx)
	return &guard.DeniedError{DeviceID: id, Decision: guard.Decision{Code: guard.CodeSystemUnavailable}, InFlight: true}
}

// S6: a call that comes to its end after its line is denied, in whichever way it ends, and an answer
// that was read to its end by then does not look whole.
func TestTransport_DeniedAtItsEnd(t *testing.T) {
	body := func() io.ReadCloser { return io.NopCloser(strings.NewReader("whole")) }
	for name, c := range map[string]struct {
		base baseFunc
		end  func(resp *http.Response) error
	}{
		"read":    {baseWith(body()), func(resp *http.Response) error { return errOf(io.Copy(io.Discard, resp.Body)) }},
		"closed":  {baseWith(body()), func(resp *http.Response) error { return resp.Body.Close() }},
		"no body": {baseWith(http.NoBody), nil},
		"failed":  {func(*http.Request) (*http.Response, error) { return nil, errMine }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			tr := httpmw.Transport(lateDenial{}, httpmw.Fixed(device), c.base)
			resp, err := tr.RoundTrip(newCall(t, http.MethodGet, "http://example.invalid/", nil))
			if c.end != nil {
				if err != nil {
					t.Fatal(err)
				}
				err = c.end(resp)
				if again := resp.Body.Close(); !errors.Is(again, guard.ErrDenied) {
					t.Errorf("Close: %v", again)
				}
			}
			wantCallDenied(t, err, guard.CodeSystemUnavailable, true)
		})
	}
}

// deafConn is a connection that nothing ends, and that notes what is done with it.
type deafConn struct {
	read, wrote atomic.Int32
	once        sync.Once
	closed      chan struct{}
}

func (c *deafConn) Read(p []byte) (int, error) {
	c.read.Add(1)
	return len(p), nil
}

func (c *deafConn) Write(p []byte) (int, error) {
	c.wrote.Add(1)
	return len(p), nil
}

func (c *deafConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

// After a denial nothing reaches the other side any more, and nothing is taken from it, also where
// closing it does not help.
func TestTransport_NothingPassesAfterTheDenial(t *testing.T) {
	g, v := newGuard(t)
	c := &deafConn{closed: make(chan struct{})}
	tr := httpmw.Transport(g, httpmw.Fixed(device), baseFunc(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusSwitchingProtocols, Body: c}, nil
	}))
	resp, err := tr.RoundTrip(newCall(t, http.MethodGet, "http://example.invalid/", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body := resp.Body.(io.ReadWriter)
	for _, through := range []func([]byte) (int, error){body.Read, body.Write} {
		if n, err := through(make([]byte, 3)); n != 3 || err != nil {
			t.Errorf("before: %d, %v", n, err)
		}
	}
	revoke(t, g, v)
	for _, through := range []func([]byte) (int, error){body.Read, body.Write} {
		n, err := through(make([]byte, 3))
		if n != 0 {
			t.Errorf("after: %d bytes", n)
		}
		wantCallDenied(t, err, guard.CodeDeviceRevoked, true)
	}
	if c.read.Load() != 1 || c.wrote.Load() != 1 {
		t.Errorf("%d reads and %d writes have reached the connection", c.read.Load(), c.wrote.Load())
	}
	await(t, "its Close", c.closed)
	wantOver(t, g)
}

// Many read, one closes, and the device is denied meanwhile: nobody is left behind, and who is told
// of an end is told of the same one.
func TestTransport_BodyIsSharedAndClosed(t *testing.T) {
	for _, denied := range []bool{true, false} {
		g, v := newGuard(t)
		b := newDeafBody("")
		resp := get(t, &http.Client{Transport: httpmw.Transport(g, httpmw.Fixed(device), baseWith(b))}, "http://example.invalid/")
		var readers sync.WaitGroup
		for range 4 {
			readers.Go(func() {
				_, err := io.ReadAll(resp.Body)
				if errors.Is(err, guard.ErrDenied) != denied {
					t.Errorf("denied %t: read %v", denied, err)
				}
			})
		}
		for range 4 {
			await(t, "a reader", b.entered)
		}
		if denied {
			revoke(t, g, v)
		}
		for range 4 {
			readers.Go(func() {
				if err := resp.Body.Close(); errors.Is(err, guard.ErrDenied) != denied {
					t.Errorf("denied %t: Close %v", denied, err)
				}
			})
		}
		readers.Wait()
		wantOver(t, g)
	}
}

// A body that nobody reads or closes is guarded until the request's context ends, and leaves nothing
// behind: a bubble waits for its goroutines.
func TestTransport_ForgottenBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &callLog{}
		g, v := newGuard(t, guard.WithObserver(log.observe))
		tr := httpmw.Transport(g, httpmw.Fixed(device), baseWith(newDeafBody("")))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://example.invalid/", nil)
		if _, err := tr.RoundTrip(r); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour - time.Second)
		asked := len(v.Calls())
		if n := len(log.of(guard.EventFinished)); n != 0 || asked < 300 {
			t.Errorf("before its context's end %d runs have finished, asked %d times", n, asked)
		}
		time.Sleep(time.Minute)
		if n := len(log.of(guard.EventFinished)); n != 1 {
			t.Errorf("after its context's end %d runs have finished", n)
		}
		if asked += 2; len(v.Calls()) > asked {
			t.Errorf("after the end the authority was asked %d times", len(v.Calls())-asked)
		}
	})
}

// A body that nobody reads or closes ends with its denial as well, and the server sees it go.
func TestTransport_ForgottenAndDenied(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		log := &callLog{}
		g, v := newGuard(t, guard.WithObserver(log.observe))
		left := make(chan struct{})
		addr, c := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			close(left)
		}))
		resp := get(t, calling(g, c), addr)
		revoke(t, g, v)
		await(t, "the server's handler", left)
		wantOver(t, g)
		if n := len(log.wait(t, guard.EventStopped, 1)); n != 1 {
			t.Errorf("%d runs were stopped", n)
		}
		_, err := io.ReadAll(resp.Body)
		wantCallDenied(t, err, guard.CodeDeviceRevoked, true)
	})
}

// S4: the authority falls silent while an answer is read that nothing but Close releases. It ends at
// the stop line, to the nanosecond.
func TestTransport_EndsAtTheStopLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, v := newGuard(t)
		b := newDeafBody("late")
		tr := httpmw.Transport(g, httpmw.Fixed(device), baseWith(b))
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://example.invalid/", nil)
		resp, err := tr.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		sent := v.Calls()[0].Sent
		release := make(chan struct{})
		defer close(release)
		v.Always(device, func(ctx context.Context, id string) (guard.Decision, error) {
			<-release // and ignores its context
			return guard.Decision{Allowed: true, Code: guard.CodeAllow, DeviceID: id}, nil
		})
		n, err := resp.Body.Read(make([]byte, 10))
		wantCallDenied(t, err, guard.CodeSystemUnavailable, true)
		if took := time.Since(sent); n != 0 || took > g.StopBound() {
			t.Errorf("read %d bytes, %v after the last question, the stop bound is %v", n, took, g.StopBound())
		}
	})
}

// An answer that never ends and never pauses is cut too.
func TestTransport_EndlessAnswer(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		g, v := newGuard(t)
		left := make(chan struct{})
		addr, c := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			defer close(left)
			for {
				if _, err := w.Write([]byte(strings.Repeat("x", 4096))); err != nil {
					return
				}
			}
		}))
		resp := get(t, calling(g, c), addr)
		_ = readBytes(t, resp.Body, 100_000)
		copied := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, resp.Body)
			copied <- err
		}()
		revoke(t, g, v)
		wantCallDenied(t, await(t, "the copying", copied), guard.CodeDeviceRevoked, true)
		await(t, "the server's handler", left) // although nobody has closed the body
		wantOver(t, g)
	})
}

package httpmw_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/httpmw"
)

const short = 3 * time.Second

func withinShort[T any](t *testing.T, what string, c <-chan T) bool {
	t.Helper()
	select {
	case <-c:
		return true
	case <-time.After(short):
		t.Errorf("%s: not within %v", what, short)
		return false
	}
}

// asking is a request that ends with the test.
func asking(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// pipes is a listener of connections without any buffer.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error { p.once.Do(func() { close(p.done) }); return nil }

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// A read of the body that blocks in writing «100 Continue» is released.
func TestReadBlockedInWriting100Continue(t *testing.T) {
	g, v := newGuard(t)
	running, returned := make(chan struct{}), make(chan struct{})
	l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	s := &http.Server{Handler: guarded(g, func(_ http.ResponseWriter, r *http.Request) {
		close(running)
		_, _ = r.Body.Read(make([]byte, 10))
		close(returned)
	})}
	go func() { _ = s.Serve(l) }()
	mine, theirs := net.Pipe()
	l.conns <- theirs
	_, _ = io.WriteString(mine, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
	await(t, "handler", running)
	<-time.After(100 * time.Millisecond) // it writes 100 Continue now, nobody reads
	revoke(t, g, v)
	withinShort(t, "the blocked read", returned)
	_ = mine.Close()
	await(t, "handler's end", returned)
	_ = s.Close()
}

// noUnwrap is what many a logging middleware uses: an embedded writer, and no Unwrap.
type noUnwrap struct{ http.ResponseWriter }

func silentUpload(t *testing.T, url string) net.Conn {
	c := dial(t, url)
	_ = c.SetDeadline(time.Now().Add(short))
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n0123456789")
	return c
}

// The answer to a stop does not wait for a silent client, whatever the writer.
func TestAnswerToAStopBehindAWriterWithoutUnwrap(t *testing.T) {
	g, v := newGuard(t)
	running := make(chan struct{})
	h := guarded(g, func(_ http.ResponseWriter, r *http.Request) { close(running); <-r.Context().Done() })
	url, _ := serve(t, protocols()[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(noUnwrap{w}, r) }))
	c := silentUpload(t, url)
	await(t, "handler", running)
	revoke(t, g, v)
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("answer = %v, %v", resp, err)
	}
}

// Neither does a refusal.
func TestRefusalBehindAWriterWithoutUnwrap(t *testing.T) {
	g, v := newGuard(t)
	v.Deny(device, guard.CodeDeviceRevoked)
	h := guarded(g, func(http.ResponseWriter, *http.Request) {})
	url, _ := serve(t, protocols()[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(noUnwrap{w}, r) }))
	c := silentUpload(t, url)
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("answer = %v, %v", resp, err)
	}
}

func TestRefusalInAUnitTest(t *testing.T) {
	g, v := newGuard(t)
	v.Deny(device, guard.CodeDeviceRevoked)
	pr, pw := io.Pipe()
	done := make(chan struct{})
	rec := httptest.NewRecorder()
	go func() {
		guarded(g, func(http.ResponseWriter, *http.Request) {}).ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "POST", "/", pr))
		close(done)
	}()
	withinShort(t, "the refusal", done)
	_ = pw.Close()
	<-done
}

// Where the writer inside may be used by several goroutines at once, the guard's may.
func TestConcurrentWritesOfALockingWriter(t *testing.T) {
	g, _ := newGuard(t)
	h := http.TimeoutHandler(guarded(g, func(w http.ResponseWriter, _ *http.Request) {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 100 {
					_, _ = io.WriteString(w, "x")
				}
			})
		}
		wg.Wait()
	}), patience, "")
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
}

// The header is the handler's: once the answer has begun the guard does not look at it, for it may be
// setting trailers.
func TestTrailerSetWhileAnotherGoroutineWrites(t *testing.T) {
	g, _ := newGuard(t)
	h := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "x")
		_ = http.NewResponseController(w).Flush()
		var wg sync.WaitGroup
		wg.Go(func() {
			for range 2000 {
				_, _ = io.WriteString(w, "x")
			}
		})
		for i := range 2000 {
			w.Header().Set(http.TrailerPrefix+"N", fmt.Sprint(i))
		}
		wg.Wait()
	}
	t.Run("bare", func(t *testing.T) {
		url, c := serve(t, protocols()[0], http.HandlerFunc(h))
		_, _ = io.Copy(io.Discard, get(t, c, url).Body)
	})
	t.Run("guarded", func(t *testing.T) {
		url, c := serve(t, protocols()[0], guarded(g, h, httpmw.WithLastEvent(func(httpmw.Problem) []byte { return nil })))
		_, _ = io.Copy(io.Discard, get(t, c, url).Body)
	})
}

func swallow(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { _ = recover() }()
		next.ServeHTTP(w, r)
	})
}

func halfThenDenied(t *testing.T, p protocol, around func(http.Handler) http.Handler, opts ...httpmw.Option) {
	g, v := newGuard(t)
	running := make(chan struct{})
	url, c := serve(t, p, around(guarded(g, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: half\n\n")
		w.(http.Flusher).Flush()
		close(running)
		<-r.Context().Done()
	}, opts...)))
	resp := get(t, c, url)
	await(t, "handler", running)
	revoke(t, g, v)
	if text, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("half an answer looks whole: %q", text)
	}
}

// A panic of WithLastEvent's function leaves no half answer that looks whole.
func TestLastEventPanics(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		halfThenDenied(t, p, swallow, httpmw.WithLastEvent(func(httpmw.Problem) []byte { panic("bug") }))
	})
}

// Where the request's context ends while the verifier asks, nobody has said that the token is invalid.
func TestContextEndsWhileTheVerifierAsks(t *testing.T) {
	g, _ := newGuard(t)
	h := httpmw.New(g, httpmw.FromBearer(func(ctx context.Context, _ string) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	}))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer good")
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	if rec.Code != 503 {
		t.Errorf("%d %v", rec.Code, rec.Header())
	}
}

type deadlineCounter struct {
	http.ResponseWriter
	n *atomic.Int32
}

func (d deadlineCounter) ReadFrom(r io.Reader) (int64, error) {
	return d.ResponseWriter.(io.ReaderFrom).ReadFrom(r)
}

func (d deadlineCounter) SetWriteDeadline(tm time.Time) error {
	d.n.Add(1)
	return http.NewResponseController(d.ResponseWriter).SetWriteDeadline(tm)
}

// A copy from a source that is silent never comes out: it is looked after less and less often.
func TestReleasePollsForEver(t *testing.T) {
	g, v := newGuard(t)
	pr, pw := io.Pipe()
	var n atomic.Int32
	done := make(chan struct{})
	h := guarded(g, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, struct{ io.Reader }{pr}); close(done) })
	url, c := serve(t, protocols()[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(deadlineCounter{w, &n}, r) }))
	go func() {
		if resp, err := c.Do(asking(t, http.MethodGet, url, nil)); err == nil {
			_ = resp.Body.Close()
		}
	}()
	_, _ = pw.Write([]byte("0123456789"))
	<-time.After(50 * time.Millisecond)
	revoke(t, g, v)
	<-time.After(time.Second)
	if n.Load() > 20 {
		t.Errorf("%d deadlines in a second", n.Load())
	}
	_ = pw.Close()
	<-done
}

type rtFunc func(*http.Request) (*http.Response, error)

func (f rtFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

type closeCounter struct {
	io.Reader
	n *atomic.Int32
}

func (b closeCounter) Close() error { b.n.Add(1); return nil }

// The body inside is closed once, whoever closes it: a transport may count.
func TestAnswersBodyIsClosedOnce(t *testing.T) {
	g, v := newGuard(t)
	var n atomic.Int32
	pr, pw := io.Pipe()
	defer func() { _ = pw.Close() }()
	rt := httpmw.Transport(g, httpmw.Fixed(device), rtFunc(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Body: closeCounter{pr, &n}}, nil
	}))
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://a/", nil)
	resp, err := rt.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	revoke(t, g, v)
	_, err = resp.Body.Read(make([]byte, 1))
	if !errors.Is(err, guard.ErrDenied) {
		t.Error(err)
	}
	_ = resp.Body.Close()
	if n.Load() != 1 {
		t.Errorf("closed %d times", n.Load())
	}
}

// Within http.TimeoutHandler a refusal does not wait for a silent upload.
func TestRefusalInsideATimeoutHandler(t *testing.T) {
	g, v := newGuard(t)
	v.Deny(device, guard.CodeDeviceRevoked)
	h := http.TimeoutHandler(guarded(g, func(http.ResponseWriter, *http.Request) {}), 2500*time.Millisecond, "late")
	url, _ := serve(t, protocols()[0], h)
	c := silentUpload(t, url)
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("answer = %v, %v", resp, err)
	}
}

// An event stream that has sent its header alone can have a last event, too.
func TestLastEventAsTheFirst(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		g, v := newGuard(t)
		running := make(chan struct{})
		url, c := serve(t, p, guarded(g, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			close(running)
			<-r.Context().Done()
		}, httpmw.WithLastEvent(func(httpmw.Problem) []byte { return []byte("event: end\n\n") })))
		resp := get(t, c, url)
		await(t, "handler", running)
		revoke(t, g, v)
		if text, err := io.ReadAll(resp.Body); err == nil || string(text) != "event: end\n\n" {
			t.Errorf("got %q, %v", text, err)
		}
	})
}

// Where the request's body was read to its end, a stop leaves the context outside alone.
func TestStopEndsTheOuterContext(t *testing.T) {
	g, v := newGuard(t)
	running, got := make(chan struct{}), make(chan error, 1)
	h := guarded(g, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(running)
		<-r.Context().Done()
	}, httpmw.WithAnswer(func(w http.ResponseWriter, r *http.Request, p httpmw.Problem) {
		select {
		case <-r.Context().Done():
		case <-time.After(200 * time.Millisecond): // looks something up
		}
		got <- r.Context().Err()
		w.WriteHeader(p.Status)
	}))
	url, c := serve(t, protocols()[0], h)
	go func() {
		if resp, err := c.Do(asking(t, http.MethodPost, url, strings.NewReader("small"))); err == nil {
			_ = resp.Body.Close()
		}
	}()
	await(t, "handler", running)
	revoke(t, g, v)
	if err := await(t, "answer", got); err != nil {
		t.Error("WithAnswer's context:", err)
	}
}

type bufferedHijack struct{ http.ResponseWriter }

func (b bufferedHijack) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := b.ResponseWriter.(http.Hijacker).Hijack()
	if err == nil {
		_, _ = rw.WriteString("early ") // an outer middleware's bytes, not yet flushed
	}
	return c, rw, err
}

// What stands in the buffered writer of a hijacked connection is sent.
func TestHijackKeepsWhatIsInTheWriter(t *testing.T) {
	g, _ := newGuard(t)
	h := func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = rw.WriteString("late")
		_ = rw.Flush()
		_ = c.Close()
	}
	for name, h := range map[string]http.Handler{"bare": http.HandlerFunc(h), "guarded": guarded(g, h)} {
		t.Run(name, func(t *testing.T) {
			url, _ := serve(t, protocols()[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(bufferedHijack{w}, r) }))
			c := dial(t, url)
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			if text, _ := io.ReadAll(c); string(text) != "early late" {
				t.Errorf("got %q", text)
			}
		})
	}
}

// A panic inside of a write, recovered by the handler, does not keep the guard from ending the answer.
func TestPanicInsideAWrite(t *testing.T) {
	g, v := newGuard(t)
	running := make(chan struct{})
	url, c := serve(t, protocols()[0], guarded(g, func(w http.ResponseWriter, r *http.Request) {
		func() {
			defer func() { _ = recover() }()
			w.WriteHeader(0) // net/http panics
		}()
		close(running)
		<-r.Context().Done()
	}))
	got := make(chan error, 1)
	go func() {
		resp, err := c.Do(asking(t, http.MethodGet, url, nil))
		if err == nil {
			_ = resp.Body.Close()
		}
		got <- err
	}()
	await(t, "handler", running)
	revoke(t, g, v)
	if err := await(t, "answer", got); err != nil {
		t.Error("no problem answer though nothing was sent:", err)
	}
}

// An announcement (1xx) in flight does not cost the answer that is due.
func TestAnnouncementInFlight(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		for range 40 {
			g, v := newGuard(t)
			running, got := make(chan struct{}), make(chan error, 1)
			url, c := serve(t, p, guarded(g, func(w http.ResponseWriter, r *http.Request) {
				close(running)
				for r.Context().Err() == nil {
					w.WriteHeader(http.StatusEarlyHints)
					<-time.After(50 * time.Microsecond)
				}
			}))
			go func() {
				resp, err := c.Do(asking(t, http.MethodGet, url, nil))
				if err == nil {
					_ = resp.Body.Close()
				}
				got <- err
			}()
			await(t, "handler", running)
			revoke(t, g, v)
			if err := await(t, "answer", got); err != nil {
				t.Fatal("nothing was sent, and there is no 403:", err)
			}
		}
	})
}

// In HTTP/1.0 the end of the connection is that of the body: what is cut is reset.
func TestHalfAnAnswerOverHTTP10(t *testing.T) {
	g, v := newGuard(t)
	half := make(chan struct{})
	url, _ := serve(t, protocols()[0], guarded(g, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		close(half)
		<-r.Context().Done()
	}))
	c := dial(t, url)
	_, _ = io.WriteString(c, "GET / HTTP/1.0\r\nHost: x\r\n\r\n")
	await(t, "half", half)
	revoke(t, g, v)
	text, err := io.ReadAll(c)
	if err == nil {
		t.Errorf("a proper end of %q", text)
	} else if !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
}

type twice struct{ *guard.Guard }

func (r twice) Run(ctx context.Context, id string, fn func(context.Context) error) error {
	_ = r.Guard.Run(ctx, id, fn)
	return r.Guard.Run(ctx, id, fn)
}

// A Runner that calls again, as one made of Keep would, has the handler called once a request.
func TestRunnerCallsAgain(t *testing.T) {
	g, _ := newGuard(t)
	calls := 0
	h := httpmw.New(twice{g}, httpmw.Fixed(device))(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls++
		_, _ = io.WriteString(w, "order placed;")
	}))
	w := httptest.NewRecorder()
	func() {
		defer func() { _ = recover() }()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader("x")))
	}()
	if calls != 1 {
		t.Errorf("the handler was called %d times for one request: %q", calls, w.Body)
	}
}

type tripFunc func(*http.Request) (*http.Response, error)

func (f tripFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A source that is no memory is not read on after the denial, whatever http.NewRequest made of it.
func TestSourceIsReadAfterTheDenial(t *testing.T) {
	for name, length := range map[string]int64{"without a length": -1, "with one": 8} {
		t.Run(name, func(t *testing.T) {
			g, v := newGuard(t)
			r := asking(t, http.MethodPost, "http://x", struct{ io.Reader }{strings.NewReader("halfhalf")})
			r.ContentLength = length
			_, _ = httpmw.Transport(g, httpmw.Fixed(device), tripFunc(func(r *http.Request) (*http.Response, error) {
				_, _ = io.ReadFull(r.Body, make([]byte, 4))
				revoke(t, g, v)
				rest, err := io.ReadAll(r.Body)
				if err == nil || len(rest) > 0 {
					t.Errorf("after the denial %q is read, and %v", rest, err)
				}
				return nil, io.ErrUnexpectedEOF
			})).RoundTrip(r)
		})
	}
}

package httpmw_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/httpmw"
)

// turning is a writer on which the device is denied while something is inside, and which comes out when it is released.
type turning struct {
	*able
	deny     func()
	released chan string
}

func newTurning(t *testing.T, deny func()) turning {
	t.Helper()
	return turning{newAble(), deny, make(chan string, 8)}
}

func (w turning) turn(t *testing.T, want string) {
	t.Helper()
	w.deny()
	if what := await(t, "the release", w.released); what != want {
		t.Errorf("%s released it, want %s", what, want)
	}
}

func (w turning) SetReadDeadline(time.Time) error {
	w.released <- "SetReadDeadline"
	return nil
}

func (w turning) SetWriteDeadline(time.Time) error {
	w.released <- "SetWriteDeadline"
	return nil
}

// turningWrite turns inside of Write, turningHijack inside of Hijack.
type turningWrite struct {
	turning
	t *testing.T
}

func (w turningWrite) Write(p []byte) (int, error) {
	w.turn(w.t, "SetWriteDeadline")
	return len(p), nil
}

type turningHijack struct {
	turning
	t *testing.T
}

func (w turningHijack) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.turn(w.t, "SetReadDeadline")
	return nil, nil, errors.New("taken")
}

// A write that had to be released was not in time, even if it comes out without an error: Write and WriteString alike.
func TestReleasedWriteIsTheDenial(t *testing.T) {
	for name, write := range map[string]func(w http.ResponseWriter) (int, error){
		"Write":       func(w http.ResponseWriter) (int, error) { return w.Write([]byte("half")) },
		"WriteString": func(w http.ResponseWriter) (int, error) { return io.WriteString(w, "half") },
	} {
		t.Run(name, func(t *testing.T) {
			g, v := newGuard(t)
			defer func() {
				if p := recover(); p != http.ErrAbortHandler {
					t.Errorf("panicked with %v, want http.ErrAbortHandler", p)
				}
			}()
			inside(t, g, turningWrite{newTurning(t, func() { revoke(t, g, v) }), t}, func(w http.ResponseWriter, _ *http.Request) {
				n, err := write(w)
				if n != 4 {
					t.Errorf("n = %d", n)
				}
				wantDenied(t, err, guard.CodeDeviceRevoked)
			})
		})
	}
}

// A Hijack that fails during the denial has failed because of it.
func TestHijackThatFailsDuringTheDenial(t *testing.T) {
	g, v := newGuard(t)
	inside(t, g, turningHijack{newTurning(t, func() { revoke(t, g, v) }), t}, func(w http.ResponseWriter, _ *http.Request) {
		_, _, err := w.(http.Hijacker).Hijack()
		wantDenied(t, err, guard.CodeDeviceRevoked)
	})
}

// A denial closes a hijacked connection also where the writer that it came from has no deadlines.
func TestDeniedWhileHijackedFromAWriterWithoutDeadlines(t *testing.T) {
	g, v := newGuard(t)
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _ = theirs.Close() })
	conn := reading{ours, make(chan struct{})}
	w := hijackFunc{httptest.NewRecorder(), func() (net.Conn, *bufio.ReadWriter, error) { return conn, nil, nil }}
	inside(t, g, w, func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Fatal(err)
		}
		read := make(chan error, 1)
		go func() {
			_, err := c.Read(make([]byte, 1))
			read <- err
		}()
		defer func() { _ = c.Close() }()
		await(t, "the read", conn.begun)
		revoke(t, g, v)
		wantDenied(t, await(t, "the end of the read", read), guard.CodeDeviceRevoked)
	})
}

// reading is a connection that tells when it is read.
type reading struct {
	net.Conn

	begun chan struct{}
}

func (r reading) Read(p []byte) (int, error) {
	close(r.begun)
	return r.Conn.Read(p)
}

// The handler's Close of the body reaches it, and begins no answer: that is still the guard's to give. After the denial
// it does not, as it might have to read the rest.
func TestCloseOfTheBody(t *testing.T) {
	for name, after := range map[string]bool{"before the denial": false, "after the denial": true} {
		t.Run(name, func(t *testing.T) {
			g, v := newGuard(t)
			closed, rec := new(atomic.Int32), httptest.NewRecorder()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", closeCounter{strings.NewReader("much"), closed})
			guarded(g, func(_ http.ResponseWriter, r *http.Request) {
				if after {
					revoke(t, g, v)
					wantDenied(t, r.Body.Close(), guard.CodeDeviceRevoked)
				} else if err := r.Body.Close(); err != nil {
					t.Errorf("err = %v", err)
				}
				if (closed.Load() == 0) != after {
					t.Errorf("it was closed %d times", closed.Load())
				}
				revoke(t, g, v)
			}).ServeHTTP(rec, r)
			problem(t, rec.Result(), http.StatusForbidden, "DEVICE_REVOKED")
		})
	}
}

// ReadFrom hands on the source's own error, and does not read a source again that has come to its end.
func TestReadFromASourceThatEnds(t *testing.T) {
	failed := errors.New("the disk is gone")
	for name, test := range map[string]struct {
		source io.Reader
		n      int64
		err    error
	}{
		"at once":              {strings.NewReader(""), 0, nil},
		"with its first bytes": {iotest.DataErrReader(strings.NewReader("all")), 3, nil},
		"with an error":        {iotest.ErrReader(failed), 0, failed},
	} {
		t.Run(name, func(t *testing.T) {
			g, _ := newGuard(t)
			inside(t, g, newAble(), func(w http.ResponseWriter, _ *http.Request) {
				once := &readOnce{Reader: test.source, t: t}
				if n, err := w.(io.ReaderFrom).ReadFrom(once); n != test.n || err != test.err {
					t.Errorf("ReadFrom = %d, %v; want %d, %v", n, err, test.n, test.err)
				}
			})
		})
	}
}

// readOnce fails the test if a reader is read again that has ended.
type readOnce struct {
	io.Reader
	t     *testing.T
	ended bool
}

func (r *readOnce) Read(p []byte) (int, error) {
	if r.ended {
		r.t.Error("it was read again")
	}
	n, err := r.Reader.Read(p)
	r.ended = err != nil
	return n, err
}

// What the probes and Debug answer has its length, so that HEAD tells it.
func TestHealthAnswersHaveALength(t *testing.T) {
	g, _ := newGuard(t)
	closed, _ := newGuard(t)
	_ = closed.Close()
	for name, h := range map[string]http.Handler{"Debug": httpmw.Debug(g), "Ready": httpmw.Ready(closed)} {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
		if got := rec.Header().Get("Content-Length"); got != strconv.Itoa(rec.Body.Len()) {
			t.Errorf("%s: Content-Length %q of %d bytes", name, got, rec.Body.Len())
		}
	}
}

// The error of a certificate that names no device says why, for the server's own log.
func TestFromTLSSaysWhy(t *testing.T) {
	spiffe := func(ids ...string) *x509.Certificate {
		c := &x509.Certificate{Subject: pkix.Name{CommonName: "never asked"}}
		for _, id := range ids {
			u, _ := url.Parse(id)
			c.URIs = append(c.URIs, u)
		}
		return c
	}
	for why, leaf := range map[string]*x509.Certificate{
		"there is no verified client certificate":                       nil,
		"the client certificate has more than one SPIFFE id":            spiffe("spiffe://a/b", "spiffe://a/c"),
		"the SPIFFE id of the client certificate names no trust domain": spiffe("spiffe:///b"),
		"the client certificate names nobody":                           {},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.TLS = &tls.ConnectionState{}
		if leaf != nil {
			r.TLS.VerifiedChains = [][]*x509.Certificate{{leaf}}
		}
		id, err := httpmw.FromTLS()(r)
		if id != "" || !errors.Is(err, httpmw.ErrNoIdentity) || err.Error() != "httpmw: no identity: "+why {
			t.Errorf("%q, %v; want: %s", id, err, why)
		}
	}
}

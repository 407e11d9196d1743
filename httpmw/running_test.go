package httpmw_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
	"github.com/execguard/execguard/httpmw"
)

// stand is a guarded handler behind a server of its own.
type stand struct {
	guard     *guard.Guard
	authority *guardtest.Validator
	url       string
	client    *http.Client
}

// newStand serves h under a guard, over p.
func newStand(t *testing.T, p protocol, h http.HandlerFunc, opts ...httpmw.Option) *stand {
	t.Helper()
	return newStandInside(t, p, nil, h, opts...)
}

// newStandInside serves h under a guard that stands inside something else; nil: in nothing.
func newStandInside(
	t *testing.T, p protocol, around func(http.Handler) http.Handler, h http.HandlerFunc, opts ...httpmw.Option,
) *stand {
	t.Helper()
	s := &stand{}
	s.guard, s.authority = newGuard(t)
	g := guarded(s.guard, h, opts...)
	if around != nil {
		g = around(g)
	}
	s.url, s.client = serve(t, p, g)
	narrow(s.client)
	return s
}

// narrow leaves little room between a server and a client that does not read, so that it is soon full.
func narrow(c *http.Client) {
	const room = 1 << 16
	tr := c.Transport.(*http.Transport)
	tr.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: room, MaxReceiveBufferPerConnection: 1 << 20}
	tr.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return c, c.(*net.TCPConn).SetReadBuffer(room)
	}
}

// revoke revokes the device and has the guard learn of it.
func (s *stand) revoke(t testing.TB) {
	t.Helper()
	revoke(t, s.guard, s.authority)
}

// answer is what a client got: err is nil only where it came to a proper end.
type answer struct {
	status int
	header http.Header
	text   string
	err    error
}

// ask sends a request and reads the answer, on a goroutine of its own. Where hold is not nil, the
// client reads nothing of the body before it is closed.
func (s *stand) ask(t testing.TB, method string, body io.Reader, hold <-chan struct{}) <-chan answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, s.url, body)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan answer, 1)
	go func() { got <- s.do(r, hold) }()
	return got
}

func (s *stand) do(r *http.Request, hold <-chan struct{}) answer {
	resp, err := s.client.Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	if hold != nil {
		<-hold
	}
	text, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, header: resp.Header, text: string(text), err: err}
}

// get asks with GET, and waits for the answer.
func (s *stand) get(t testing.TB) answer {
	t.Helper()
	return await(t, "the answer", s.ask(t, http.MethodGet, nil, nil))
}

// wantProblem wants the answer to a request that was stopped before anything was sent.
func wantProblem(t testing.TB, a answer, status int, code string) httpmw.Problem {
	t.Helper()
	var p httpmw.Problem
	if a.err != nil {
		t.Errorf("no answer, want %d: %v", status, a.err)
		return p
	}
	if err := json.Unmarshal([]byte(a.text), &p); err != nil || a.status != status || p.Status != status || string(p.Code) != code {
		t.Errorf("answer = %d %s, want %d and %s", a.status, a.text, status, code)
	}
	for field, want := range map[string]string{
		"Content-Type": "application/problem+json", "Cache-Control": "no-store", "Retry-After": "",
	} {
		if got := a.header.Get(field); got != want {
			t.Errorf("%s = %q, want %q", field, got, want)
		}
	}
	return p
}

// wantCut wants an answer that was begun and never came to a proper end.
func wantCut(t testing.TB, a answer) {
	t.Helper()
	switch {
	case a.err == nil:
		t.Errorf("a proper end: %d, %d bytes: %.80q", a.status, len(a.text), a.text)
	case errors.Is(a.err, context.DeadlineExceeded):
		t.Errorf("no end at all: %v", a.err)
	case a.status >= http.StatusBadRequest:
		t.Errorf("answer = %d %.80q, want none with that status", a.status, a.text)
	}
}

// wantWhole wants a 200 with the text.
func wantWhole(t testing.TB, a answer, text string) {
	t.Helper()
	if a.err != nil || a.status != http.StatusOK || a.text != text {
		t.Errorf("answer = %d %.80q, %v; want %.80q", a.status, a.text, a.err, text)
	}
}

// standstill waits until progress has stopped, which is how a blocked write looks from outside.
func standstill(t testing.TB, progress *atomic.Int64) {
	t.Helper()
	const looks = 5
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	last, same := int64(-1), 0
	for until := time.Now().Add(patience); same < looks; <-tick.C {
		now := progress.Load()
		same++
		if now != last || now == 0 {
			last, same = now, 0
		}
		if time.Now().After(until) {
			t.Fatalf("still going on after %d", now)
		}
	}
}

// bulk is more than any buffer on the way holds.
const bulk = 1 << 30

// counting counts what is read through it.
type counting struct {
	io.Reader

	progress *atomic.Int64
}

func (c counting) Read(p []byte) (int, error) {
	c.progress.Add(1)
	return c.Reader.Read(p)
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// blocking is one way for a handler to block in what it reads or writes.
type blocking struct {
	name  string
	sent  bool // the answer is begun by then
	block func(w http.ResponseWriter, r *http.Request, progress *atomic.Int64) error
}

// begin sends the head of an answer, without waiting for the request's body.
func begin(w http.ResponseWriter) error {
	rc := http.NewResponseController(w)
	if err := rc.EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return rc.Flush()
}

// again repeats f until it fails.
func again(progress *atomic.Int64, f func() error) error {
	for {
		if err := f(); err != nil {
			return err
		}
		progress.Add(1)
	}
}

func blockings(t *testing.T) []blocking {
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, bulk); err != nil {
		t.Fatal(err)
	}
	return []blocking{
		{"reading the body", false, func(_ http.ResponseWriter, r *http.Request, progress *atomic.Int64) error {
			_, err := io.Copy(io.Discard, counting{r.Body, progress})
			return err
		}},
		{"reading the body behind an answer", true, func(w http.ResponseWriter, r *http.Request, progress *atomic.Int64) error {
			if err := begin(w); err != nil {
				return err
			}
			_, err := io.Copy(io.Discard, counting{r.Body, progress})
			return err
		}},
		{"Write", true, func(w http.ResponseWriter, _ *http.Request, progress *atomic.Int64) error {
			_ = begin(w)
			chunk := make([]byte, 1<<16)
			return again(progress, func() error {
				_, err := w.Write(chunk)
				return err
			})
		}},
		{"WriteString", true, func(w http.ResponseWriter, _ *http.Request, progress *atomic.Int64) error {
			_ = begin(w)
			chunk := strings.Repeat("x", 1<<16)
			return again(progress, func() error {
				_, err := io.WriteString(w, chunk)
				return err
			})
		}},
		{"Flush", true, func(w http.ResponseWriter, _ *http.Request, progress *atomic.Int64) error {
			_ = begin(w)
			chunk, rc := make([]byte, 1<<10), http.NewResponseController(w)
			return again(progress, func() error {
				if _, err := w.Write(chunk); err != nil {
					return fmt.Errorf("it was the write: %v", err) // and so no denial
				}
				return rc.Flush()
			})
		}},
		{"ReadFrom", true, func(w http.ResponseWriter, _ *http.Request, progress *atomic.Int64) error {
			_ = begin(w)
			_, err := io.Copy(w, counting{zeros{}, progress})
			return err
		}},
		{"ReadFrom a file", true, func(w http.ResponseWriter, _ *http.Request, progress *atomic.Int64) error {
			_ = begin(w)
			f, err := os.Open(large)
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			progress.Store(1) // sendfile shows none
			_, err = io.Copy(w, f)
			return err
		}},
		{"ReadFrom the body", true, func(w http.ResponseWriter, r *http.Request, progress *atomic.Int64) error {
			if err := begin(w); err != nil {
				return err
			}
			_, err := io.Copy(w, counting{r.Body, progress})
			return err
		}},
	}
}

// Whatever a handler blocks in, a denial releases it; the context has ended before that, and nothing
// passes after it.
func TestDeniedWhileBlocked(t *testing.T) {
	for _, b := range blockings(t) {
		t.Run(b.name, func(t *testing.T) {
			eachProtocol(t, func(t *testing.T, p protocol) {
				t.Parallel()
				var progress atomic.Int64
				blocked, cause, later := make(chan error, 1), make(chan error, 1), make(chan map[string]error, 1)
				s := newStand(t, p, func(w http.ResponseWriter, r *http.Request) {
					err := b.block(w, r, &progress)
					cause <- context.Cause(r.Context())
					blocked <- err
					later <- afterwards(w, r)
				})
				in, out := io.Pipe()
				released := make(chan struct{})
				got := s.ask(t, http.MethodPost, in, released)
				go func() { _, _ = out.Write([]byte("half")) }()
				standstill(t, &progress)
				s.revoke(t)
				wantDenied(t, await(t, "the cause", cause), guard.CodeDeviceRevoked)
				wantDenied(t, await(t, "the blocked call", blocked), guard.CodeDeviceRevoked)
				for what, err := range await(t, "later calls", later) {
					t.Run(what, func(t *testing.T) { wantDenied(t, err, guard.CodeDeviceRevoked) })
				}
				close(released)
				a := await(t, "the answer", got)
				_ = out.Close()
				if b.sent {
					wantCut(t, a)
				} else {
					wantProblem(t, a, http.StatusForbidden, "DEVICE_REVOKED")
				}
			})
		})
	}
}

// afterwards is what a handler comes to that ignores its context after a denial.
func afterwards(w http.ResponseWriter, r *http.Request) map[string]error {
	later := map[string]error{}
	rc := http.NewResponseController(w)
	_, later["Write"] = w.Write([]byte("later"))
	_, later["WriteString"] = io.WriteString(w, "later")
	if r.Body != http.NoBody {
		_, later["Read"] = r.Body.Read(make([]byte, 1))
	}
	later["Flush"] = rc.Flush()
	later["SetReadDeadline"] = rc.SetReadDeadline(time.Time{})
	later["SetWriteDeadline"] = rc.SetWriteDeadline(time.Time{})
	if from, ok := w.(io.ReaderFrom); ok {
		_, later["ReadFrom"] = from.ReadFrom(strings.NewReader("later"))
	}
	if h, ok := w.(http.Hijacker); ok {
		_, _, later["Hijack"] = h.Hijack()
		_, _, later["ResponseController.Hijack"] = rc.Hijack()
	}
	w.(http.Flusher).Flush()
	w.WriteHeader(http.StatusTeapot)
	return later
}

// A read that fails with a denial finds a context that has ended with it, however soon it looks: with
// the deadline first net/http would end the context itself, without a cause.
func TestTheContextEndsBeforeAReadIsReleased(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		t.Parallel()
		reading := make(chan struct{}, 1)
		cause := make(chan error, 1)
		s := newStand(t, p, func(_ http.ResponseWriter, r *http.Request) {
			reading <- struct{}{}
			_, _ = r.Body.Read(make([]byte, 1))
			cause <- context.Cause(r.Context())
		})
		for range 50 {
			s.authority.Allow(device)
			learn(t, s.guard)
			in, out := io.Pipe()
			got := s.ask(t, http.MethodPost, in, nil)
			await(t, "the handler", reading)
			s.revoke(t)
			err := await(t, "the cause", cause)
			wantDenied(t, err, guard.CodeDeviceRevoked)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("the cause %v does not match context.Canceled", err)
			}
			wantProblem(t, await(t, "the answer", got), http.StatusForbidden, "DEVICE_REVOKED")
			_ = out.Close()
		}
	})
}

// Every denial is a 403, whatever its code, once the handler was called.
func TestDeniedBeforeAnythingWasSent(t *testing.T) {
	codes := []guard.Code{
		guard.CodeOrgDisabled, guard.CodePlanFrozen, guard.CodePlanNotActive, guard.CodeEntitlementExpired,
		guard.CodeDeviceRevoked, guard.CodeDeviceNotFound, guard.CodeOrgNotFound, guard.CodeInvalidOrgKey,
		guard.CodeInvalidDeviceID, "A_CODE_OF_TOMORROW",
	}
	eachProtocol(t, func(t *testing.T, p protocol) {
		t.Parallel()
		running, cause := make(chan struct{}, 1), make(chan error, 1)
		s := newStand(t, p, waitForTheEnd(running, cause))
		for _, code := range codes {
			t.Run(string(code), func(t *testing.T) {
				s.authority.Allow(device)
				learn(t, s.guard)
				got := s.ask(t, http.MethodGet, nil, nil)
				await(t, "the handler", running)
				s.authority.Deny(device, code)
				learn(t, s.guard)
				err := await(t, "the cause", cause)
				wantDenied(t, err, code)
				problem := wantProblem(t, await(t, "the answer", got), http.StatusForbidden, string(code))
				var denied *guard.DeniedError
				if errors.As(err, &denied) && (problem.RequestID == "" || problem.RequestID != denied.Decision.RequestID) {
					t.Errorf("request id = %q, want that of %v", problem.RequestID, err)
				}
			})
		}
	})
}

// waitForTheEnd is a handler that prepares an answer, and waits for its context to end.
func waitForTheEnd(running chan<- struct{}, cause chan<- error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Length", "100000")
		w.Header().Set("Content-Encoding", "gzip")
		running <- struct{}{}
		<-r.Context().Done()
		cause <- context.Cause(r.Context())
	}
}

// Where nobody could be asked, work that was begun is no invitation to come again: 503 without Retry-After.
func TestUnavailableBeforeAnythingWasSent(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		t.Parallel()
		g, v := newGuard(t, guard.WithInterval(20*time.Millisecond), guard.WithTimeout(10*time.Second))
		running, cause := make(chan struct{}, 1), make(chan error, 1)
		s := &stand{guard: g, authority: v}
		s.url, s.client = serve(t, p, guarded(g, waitForTheEnd(running, cause)))
		got := s.ask(t, http.MethodGet, nil, nil)
		await(t, "the handler", running)
		v.Always(device, guardtest.Reply(guard.Decision{
			Code: guard.CodeSystemUnavailable, RequestID: "req-7", RetryAfter: time.Minute,
		}, nil))
		err := await(t, "the cause", cause)
		wantDenied(t, err, guard.CodeSystemUnavailable)
		if problem := wantProblem(t, await(t, "the answer", got), http.StatusServiceUnavailable, "SYSTEM_UNAVAILABLE"); problem.RequestID != "req-7" {
			t.Errorf("request id = %q", problem.RequestID)
		}
	})
}

// A guard that is closed is no denial, and ends requests all the same (S7).
func TestClosedBeforeAnythingWasSent(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		t.Parallel()
		running, cause := make(chan struct{}, 1), make(chan error, 1)
		s := newStand(t, p, waitForTheEnd(running, cause))
		got := s.ask(t, http.MethodGet, nil, nil)
		await(t, "the handler", running)
		_ = s.guard.Close()
		if err := await(t, "the cause", cause); !errors.Is(err, guard.ErrClosed) || errors.Is(err, guard.ErrDenied) {
			t.Errorf("cause = %v", err)
		}
		wantProblem(t, await(t, "the answer", got), http.StatusServiceUnavailable, "GUARD_CLOSED")
	})
}

// A closed guard releases what blocks, like a denial.
func TestClosedWhileBlocked(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		t.Parallel()
		var progress atomic.Int64
		blocked := make(chan error, 2)
		s := newStand(t, p, func(w http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(w, counting{zeros{}, &progress})
			blocked <- err
			_, err = w.Write([]byte("later"))
			blocked <- err
		})
		released := make(chan struct{})
		got := s.ask(t, http.MethodGet, nil, released)
		standstill(t, &progress)
		_ = s.guard.Close()
		for range 2 {
			if err := await(t, "the blocked call", blocked); !errors.Is(err, guard.ErrClosed) {
				t.Errorf("err = %v, want ErrClosed", err)
			}
		}
		close(released)
		wantCut(t, await(t, "the answer", got))
	})
}

// An announcement (1xx) is not an answer yet.
func TestDeniedAfterAnAnnouncement(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		t.Parallel()
		running := make(chan struct{}, 1)
		s := newStand(t, p, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusProcessing)
			running <- struct{}{}
			<-r.Context().Done()
			w.WriteHeader(http.StatusEarlyHints)
		})
		got := s.ask(t, http.MethodGet, nil, nil)
		await(t, "the handler", running)
		s.revoke(t)
		wantProblem(t, await(t, "the answer", got), http.StatusForbidden, "DEVICE_REVOKED")
	})
}

// A client in the middle of an upload gets to read why it was stopped, however much it still has
// to send, and whoever stands between the server and the guard.
func TestDeniedInTheMiddleOfAnUpload(t *testing.T) {
	for name, body := range map[string]func() io.Reader{
		"chunked":        func() io.Reader { return zeros{} },
		"Content-Length": func() io.Reader { return io.LimitReader(zeros{}, bulk) },
	} {
		t.Run(name, func(t *testing.T) {
			eachProtocol(t, func(t *testing.T, p protocol) {
				t.Parallel()
				for around, wrap := range map[string]func(http.Handler) http.Handler{"bare": nil, "wrapped": rewrapped} {
					t.Run(around, func(t *testing.T) { deniedInTheMiddleOfAnUpload(t, p, wrap, body()) })
				}
			})
		})
	}
}

func deniedInTheMiddleOfAnUpload(t *testing.T, p protocol, around func(http.Handler) http.Handler, body io.Reader) {
	reading, read := make(chan struct{}, 1), make(chan error, 1)
	s := newStandInside(t, p, around, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
		reading <- struct{}{}
		_, err := io.Copy(io.Discard, r.Body)
		read <- err
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, body)
	if err != nil {
		t.Fatal(err)
	}
	if _, limited := body.(*io.LimitedReader); limited {
		r.ContentLength = bulk
	}
	got := make(chan answer, 1)
	go func() { got <- s.do(r, nil) }()
	await(t, "the handler", reading)
	s.revoke(t)
	wantDenied(t, await(t, "the read", read), guard.CodeDeviceRevoked)
	a := await(t, "the answer", got)
	wantProblem(t, a, http.StatusForbidden, "DEVICE_REVOKED")
}

// rewrapped puts a writer that only unwraps between the server and the guard.
func rewrapped(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(struct {
			http.ResponseWriter
			unwrapper
		}{w, unwrapsTo{w}}, r)
	})
}

// unwrapper is what http.ResponseController looks for.
type unwrapper interface{ Unwrap() http.ResponseWriter }

type unwrapsTo struct{ inner http.ResponseWriter }

func (u unwrapsTo) Unwrap() http.ResponseWriter { return u.inner }

// The server hangs up on a client that goes on sending in order, not with a reset, which would take
// the answer away from a client that has not read it yet.
func TestTheUploadersConnectionIsNotReset(t *testing.T) {
	for around, wrap := range map[string]func(http.Handler) http.Handler{"bare": nil, "wrapped": rewrapped} {
		t.Run(around, func(t *testing.T) {
			reading := make(chan struct{}, 1)
			s := newStandInside(t, protocols()[0], wrap, func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
				reading <- struct{}{}
				_, _ = io.Copy(io.Discard, r.Body)
			})
			c := dial(t, s.url)
			go func() {
				fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
				chunk := fmt.Sprintf("%x\r\n%s\r\n", 1<<16, strings.Repeat("x", 1<<16))
				for {
					if _, err := io.WriteString(c, chunk); err != nil {
						return
					}
				}
			}()
			await(t, "the handler", reading)
			s.revoke(t)
			got := make([]byte, len("HTTP/1.1 403"))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != "HTTP/1.1 403" {
				t.Errorf("got %q, %v", got, err)
			}
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Errorf("reading the rest: %v", err)
			}
		})
	}
}

// Work that ignores its context and is finished before anybody notices is cut short all the same: it
// must never look finished.
func TestDeniedWithAWholeAnswerUnsent(t *testing.T) {
	for name, length := range map[string]string{"chunked": "", "Content-Length": "4"} {
		t.Run(name, func(t *testing.T) {
			eachProtocol(t, func(t *testing.T, p protocol) {
				t.Parallel()
				running := make(chan struct{}, 1)
				s := newStand(t, p, func(w http.ResponseWriter, r *http.Request) {
					if length != "" {
						w.Header().Set("Content-Length", length)
					}
					_, err := w.Write([]byte("done"))
					if err != nil {
						t.Error(err)
					}
					running <- struct{}{}
					<-r.Context().Done()
				})
				got := s.ask(t, http.MethodGet, nil, nil)
				await(t, "the handler", running)
				s.revoke(t)
				if a := await(t, "the answer", got); a.err == nil || a.text != "" {
					t.Errorf("answer = %+v, want none", a)
				}
			})
		})
	}
}

// Once something was sent, no client sees a proper end.
func TestDeniedAfterSomethingWasSent(t *testing.T) {
	half := func(w http.ResponseWriter) { _, _ = w.Write([]byte("half")) }
	flush := func(w http.ResponseWriter) { w.(http.Flusher).Flush() }
	for name, send := range map[string]func(w http.ResponseWriter){
		"WriteHeader only": func(w http.ResponseWriter) { w.WriteHeader(http.StatusOK) },
		"WriteHeader without a body": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "0")
			w.WriteHeader(http.StatusOK)
		},
		"No Content":     func(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) },
		"Flush only":     flush,
		"unflushed":      half,
		"flushed":        func(w http.ResponseWriter) { half(w); flush(w) },
		"flushed, more":  func(w http.ResponseWriter) { half(w); flush(w); half(w) },
		"Content-Length": func(w http.ResponseWriter) { w.Header().Set("Content-Length", "8"); half(w); flush(w) },
		"Content-Length, all but the flush": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "8")
			half(w)
			flush(w)
			half(w)
		},
		"trailer": func(w http.ResponseWriter) { w.Header().Set("Trailer", "Sum"); half(w); flush(w) },
		"ReadFrom": func(w http.ResponseWriter) {
			_, _ = io.Copy(w, strings.NewReader(strings.Repeat("x", 1<<14)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachProtocol(t, func(t *testing.T, p protocol) {
				t.Parallel()
				running := make(chan struct{}, 1)
				s := newStand(t, p, func(w http.ResponseWriter, r *http.Request) {
					send(w)
					running <- struct{}{}
					<-r.Context().Done()
				})
				got := s.ask(t, http.MethodGet, nil, nil)
				await(t, "the handler", running)
				s.revoke(t)
				wantCut(t, await(t, "the answer", got))
			})
		})
	}
}

// The answer to HEAD has no body that could miss: its header is what must not look proper.
func TestDeniedInHEAD(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		t.Parallel()
		for _, wrote := range []bool{false, true} {
			t.Run(fmt.Sprint(wrote), func(t *testing.T) {
				running := make(chan struct{}, 1)
				s := newStand(t, p, func(w http.ResponseWriter, r *http.Request) {
					if wrote {
						w.WriteHeader(http.StatusOK)
					}
					running <- struct{}{}
					<-r.Context().Done()
				})
				got := s.ask(t, http.MethodHead, nil, nil)
				await(t, "the handler", running)
				s.revoke(t)
				switch a := await(t, "the answer", got); {
				case wrote:
					wantCut(t, a)
				case a.err != nil || a.status != http.StatusForbidden || a.text != "":
					t.Errorf("answer = %+v, want 403 without a body", a)
				}
			})
		}
	})
}

// A context that has ended otherwise, by a timeout outside or because an HTTP/1.1 client has closed its
// sending side, takes nothing from the guard: a handler that ignores it is denied all the same. No client
// gets around a denial by hanging up halfway.
func TestDeniedAfterTheContextEndedOtherwise(t *testing.T) {
	handler := func(over chan<- struct{}, revoked <-chan struct{}, later chan<- map[string]error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_ = begin(w)
			<-r.Context().Done()
			close(over)
			<-revoked
			later <- afterwards(w, r)
		}
	}
	judge := func(t *testing.T, s *stand, over <-chan struct{}, revoked chan<- struct{}, later <-chan map[string]error) {
		t.Helper()
		await(t, "the context's end", over)
		s.revoke(t)
		close(revoked)
		for what, err := range await(t, "later calls", later) {
			t.Run(what, func(t *testing.T) { wantDenied(t, err, guard.CodeDeviceRevoked) })
		}
	}
	t.Run("half closed", func(t *testing.T) {
		over, revoked, later := make(chan struct{}), make(chan struct{}), make(chan map[string]error, 1)
		s := newStand(t, protocols()[0], handler(over, revoked, later))
		c := dial(t, s.url)
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := io.ReadFull(c, make([]byte, len("HTTP/1.1 200"))); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		judge(t, s, over, revoked, later)
		if got, _ := io.ReadAll(c); strings.Contains(string(got), "later") || strings.HasSuffix(string(got), "0\r\n\r\n") {
			t.Errorf("the client got %q", got)
		}
	})
	for name, nested := range map[string]bool{"a timeout outside": false, "a timeout outside two guards": true} {
		t.Run(name, func(t *testing.T) {
			eachProtocol(t, func(t *testing.T, p protocol) {
				over, revoked, later := make(chan struct{}), make(chan struct{}), make(chan map[string]error, 1)
				other, _ := newGuard(t)
				s := newStandInside(t, p, func(next http.Handler) http.Handler {
					if nested {
						next = guarded(other, next.ServeHTTP)
					}
					return canceling(next)
				}, handler(over, revoked, later))
				got := s.ask(t, http.MethodGet, nil, nil)
				judge(t, s, over, revoked, later)
				wantCut(t, await(t, "the answer", got))
			})
		})
	}
}

// canceling has the request's context end when the answer begins.
func canceling(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		next.ServeHTTP(cancelsAtFlush{w, cancel}, r.WithContext(ctx))
	})
}

type cancelsAtFlush struct {
	http.ResponseWriter

	cancel context.CancelFunc
}

func (c cancelsAtFlush) Flush() { _ = c.FlushError() }

func (c cancelsAtFlush) FlushError() error {
	c.cancel()
	return http.NewResponseController(c.ResponseWriter).Flush()
}

func (c cancelsAtFlush) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c.cancel()
	return http.NewResponseController(c.ResponseWriter).Hijack()
}

func (c cancelsAtFlush) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// In HTTP/1.1 what begins an answer reads the rest of the request first, and blocks in that.
func TestDeniedWhileAnAnswerWaitsForTheRequest(t *testing.T) {
	for name, send := range map[string]func(w http.ResponseWriter) error{
		"Flush": func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() },
		"Write": func(w http.ResponseWriter) error {
			_, err := w.Write(make([]byte, 1<<14))
			return err
		},
		"ReadFrom": func(w http.ResponseWriter) error {
			_, err := io.Copy(w, io.LimitReader(zeros{}, 1<<14))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			entered, sent := make(chan struct{}), make(chan error, 1)
			s := newStand(t, protocols()[0], func(w http.ResponseWriter, _ *http.Request) {
				close(entered)
				sent <- send(w)
			})
			c := dial(t, s.url)
			fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
			await(t, "the handler", entered)
			select {
			case err := <-sent:
				t.Fatalf("it does not block: %v", err)
			case <-time.After(30 * time.Millisecond):
			}
			s.revoke(t)
			wantDenied(t, await(t, "the answer's begin", sent), guard.CodeDeviceRevoked)
		})
	}
}

// What came to nothing has sent nothing.
func TestDeniedAfterWhatSentNothing(t *testing.T) {
	t.Run("a copy without a byte", func(t *testing.T) {
		eachProtocol(t, func(t *testing.T, p protocol) {
			t.Parallel()
			var progress atomic.Int64
			s := newStand(t, p, func(w http.ResponseWriter, r *http.Request) {
				progress.Add(1)
				_, err := io.Copy(w, r.Body)
				wantDenied(t, err, guard.CodeDeviceRevoked)
			})
			in, out := io.Pipe()
			got := s.ask(t, http.MethodPost, in, nil)
			standstill(t, &progress)
			s.revoke(t)
			wantProblem(t, await(t, "the answer", got), http.StatusForbidden, "DEVICE_REVOKED")
			_ = out.Close()
		})
	})
	t.Run("a flush that is not supported", func(t *testing.T) {
		around := func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				next.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
			})
		}
		running := make(chan struct{})
		s := newStandInside(t, protocols()[0], around, func(w http.ResponseWriter, r *http.Request) {
			if err := http.NewResponseController(w).Flush(); !errors.Is(err, http.ErrNotSupported) {
				t.Errorf("err = %v, want ErrNotSupported", err)
			}
			close(running)
			<-r.Context().Done()
		})
		got := s.ask(t, http.MethodGet, nil, nil)
		await(t, "the handler", running)
		s.revoke(t)
		wantProblem(t, await(t, "the answer", got), http.StatusForbidden, "DEVICE_REVOKED")
	})
}

// Nor does a handler set deadlines after a denial that has read and written nothing before.
func TestDeniedBeforeAnyReadOrWrite(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		t.Parallel()
		running, later := make(chan struct{}), make(chan map[string]error, 1)
		s := newStand(t, p, func(w http.ResponseWriter, r *http.Request) {
			close(running)
			<-r.Context().Done()
			rc := http.NewResponseController(w)
			first := map[string]error{
				"SetReadDeadline first":  rc.SetReadDeadline(time.Now().Add(time.Hour)),
				"SetWriteDeadline first": rc.SetWriteDeadline(time.Now().Add(time.Hour)),
			}
			maps.Copy(first, afterwards(w, r))
			later <- first
		})
		got := s.ask(t, http.MethodPost, strings.NewReader("body"), nil)
		await(t, "the handler", running)
		s.revoke(t)
		for what, err := range await(t, "later calls", later) {
			t.Run(what, func(t *testing.T) { wantDenied(t, err, guard.CodeDeviceRevoked) })
		}
		wantProblem(t, await(t, "the answer", got), http.StatusForbidden, "DEVICE_REVOKED")
	})
}

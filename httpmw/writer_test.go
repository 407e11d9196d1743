package httpmw_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/httpmw"
)

// able is a writer that can do everything, and notes what it was asked for.
type able struct {
	header http.Header

	mu    sync.Mutex
	asked []string
}

func newAble() *able { return &able{header: http.Header{}} }

func (a *able) note(what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, what)
}

// was tells what it was asked for since the last time.
func (a *able) was() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	asked := a.asked
	a.asked = nil
	return asked
}

func (a *able) Header() http.Header { return a.header }

func (a *able) WriteHeader(int) { a.note("WriteHeader") }

func (a *able) Write(p []byte) (int, error) {
	a.note("Write")
	return len(p), nil
}

func (a *able) Flush() { a.note("Flush") }

func (a *able) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	a.note("Hijack")
	return nil, nil, errors.New("there is no connection")
}

func (a *able) ReadFrom(r io.Reader) (int64, error) {
	a.note("ReadFrom")
	return io.Copy(io.Discard, r)
}

func (a *able) SetReadDeadline(time.Time) error {
	a.note("SetReadDeadline")
	return nil
}

func (a *able) SetWriteDeadline(time.Time) error {
	a.note("SetWriteDeadline")
	return nil
}

// inner is one kind of writer that a guard may find inside.
type inner struct {
	name                string
	flush, hijack, from bool
	unwraps             bool // to one that can do everything
	writer              func(a *able) http.ResponseWriter
}

// inners are all combinations of what a writer can do.
func inners() []inner {
	type (
		rw = http.ResponseWriter
		f  = http.Flusher
		h  = http.Hijacker
		r  = io.ReaderFrom
		u  = unwrapper
	)
	to := func(a *able) u { return unwrapsTo{a} }
	return []inner{
		{"nothing", false, false, false, false, func(a *able) rw { return struct{ rw }{a} }},
		{"flush", true, false, false, false, func(a *able) rw {
			return struct {
				rw
				f
			}{a, a}
		}},
		{"hijack", false, true, false, false, func(a *able) rw {
			return struct {
				rw
				h
			}{a, a}
		}},
		{"from", false, false, true, false, func(a *able) rw {
			return struct {
				rw
				r
			}{a, a}
		}},
		{"flush hijack", true, true, false, false, func(a *able) rw {
			return struct {
				rw
				f
				h
			}{a, a, a}
		}},
		{"flush from", true, false, true, false, func(a *able) rw {
			return struct {
				rw
				f
				r
			}{a, a, a}
		}},
		{"hijack from", false, true, true, false, func(a *able) rw {
			return struct {
				rw
				h
				r
			}{a, a, a}
		}},
		{"flush hijack from", true, true, true, false, func(a *able) rw {
			return struct {
				rw
				f
				h
				r
			}{a, a, a, a}
		}},
		{"unwrap", false, false, false, true, func(a *able) rw {
			return struct {
				rw
				u
			}{a, to(a)}
		}},
		{"unwrap flush", true, false, false, true, func(a *able) rw {
			return struct {
				rw
				u
				f
			}{a, to(a), a}
		}},
		{"unwrap hijack", false, true, false, true, func(a *able) rw {
			return struct {
				rw
				u
				h
			}{a, to(a), a}
		}},
		{"unwrap from", false, false, true, true, func(a *able) rw {
			return struct {
				rw
				u
				r
			}{a, to(a), a}
		}},
		{"unwrap flush hijack", true, true, false, true, func(a *able) rw {
			return struct {
				rw
				u
				f
				h
			}{a, to(a), a, a}
		}},
		{"unwrap flush from", true, false, true, true, func(a *able) rw {
			return struct {
				rw
				u
				f
				r
			}{a, to(a), a, a}
		}},
		{"unwrap hijack from", false, true, true, true, func(a *able) rw {
			return struct {
				rw
				u
				h
				r
			}{a, to(a), a, a}
		}},
		{"everything", true, true, true, true, func(a *able) rw {
			return struct {
				rw
				u
				f
				h
				r
			}{a, to(a), a, a, a}
		}},
	}
}

// inside calls a guarded handler with a writer of ours.
func inside(t *testing.T, g *guard.Guard, w http.ResponseWriter, h http.HandlerFunc, opts ...httpmw.Option) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	guarded(g, h, opts...).ServeHTTP(w, r)
}

// The wrapper can do what the writer inside can do, no less and no more: callers ask by type.
func TestWriterKeepsWhatTheInnerOneCan(t *testing.T) {
	for _, in := range inners() {
		t.Run(in.name, func(t *testing.T) {
			g, _ := newGuard(t)
			a := newAble()
			inside(t, g, in.writer(a), func(w http.ResponseWriter, _ *http.Request) {
				_, flush := w.(http.Flusher)
				_, hijack := w.(http.Hijacker)
				_, from := w.(io.ReaderFrom)
				_, unwrap := w.(unwrapper)
				// One that hijacks further inside would be found by http.ResponseController, past the guard.
				if flush != in.flush || hijack != (in.hijack || in.unwraps) || from != in.from || !unwrap {
					t.Errorf("flush %v, hijack %v, from %v, unwrap %v", flush, hijack, from, unwrap)
				}
			})
		})
	}
}

// What is called on the wrapper arrives inside, once, by the most direct way there is.
func TestWriterHandsOn(t *testing.T) {
	for _, in := range inners() {
		t.Run(in.name, func(t *testing.T) {
			g, _ := newGuard(t)
			a := newAble()
			inside(t, g, in.writer(a), func(w http.ResponseWriter, _ *http.Request) {
				rc := http.NewResponseController(w)
				wantAsked := func(supported bool, err error, want string) {
					t.Helper()
					asked := a.was()
					switch {
					case supported && !slices.Equal(asked, []string{want}):
						t.Errorf("asked for %q, want %s", asked, want)
					case !supported && (len(asked) > 0 || !errors.Is(err, http.ErrNotSupported)):
						t.Errorf("%s: asked for %q, %v; want ErrNotSupported", want, asked, err)
					}
				}
				_, err := w.Write([]byte("x"))
				wantAsked(true, err, "Write")
				_, err = io.WriteString(w, "x")
				wantAsked(true, err, "Write")
				w.WriteHeader(http.StatusOK)
				wantAsked(true, nil, "WriteHeader")
				if f, ok := w.(http.Flusher); ok {
					f.Flush()
					wantAsked(true, nil, "Flush")
				}
				wantAsked(in.flush || in.unwraps, rc.Flush(), "Flush")
				wantAsked(in.unwraps, rc.SetReadDeadline(time.Time{}), "SetReadDeadline")
				wantAsked(in.unwraps, rc.SetWriteDeadline(time.Time{}), "SetWriteDeadline")
				if from, ok := w.(io.ReaderFrom); ok {
					n, err := from.ReadFrom(strings.NewReader(strings.Repeat("x", 10_000)))
					if asked := a.was(); n != 10_000 || err != nil || asked[len(asked)-1] != "ReadFrom" { // the first bytes may be written
						t.Errorf("ReadFrom = %d, %v; asked for %q", n, err, asked)
					}
				}
				_, _, err = rc.Hijack()
				wantAsked(in.hijack || in.unwraps, err, "Hijack")
			})
		})
	}
}

// After a denial nothing arrives inside, neither by the wrapper's own methods nor by
// http.ResponseController, which looks through wrappers.
func TestWriterLetsNothingPastTheGuard(t *testing.T) {
	for _, in := range inners() {
		t.Run(in.name, func(t *testing.T) {
			g, v := newGuard(t)
			a := newAble()
			left := make(chan http.ResponseWriter, 1)
			func() {
				defer func() {
					if p := recover(); p != http.ErrAbortHandler {
						t.Errorf("panicked with %v, want http.ErrAbortHandler", p)
					}
				}()
				inside(t, g, in.writer(a), func(w http.ResponseWriter, r *http.Request) {
					_, _ = w.Write([]byte("half"))
					revoke(t, g, v)
					<-r.Context().Done()
					a.was() // the release may have set deadlines; what is inside is none of the handler's doing
					nothingPasses(t, a, w)
					left <- w
				})
			}()
			a.was()
			nothingPasses(t, a, <-left) // what the handler left behind on another goroutine neither
		})
	}
}

func nothingPasses(t *testing.T, a *able, w http.ResponseWriter) {
	t.Helper()
	rc := http.NewResponseController(w)
	later := map[string]error{}
	_, later["Write"] = w.Write([]byte("x"))
	_, later["WriteString"] = io.WriteString(w, "x")
	later["ResponseController.Flush"] = rc.Flush()
	if h, ok := w.(http.Hijacker); ok {
		_, _, later["Hijack"] = h.Hijack()
		_, _, later["ResponseController.Hijack"] = rc.Hijack()
	}
	if from, ok := w.(io.ReaderFrom); ok {
		_, later["ReadFrom"] = from.ReadFrom(strings.NewReader("x"))
	}
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
	w.WriteHeader(http.StatusOK)
	for what, err := range later {
		if !errors.Is(err, guard.ErrDenied) {
			t.Errorf("%s: %v, want the denial", what, err)
		}
	}
	if asked := slices.DeleteFunc(a.was(), func(what string) bool { return strings.HasPrefix(what, "Set") }); len(asked) > 0 {
		t.Errorf("arrived inside: %q", asked)
	}
}

// A writer without deadlines cannot be released; what the handler does next fails all the same, and so
// does a copy at its next read.
func TestDeniedWithAWriterWithoutDeadlines(t *testing.T) {
	t.Run("write", func(t *testing.T) {
		g, v := newGuard(t)
		rec := httptest.NewRecorder()
		inside(t, g, rec, func(w http.ResponseWriter, r *http.Request) {
			revoke(t, g, v)
			_, err := w.Write([]byte("later"))
			wantDenied(t, err, guard.CodeDeviceRevoked)
		})
		if rec.Code != http.StatusForbidden || strings.Contains(rec.Body.String(), "later") {
			t.Errorf("answer = %d %s", rec.Code, rec.Body)
		}
	})
	t.Run("copy", func(t *testing.T) {
		g, v := newGuard(t)
		w := struct {
			http.ResponseWriter
			io.ReaderFrom
		}{httptest.NewRecorder(), newAble()}
		defer func() {
			if p := recover(); p != http.ErrAbortHandler {
				t.Errorf("panicked with %v, want http.ErrAbortHandler", p)
			}
		}()
		inside(t, g, w, func(w http.ResponseWriter, _ *http.Request) {
			reads := 0
			_, err := io.Copy(w, readerFunc(func(p []byte) (int, error) {
				if reads++; reads == 3 {
					revoke(t, g, v)
				}
				return len(p), nil
			}))
			wantDenied(t, err, guard.CodeDeviceRevoked)
			if reads != 3 {
				t.Errorf("%d reads, want none after the denial", reads)
			}
		})
	})
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// runnerFunc is a guard.Runner of the test's own.
type runnerFunc func(ctx context.Context, deviceID string, fn func(context.Context) error) error

func (f runnerFunc) Run(ctx context.Context, deviceID string, fn func(context.Context) error) error {
	return f(ctx, deviceID, fn)
}

// late denies what has run, though no timer has fired: a function that returned after its line (S6).
func late(code guard.Code) guard.Runner {
	return runnerFunc(func(ctx context.Context, deviceID string, fn func(context.Context) error) error {
		if err := fn(ctx); err != nil {
			return err
		}
		return &guard.DeniedError{DeviceID: deviceID, Decision: guard.Decision{Code: code, RequestID: "late"}, InFlight: true}
	})
}

// serveRunner serves h under a runner.
func serveRunner(t *testing.T, p protocol, r guard.Runner, h http.HandlerFunc) *stand {
	t.Helper()
	s := &stand{}
	s.url, s.client = serve(t, p, httpmw.New(r, httpmw.Fixed(device))(h))
	return s
}

// S6: a handler that returns after its line is cut, though its context has not ended.
func TestDeniedWhenTheHandlerHasReturned(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		t.Parallel()
		t.Run("nothing sent", func(t *testing.T) {
			s := serveRunner(t, p, late(guard.CodeDeviceRevoked), func(http.ResponseWriter, *http.Request) {})
			if problem := wantProblem(t, s.get(t), http.StatusForbidden, "DEVICE_REVOKED"); problem.RequestID != "late" {
				t.Errorf("request id = %q", problem.RequestID)
			}
		})
		t.Run("nothing sent, unavailable", func(t *testing.T) {
			s := serveRunner(t, p, late(guard.CodeSystemUnavailable), func(http.ResponseWriter, *http.Request) {})
			wantProblem(t, s.get(t), http.StatusServiceUnavailable, "SYSTEM_UNAVAILABLE")
		})
		t.Run("upload unread", func(t *testing.T) {
			s := serveRunner(t, p, late(guard.CodeDeviceRevoked), func(http.ResponseWriter, *http.Request) {})
			body := io.LimitReader(zeros{}, 1<<22)
			a := await(t, "the answer", s.ask(t, http.MethodPost, body, nil))
			wantProblem(t, a, http.StatusForbidden, "DEVICE_REVOKED")
		})
		for name, send := range map[string]func(w http.ResponseWriter){
			"unflushed": func(w http.ResponseWriter) { _, _ = w.Write([]byte("done")) },
			"flushed": func(w http.ResponseWriter) {
				_, _ = w.Write([]byte("done"))
				w.(http.Flusher).Flush()
			},
		} {
			t.Run(name, func(t *testing.T) {
				s := serveRunner(t, p, late(guard.CodeDeviceRevoked), func(w http.ResponseWriter, _ *http.Request) { send(w) })
				wantCut(t, s.get(t))
			})
		}
	})
}

// What a handler left behind writes no more once its request was denied, though its context goes on.
func TestDeniedWhenTheHandlerHasReturnedAndLeftSomething(t *testing.T) {
	a := newAble()
	left := make(chan http.ResponseWriter, 1)
	h := httpmw.New(late(guard.CodeDeviceRevoked), httpmw.Fixed(device))(
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { left <- w }))
	h.ServeHTTP(a, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	a.was()
	nothingPasses(t, a, <-left)
}

// A Runner that says nothing about a request has not allowed it.
func TestRunnerThatDoesNotCall(t *testing.T) {
	for name, err := range map[string]error{"nil": nil, "an error of its own": errors.New("broken")} {
		t.Run(name, func(t *testing.T) {
			r := runnerFunc(func(context.Context, string, func(context.Context) error) error { return err })
			s := serveRunner(t, protocols()[0], r, func(http.ResponseWriter, *http.Request) { t.Error("the handler was called") })
			a := s.get(t)
			if a.err != nil || a.status != http.StatusServiceUnavailable || strings.Contains(a.text, "broken") ||
				!strings.Contains(a.text, "SYSTEM_UNAVAILABLE") || a.header.Get("Retry-After") == "" {
				t.Errorf("answer = %+v, want 503, to come again", a)
			}
		})
	}
}

// A Runner gets the request's context and the device, and its context is the handler's.
func TestRunnerOfOnesOwn(t *testing.T) {
	key := new(int)
	eachProtocol(t, func(t *testing.T, p protocol) {
		t.Parallel()
		var got string
		r := runnerFunc(func(ctx context.Context, deviceID string, fn func(context.Context) error) error {
			got = deviceID
			return fn(context.WithValue(ctx, key, "the runner's"))
		})
		s := serveRunner(t, p, r, func(w http.ResponseWriter, r *http.Request) {
			if r.Context().Value(http.ServerContextKey) == nil {
				t.Error("the context does not come from the server's")
			}
			_, _ = io.WriteString(w, r.Context().Value(key).(string))
		})
		wantWhole(t, s.get(t), "the runner's")
		if got != device {
			t.Errorf("asked about %q", got)
		}
	})
}

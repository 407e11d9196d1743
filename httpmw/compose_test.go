package httpmw_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/httpmw"
)

// A reverse proxy inside the guard hands requests and answers through.
func TestReverseProxyInside(t *testing.T) {
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body) // and only then: HTTP/1.1 goes one way at a time
		if err != nil {
			t.Errorf("reading: %v", err)
		}
		_, _ = w.Write(text)
	}))
	defer behind.Close()
	text := strings.Repeat("0123456789", 100_000)
	eachProtocol(t, func(t *testing.T, p protocol) {
		s := newStand(t, p, proxyTo(t, behind).ServeHTTP)
		wantWhole(t, await(t, "the answer", s.ask(t, http.MethodPost, strings.NewReader(text), nil)), text)
	})
}

// A reverse proxy whose request is denied lets go of the server behind; its own answer to that (502)
// is not sent.
func TestReverseProxyInsideDeniedBeforeTheAnswer(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		running, released := make(chan struct{}, 1), make(chan struct{})
		behind := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			running <- struct{}{}
			<-r.Context().Done()
			close(released)
		}))
		defer behind.Close()
		s := newStand(t, p, proxyTo(t, behind).ServeHTTP)
		got := s.ask(t, http.MethodGet, nil, nil)
		await(t, "the server behind", running)
		s.revoke(t)
		wantProblem(t, await(t, "the answer", got), http.StatusForbidden, "DEVICE_REVOKED")
		await(t, "the server behind's end", released)
	})
}

// A reverse proxy whose stream is denied aborts it, with http.ErrAbortHandler.
func TestReverseProxyInsideDeniedInAStream(t *testing.T) {
	const event = "data: 1\n\n"
	eachProtocol(t, func(t *testing.T, p protocol) {
		recovered, released := make(chan any, 1), make(chan struct{})
		behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, event)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			close(released)
		}))
		defer behind.Close()
		s := newStandInside(t, p, recovering(recovered), proxyTo(t, behind).ServeHTTP)
		resp := get(t, s.client, s.url)
		defer resp.Body.Close()
		first := make([]byte, len(event))
		if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != event {
			t.Fatalf("got %q, %v", first, err)
		}
		s.revoke(t)
		rest, err := io.ReadAll(resp.Body)
		wantCut(t, answer{status: resp.StatusCode, text: string(rest), err: err})
		if p := await(t, "the panic", recovered); p != http.ErrAbortHandler {
			t.Errorf("recovered %v", p)
		}
		await(t, "the server behind's end", released)
	})
}

// http.TimeoutHandler inside: its own timeout works, and a denial goes before it.
func TestTimeoutHandlerInside(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		running := make(chan struct{}, 1)
		slow := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			running <- struct{}{}
			<-r.Context().Done()
		})
		t.Run("in time", func(t *testing.T) {
			s := newStand(t, p, http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "in time")
			}), patience, "late").ServeHTTP)
			wantWhole(t, s.get(t), "in time")
		})
		t.Run("late", func(t *testing.T) {
			s := newStand(t, p, http.TimeoutHandler(slow, time.Millisecond, "late").ServeHTTP)
			if a := s.get(t); a.err != nil || a.status != http.StatusServiceUnavailable || a.text != "late" {
				t.Errorf("answer = %+v, want 503, late", a)
			}
			await(t, "the handler", running)
		})
		t.Run("denied", func(t *testing.T) {
			s := newStand(t, p, http.TimeoutHandler(slow, patience, "late").ServeHTTP)
			got := s.ask(t, http.MethodGet, nil, nil)
			await(t, "the handler", running)
			s.revoke(t)
			wantProblem(t, await(t, "the answer", got), http.StatusForbidden, "DEVICE_REVOKED")
		})
	})
}

// http.TimeoutHandler around: it buffers, so that even an answer that was begun need not go out.
func TestTimeoutHandlerAround(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		around := func(next http.Handler) http.Handler { return http.TimeoutHandler(next, patience, "late") }
		running := make(chan struct{}, 1)
		for name, c := range map[string]struct {
			send string
			want func(t testing.TB, a answer)
		}{
			"nothing sent":   {"", func(t testing.TB, a answer) { wantProblem(t, a, http.StatusForbidden, "DEVICE_REVOKED") }},
			"something sent": {"half", wantCut},
		} {
			t.Run(name, func(t *testing.T) {
				s := newStandInside(t, p, around, func(w http.ResponseWriter, r *http.Request) {
					if c.send != "" {
						_, _ = io.WriteString(w, c.send)
					}
					running <- struct{}{}
					<-r.Context().Done()
					_, err := io.WriteString(w, "later")
					wantDenied(t, err, guard.CodeDeviceRevoked)
				})
				got := s.ask(t, http.MethodGet, nil, nil)
				await(t, "the handler", running)
				s.revoke(t)
				c.want(t, await(t, "the answer", got))
			})
		}
		t.Run("not denied", func(t *testing.T) {
			s := newStandInside(t, p, around, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "in time") })
			wantWhole(t, s.get(t), "in time")
		})
	})
}

// chain is what chi's users put around everything.
func chain(r chi.Router) {
	logger := middleware.RequestLogger(&middleware.DefaultLogFormatter{Logger: log.New(io.Discard, "", 0), NoColor: true})
	r.Use(middleware.RequestID, logger, middleware.Recoverer, middleware.Timeout(time.Minute),
		middleware.Compress(5), middleware.NoCache, middleware.StripSlashes, middleware.Throttle(100))
}

// chi's middleware works inside the guard and around it: an answer is whole, a denied one is not.
func TestChi(t *testing.T) {
	text := strings.Repeat("0123456789", 10_000)
	for name, inside := range map[string]bool{"inside": true, "around": false} {
		t.Run(name, func(t *testing.T) {
			eachProtocol(t, func(t *testing.T, p protocol) {
				g, v := newGuard(t)
				running := make(chan struct{}, 1)
				routes := func(r chi.Router) { chiRoutes(r, text, running) }
				outer := chi.NewRouter()
				if inside {
					outer.Use(httpmw.New(g, httpmw.Fixed(device)))
					chain(outer)
				} else {
					chain(outer)
					outer.Use(httpmw.New(g, httpmw.Fixed(device)))
				}
				routes(outer)
				s := &stand{guard: g, authority: v}
				base, client := serve(t, p, outer)
				s.client = client
				to := func(path string) *stand { return &stand{guard: g, authority: v, url: base + path, client: client} }
				wantWhole(t, to("/text").get(t), text)
				wantWhole(t, to("/stream").get(t), "data: 1\n\n")
				for path, want := range map[string]func(t testing.TB, a answer){
					"/wait": func(t testing.TB, a answer) { wantProblem(t, a, http.StatusForbidden, "DEVICE_REVOKED") },
					"/half": wantCut,
				} {
					v.Allow(device)
					learn(t, g)
					got := to(path).ask(t, http.MethodGet, nil, nil)
					await(t, "the handler", running)
					s.revoke(t)
					want(t, await(t, path, got))
				}
			})
		})
	}
}

func chiRoutes(r chi.Router, text string, running chan<- struct{}) {
	r.Get("/text", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		if middleware.GetReqID(r.Context()) == "" {
			http.Error(w, "no request id", http.StatusTeapot)
			return
		}
		_, _ = io.WriteString(w, text)
	})
	r.Get("/stream", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: 1\n\n")
		w.(http.Flusher).Flush()
	})
	r.Get("/wait", func(_ http.ResponseWriter, r *http.Request) {
		running <- struct{}{}
		<-r.Context().Done()
	})
	r.Get("/half", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, text)
		w.(http.Flusher).Flush()
		running <- struct{}{}
		<-r.Context().Done()
	})
}

// chi's Timeout inside the guard ends a request as ever.
func TestChiTimeoutInside(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		s := newStand(t, p, middleware.Timeout(time.Millisecond)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		})).ServeHTTP)
		if a := s.get(t); a.err != nil || a.status != http.StatusGatewayTimeout {
			t.Errorf("answer = %+v, want 504", a)
		}
	})
}

// file makes a file of the text.
func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file.txt")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// http.ServeContent and http.FileServer work inside: whole files, ranges, conditions, by sendfile too.
func TestServeContentInside(t *testing.T) {
	text := strings.Repeat("0123456789abcdef", 1<<16)
	name := file(t, text)
	handlers := map[string]http.HandlerFunc{
		"ServeContent": func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "file.txt", time.Unix(1e9, 0), strings.NewReader(text))
		},
		"ServeFile":  func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, name) },
		"FileServer": http.StripPrefix("/", http.FileServer(http.Dir(filepath.Dir(name)))).ServeHTTP,
	}
	for name, h := range handlers {
		t.Run(name, func(t *testing.T) {
			eachProtocol(t, func(t *testing.T, p protocol) {
				s := newStand(t, p, h)
				s.url += "/file.txt"
				wantWhole(t, s.get(t), text)
				for header, want := range map[string]answer{
					"bytes=10-19":       {status: http.StatusPartialContent, text: text[10:20]},
					"bytes=-5":          {status: http.StatusPartialContent, text: text[len(text)-5:]},
					"bytes=1000-900000": {status: http.StatusPartialContent, text: text[1000:900_001]},
					"bytes=9999999-":    {status: http.StatusRequestedRangeNotSatisfiable},
				} {
					a := s.withHeader(t, "Range", header)
					if a.err != nil || a.status != want.status || want.text != "" && a.text != want.text {
						t.Errorf("%s: %d, %d bytes, %v", header, a.status, len(a.text), a.err)
					}
				}
				a := s.withHeader(t, "If-Modified-Since", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
				if a.err != nil || a.status != http.StatusNotModified {
					t.Errorf("answer = %d, %v; want 304", a.status, a.err)
				}
			})
		})
	}
}

func (s *stand) withHeader(t *testing.T, name, value string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set(name, value)
	return s.do(r, nil)
}

// A file that is being sent is cut.
func TestServeContentDenied(t *testing.T) {
	name := file(t, "")
	if err := os.Truncate(name, bulk); err != nil {
		t.Fatal(err)
	}
	eachProtocol(t, func(t *testing.T, p protocol) {
		over, begun := make(chan struct{}), make(chan struct{}, 1)
		s := newStand(t, p, func(w http.ResponseWriter, r *http.Request) {
			begun <- struct{}{}
			http.ServeFile(w, r, name)
			close(over)
		})
		released := make(chan struct{})
		got := s.ask(t, http.MethodGet, nil, released)
		await(t, "the file", begun)
		s.revoke(t)
		await(t, "the end of the file", over)
		close(released)
		if a := await(t, "the answer", got); a.err == nil && a.status != http.StatusForbidden { // where it came before the first byte
			t.Errorf("a proper end: %d, %d bytes", a.status, len(a.text))
		}
	})
}

// http.MaxBytesReader works inside, at each size of what is too much.
func TestMaxBytesReaderInside(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		t.Parallel()
		s := newStand(t, p, func(w http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, 1000))
			var tooLarge *http.MaxBytesError
			switch {
			case err == nil:
				_, _ = io.WriteString(w, "fits")
			case errors.As(err, &tooLarge):
				http.Error(w, "too large", http.StatusRequestEntityTooLarge)
			default:
				t.Errorf("reading: %v", err)
			}
		})
		for _, n := range []int64{0, 1000, 1001, 100_000, 1 << 23} {
			a := await(t, "the answer", s.ask(t, http.MethodPost, io.LimitReader(zeros{}, n), nil))
			want := http.StatusOK
			if n > 1000 {
				want = http.StatusRequestEntityTooLarge
			}
			if a.err != nil || a.status != want {
				t.Errorf("%d bytes: %d, %v; want %d", n, a.status, a.err, want)
			}
		}
	})
}

// form is a form with a file that does not fit into the memory it is given.
func form(t *testing.T) (kind string, body *bytes.Buffer) {
	t.Helper()
	body = &bytes.Buffer{}
	m := multipart.NewWriter(body)
	f, err := m.CreateFormFile("file", "name.bin")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.Write(make([]byte, 1<<17))
	if err := errors.Join(m.WriteField("field", "value"), m.Close()); err != nil {
		t.Fatal(err)
	}
	return m.FormDataContentType(), body
}

// left counts the files of forms in the directory for temporary files.
func left(t *testing.T) int {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(os.TempDir(), "multipart-*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

// The files of a form are there for the handler, and gone when it has returned, as if there were no
// guard; also when it was denied, before it had sent anything or after.
func TestFilesOfAForm(t *testing.T) {
	for name, c := range map[string]struct{ denied, sent bool }{
		"answered": {}, "denied": {denied: true}, "cut": {denied: true, sent: true},
	} {
		t.Run(name, func(t *testing.T) {
			eachProtocol(t, func(t *testing.T, p protocol) {
				t.Setenv("TMPDIR", t.TempDir())
				var s *stand
				s = newStand(t, p, func(w http.ResponseWriter, r *http.Request) {
					if err := r.ParseMultipartForm(1); err != nil || r.FormValue("field") != "value" {
						t.Errorf("field = %q, %v", r.FormValue("field"), err)
					}
					if n := left(t); n != 1 {
						t.Errorf("%d files, want 1", n)
					}
					if c.sent {
						_ = begin(w)
					}
					if c.denied {
						s.revoke(t)
					}
				})
				kind, body := form(t)
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, body)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Content-Type", kind)
				switch a := s.do(r, nil); {
				case c.sent:
					wantCut(t, a)
				case c.denied:
					wantProblem(t, a, http.StatusForbidden, "DEVICE_REVOKED")
				default:
					wantWhole(t, a, "")
				}
				look := time.NewTicker(time.Millisecond)
				defer look.Stop()
				for until := time.Now().Add(patience); left(t) > 0; <-look.C {
					if time.Now().After(until) {
						t.Fatalf("%d files are left", left(t))
					}
				}
			})
		})
	}
}

// Two guards, one inside the other: a denial of either ends the request, with the code of the one
// that denied.
func TestNestedGuards(t *testing.T) {
	for _, denies := range []string{"outer", "inner"} {
		for _, send := range []string{"", "half"} {
			t.Run(denies+" "+send, func(t *testing.T) {
				eachProtocol(t, func(t *testing.T, p protocol) {
					outer, ov := newGuard(t)
					inner, iv := newGuard(t)
					running, read := make(chan struct{}, 1), make(chan error, 2)
					s := &stand{guard: outer, authority: ov}
					if denies == "inner" {
						s.guard, s.authority = inner, iv
					}
					s.url, s.client = serve(t, p, httpmw.New(outer, httpmw.Fixed(device))(guarded(inner, func(w http.ResponseWriter, r *http.Request) {
						if send != "" {
							_ = begin(w)
							_, _ = io.WriteString(w, send)
						}
						running <- struct{}{}
						_, err := r.Body.Read(make([]byte, 1))
						read <- err
						_, err = w.Write([]byte("later"))
						read <- err
					})))
					in, out := io.Pipe()
					got := s.ask(t, http.MethodPost, in, nil)
					await(t, "the handler", running)
					s.revoke(t)
					wantDenied(t, await(t, "the read", read), guard.CodeDeviceRevoked)
					wantDenied(t, await(t, "the write", read), guard.CodeDeviceRevoked)
					if a := await(t, "the answer", got); send == "" {
						wantProblem(t, a, http.StatusForbidden, "DEVICE_REVOKED")
					} else {
						wantCut(t, a)
					}
					_ = out.Close()
				})
			})
		}
	}
}

// Nested guards release a write that blocks.
func TestNestedGuardsWithABlockedWrite(t *testing.T) {
	for _, denies := range []string{"outer", "inner"} {
		t.Run(denies, func(t *testing.T) {
			eachProtocol(t, func(t *testing.T, p protocol) {
				t.Parallel()
				outer, ov := newGuard(t)
				inner, iv := newGuard(t)
				s := &stand{guard: outer, authority: ov}
				if denies == "inner" {
					s.guard, s.authority = inner, iv
				}
				var progress atomic.Int64
				over := make(chan error, 1)
				s.url, s.client = serve(t, p, httpmw.New(outer, httpmw.Fixed(device))(guarded(inner, func(w http.ResponseWriter, _ *http.Request) {
					_, err := io.Copy(w, counting{zeros{}, &progress})
					over <- err
				})))
				narrow(s.client)
				released := make(chan struct{})
				got := s.ask(t, http.MethodGet, nil, released)
				standstill(t, &progress)
				s.revoke(t)
				wantDenied(t, await(t, "the write", over), guard.CodeDeviceRevoked)
				close(released)
				wantCut(t, await(t, "the answer", got))
			})
		})
	}
}

// A middleware inside that gives its handler a context of its own (detached, or with values) takes
// nothing from the guard: reads and writes are gated by the run's.
func TestContextOfAMiddlewareInside(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		reading, over := make(chan struct{}), make(chan error, 2)
		next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(reading)
			_, err := r.Body.Read(make([]byte, 1))
			over <- err
			_, err = io.WriteString(w, "later")
			over <- err
		})
		s := newStand(t, p, func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r.WithContext(context.WithoutCancel(r.Context())))
		})
		in, out := io.Pipe()
		got := s.ask(t, http.MethodPost, in, nil)
		await(t, "the handler", reading)
		s.revoke(t)
		wantDenied(t, await(t, "the read", over), guard.CodeDeviceRevoked)
		wantDenied(t, await(t, "the write", over), guard.CodeDeviceRevoked)
		wantProblem(t, await(t, "the answer", got), http.StatusForbidden, "DEVICE_REVOKED")
		_ = out.Close()
	})
}

// A connection is used again after a guarded request, whatever that has read and written.
func TestConnectionIsUsedAgain(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		s := newStand(t, p, func(w http.ResponseWriter, r *http.Request) {
			n, err := io.Copy(io.Discard, r.Body)
			if err != nil || n != r.ContentLength {
				t.Errorf("read %d, %v", n, err)
			}
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, "done")
		})
		for i := range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			reused := false
			ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			wantWhole(t, s.do(r, nil), "done")
			cancel()
			if reused != (i > 0) {
				t.Errorf("request %d: reused = %v", i, reused)
			}
		}
	})
}

// So it is after a denial without a body to be read, and the next request knows nothing of it.
func TestConnectionIsUsedAgainAfterADenial(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		running := make(chan struct{}, 1)
		s := newStand(t, p, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				running <- struct{}{}
				<-r.Context().Done()
				return
			}
			_ = begin(w)
			if n, err := io.Copy(w, r.Body); err != nil {
				t.Errorf("copied %d, %v", n, err)
			}
		})
		for i := range 5 {
			reused := false
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
			r, err := http.NewRequestWithContext(ctx, http.MethodPut, s.url, nil)
			if err != nil {
				t.Fatal(err)
			}
			got := make(chan answer, 1)
			go func() { got <- s.do(r, nil) }()
			await(t, "the handler", running)
			s.revoke(t)
			wantProblem(t, await(t, "the answer", got), http.StatusForbidden, "DEVICE_REVOKED")
			cancel()
			if reused != (i > 0) {
				t.Errorf("request %d: reused = %v", i, reused)
			}
			s.authority.Allow(device)
			learn(t, s.guard)
			wantWhole(t, await(t, "the next", s.ask(t, http.MethodPost, strings.NewReader("text"), nil)), "text")
		}
	})
}

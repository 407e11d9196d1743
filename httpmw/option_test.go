package httpmw_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/httpmw"
)

// WithAnswer's function is told everything, and its answer is the only one.
func TestWithAnswerReplacesTheAnswer(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		g, v := newGuard(t)
		v.Deny(device, guard.CodeDeviceNotFound)
		url, c := serve(t, p, guarded(g, uncalled(t), httpmw.WithAnswer(
			func(w http.ResponseWriter, r *http.Request, p httpmw.Problem) {
				wantDenied(t, p.Err, guard.CodeDeviceNotFound)
				if p.Status != 403 || p.Code != "DEVICE_NOT_FOUND" || p.RequestID != "script-1" || p.Title == "" || p.Type == "" || p.RetryAfter != 0 {
					t.Errorf("problem = %+v", p)
				}
				w.Header().Set("Content-Type", "text/plain")
				w.WriteHeader(http.StatusTeapot)
				_, _ = io.WriteString(w, r.URL.Path)
			})))
		resp, text := send(t, c, request(t, http.MethodGet, url+"/tea", nil))
		if resp.StatusCode != http.StatusTeapot || text != "/tea" || resp.Header.Get("Content-Type") != "text/plain" {
			t.Errorf("status %d, body %q, header %v", resp.StatusCode, text, resp.Header)
		}
	})
}

// It also answers a request that was stopped before anything was sent.
func TestWithAnswerAnswersAStop(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		g, v := newGuard(t)
		url, c := serve(t, p, guarded(g, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.Header().Set("Content-Length", "12345") // not that of the answer below
			revoke(t, g, v)
			<-r.Context().Done()
		}, httpmw.WithAnswer(func(w http.ResponseWriter, r *http.Request, p httpmw.Problem) {
			if denied := (*guard.DeniedError)(nil); !errors.As(p.Err, &denied) || !denied.InFlight {
				t.Errorf("err = %v", p.Err)
			}
			if r.Context().Err() != nil {
				t.Errorf("the request's own context: %v", r.Context().Err())
			}
			w.WriteHeader(p.Status)
			_, _ = io.WriteString(w, string(p.Code))
		})))
		resp, text := send(t, c, request(t, http.MethodGet, url, nil))
		if resp.StatusCode != http.StatusForbidden || text != "DEVICE_REVOKED" || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
			t.Errorf("status %d, body %q, header %v", resp.StatusCode, text, resp.Header)
		}
	})
}

// An answer that nobody writes would be a 200: the default is sent.
func TestWithAnswerThatWritesNothing(t *testing.T) {
	for name, write := range map[string]func(http.ResponseWriter, *http.Request, httpmw.Problem){
		"nothing":        func(http.ResponseWriter, *http.Request, httpmw.Problem) {},
		"a header only":  func(w http.ResponseWriter, _ *http.Request, _ httpmw.Problem) { w.Header().Set("X-Mine", "1") },
		"a wrong length": func(w http.ResponseWriter, _ *http.Request, _ httpmw.Problem) { w.Header().Set("Content-Length", "1") },
		"early hints":    func(w http.ResponseWriter, _ *http.Request, _ httpmw.Problem) { w.WriteHeader(http.StatusEarlyHints) },
		"processing, twice": func(w http.ResponseWriter, _ *http.Request, _ httpmw.Problem) {
			w.WriteHeader(http.StatusProcessing)
			w.WriteHeader(http.StatusProcessing)
		},
		"a deadline": func(w http.ResponseWriter, _ *http.Request, _ httpmw.Problem) {
			if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(patience)); err != nil {
				panic(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachProtocol(t, func(t *testing.T, p protocol) {
				h := httpmw.New(refusing(guard.ErrClosed), httpmw.Fixed(device), httpmw.WithAnswer(write))(uncalled(t))
				url, c := serve(t, p, h)
				resp, _ := send(t, c, request(t, http.MethodGet, url, nil))
				problem(t, resp.Response, http.StatusServiceUnavailable, "GUARD_CLOSED")
				wantRetryAfter(t, resp, "5")
			})
		})
	}
}

// An answer may be empty on purpose.
func TestWithAnswerWithoutABody(t *testing.T) {
	h := httpmw.New(refusing(guard.ErrClosed), httpmw.Fixed(device), httpmw.WithAnswer(
		func(w http.ResponseWriter, _ *http.Request, p httpmw.Problem) { w.WriteHeader(p.Status) }))(uncalled(t))
	eachProtocol(t, func(t *testing.T, p protocol) {
		url, c := serve(t, p, h)
		if resp, text := send(t, c, request(t, http.MethodGet, url, nil)); resp.StatusCode != http.StatusServiceUnavailable || text != "" {
			t.Errorf("status %d, body %q", resp.StatusCode, text)
		}
	})
}

// A body without a status is no 200.
func TestWithAnswerWithoutAStatus(t *testing.T) {
	for name, write := range map[string]func(http.ResponseWriter, *http.Request, httpmw.Problem){
		"a body": func(w http.ResponseWriter, _ *http.Request, p httpmw.Problem) {
			_, _ = io.WriteString(w, string(p.Code))
		},
		"copied": func(w http.ResponseWriter, _ *http.Request, p httpmw.Problem) {
			_, _ = io.Copy(w, strings.NewReader(string(p.Code)))
		},
		"no bytes": func(w http.ResponseWriter, _ *http.Request, _ httpmw.Problem) { _, _ = w.Write(nil) },
		"a flush only": func(w http.ResponseWriter, _ *http.Request, _ httpmw.Problem) {
			_ = http.NewResponseController(w).Flush()
		},
		"a Flusher": func(w http.ResponseWriter, _ *http.Request, _ httpmw.Problem) { w.(http.Flusher).Flush() },
		"hints before": func(w http.ResponseWriter, _ *http.Request, p httpmw.Problem) {
			w.WriteHeader(http.StatusEarlyHints)
			_, _ = io.WriteString(w, string(p.Code))
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachProtocol(t, func(t *testing.T, p protocol) {
				h := httpmw.New(refusing(guard.ErrClosed), httpmw.Fixed(device), httpmw.WithAnswer(write))(uncalled(t))
				url, c := serve(t, p, h)
				resp, text := send(t, c, request(t, http.MethodGet, url, nil))
				if resp.StatusCode != http.StatusServiceUnavailable || text != "" && text != "GUARD_CLOSED" {
					t.Errorf("status %d, body %q", resp.StatusCode, text)
				}
			})
		})
	}
}

// The fields that a client acts upon are there already, and may be changed.
func TestWithAnswerFindsTheHeader(t *testing.T) {
	write := func(w http.ResponseWriter, _ *http.Request, p httpmw.Problem) {
		h := w.Header()
		h.Set("X-Found", h.Get("Cache-Control")+"|"+h.Get("Retry-After")+"|"+h.Get("Www-Authenticate"))
		h.Del("Cache-Control")
		w.WriteHeader(p.Status)
	}
	for name, test := range map[string]struct {
		r    guard.Runner
		from httpmw.DeviceFunc
		want string
	}{
		"unavailable": {refusing(denial(guard.CodeSystemUnavailable, time.Minute, false)), httpmw.Fixed(device), "no-store|60|"},
		"denied":      {refusing(denial(guard.CodeDeviceRevoked, time.Minute, false)), httpmw.Fixed(device), "no-store||"},
		"no token":    {allowing(), httpmw.FromBearer(verifying(nil)), "no-store||Bearer"},
	} {
		t.Run(name, func(t *testing.T) {
			resp := record(httpmw.New(test.r, test.from, httpmw.WithAnswer(write))(uncalled(t)), incoming(t))
			if got := resp.Header.Get("X-Found"); got != test.want || resp.Header.Get("Cache-Control") != "" {
				t.Errorf("found %q, want %q; header %v", got, test.want, resp.Header)
			}
		})
	}
}

// A panic in the answer to a stop goes on, like the handler's own.
func TestWithAnswerPanicsAfterAStop(t *testing.T) {
	g, v := newGuard(t)
	h := guarded(g, func(_ http.ResponseWriter, r *http.Request) {
		revoke(t, g, v)
		<-r.Context().Done()
	}, httpmw.WithAnswer(func(http.ResponseWriter, *http.Request, httpmw.Problem) { panic("mine") }))
	defer func() {
		if got := recover(); got != "mine" {
			t.Errorf("recovered %v", got)
		}
	}()
	record(h, incoming(t))
}

// Options are applied in order, and one middleware serves several handlers.
func TestLastOptionCounts(t *testing.T) {
	says := func(text string) httpmw.Option {
		return httpmw.WithAnswer(func(w http.ResponseWriter, _ *http.Request, p httpmw.Problem) { http.Error(w, text, p.Status) })
	}
	mw := httpmw.New(refusing(guard.ErrClosed), httpmw.Fixed(device), says("one"), says("two"))
	for range 2 {
		if text, _ := io.ReadAll(record(mw(uncalled(t)), incoming(t)).Body); string(text) != "two\n" {
			t.Errorf("answer = %q", text)
		}
	}
}

// A mistake in the wiring is found when the program starts, and says whose it is.
func TestNilArgumentsPanic(t *testing.T) {
	r, from := allowing(), httpmw.Fixed(device)
	for want, wrong := range map[string]func(){
		"httpmw: New: the Runner is nil":           func() { httpmw.New(nil, from) },
		"httpmw: New: the DeviceFunc is nil":       func() { httpmw.New(r, nil) },
		"httpmw: New: an Option is nil":            func() { httpmw.New(r, from, nil) },
		"httpmw: New: the handler is nil":          func() { httpmw.New(r, from)(nil) },
		"httpmw: Transport: the Runner is nil":     func() { httpmw.Transport(nil, from, nil) },
		"httpmw: Transport: the DeviceFunc is nil": func() { httpmw.Transport(r, nil, nil) },
		"httpmw: Transport: an Option is nil":      func() { httpmw.Transport(r, from, nil, nil) },
		"httpmw: FromBearer: the function is nil":  func() { httpmw.FromBearer(nil) },
		"httpmw: FromHeader: the name is blank":    func() { httpmw.FromHeader(" \t") },
		"httpmw: WithAnswer: the function is nil":  func() { httpmw.WithAnswer(nil) },
		"httpmw: WithLastEvent: the function is nil": func() {
			httpmw.WithLastEvent(nil)
		},
	} {
		t.Run(want, func(t *testing.T) {
			defer func() {
				if err, ok := recover().(error); !ok || err.Error() != want {
					t.Errorf("recovered %v", err)
				}
			}()
			wrong()
			t.Error("returned")
		})
	}
}

// No base is net/http's own.
func TestTransportWithoutABase(t *testing.T) {
	if httpmw.Transport(allowing(), httpmw.Fixed(device), nil) == nil {
		t.Error("nil")
	}
}

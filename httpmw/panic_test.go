package httpmw_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"

	"github.com/execguard/execguard/guard"
)

// goexit ends the goroutine, as t.FailNow does.
func goexit() { runtime.Goexit() }

// recovering puts what next panics with into c, and answers with 500 as recoverers do.
func recovering(c chan<- any) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				p := recover()
				c <- p
				if p == http.ErrAbortHandler {
					panic(p)
				}
				if p != nil {
					w.WriteHeader(http.StatusInternalServerError)
				}
			}()
			next.ServeHTTP(w, r)
		})
	}
}

// A panic passes with its own value, and the guard has let go of the run by then.
func TestPanicPasses(t *testing.T) {
	values := map[string]any{
		"a value": &struct{ it string }{"the very same"}, "an error": errors.New("broken"), "ErrAbortHandler": http.ErrAbortHandler,
	}
	for name, value := range values {
		t.Run(name, func(t *testing.T) {
			eachProtocol(t, func(t *testing.T, p protocol) {
				recovered := make(chan any, 1)
				told, observer := observed()
				s := &stand{}
				s.guard, s.authority = newGuard(t, observer)
				s.url, s.client = serve(t, p, recovering(recovered)(guarded(s.guard, func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					panic(value)
				})))
				a := s.get(t)
				if got := await(t, "the panic", recovered); got != value {
					t.Errorf("recovered %v, want %v", got, value)
				}
				told.want(t, guard.EventStarted)
				told.want(t, guard.EventFinished)
				if value == http.ErrAbortHandler {
					wantCut(t, a)
				} else if a.err != nil || a.status != http.StatusInternalServerError {
					t.Errorf("answer = %+v, want the recoverer's 500", a)
				}
			})
		})
	}
}

// A panic after a denial passes too: it is the handler's, and the run is over.
func TestPanicAfterADenial(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		value := errors.New("the handler's own")
		recovered, running := make(chan any, 1), make(chan struct{}, 1)
		told, observer := observed()
		s := &stand{}
		s.guard, s.authority = newGuard(t, observer)
		s.url, s.client = serve(t, p, recovering(recovered)(guarded(s.guard, func(_ http.ResponseWriter, r *http.Request) {
			running <- struct{}{}
			<-r.Context().Done()
			panic(value)
		})))
		got := s.ask(t, http.MethodGet, nil, nil)
		await(t, "the handler", running)
		s.revoke(t)
		if p := await(t, "the panic", recovered); p != value {
			t.Errorf("recovered %v, want %v", p, value)
		}
		if a := await(t, "the answer", got); a.err == nil && a.status < http.StatusBadRequest {
			t.Errorf("answer = %+v", a)
		}
		told.want(t, guard.EventStarted)
		wantDenied(t, told.want(t, guard.EventStopped).Err, guard.CodeDeviceRevoked)
	})
}

// An answer is aborted by http.ErrAbortHandler itself: a wrapped one would be logged with its stack.
func TestCutPanicsWithTheVeryErrAbortHandler(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		recovered, running := make(chan any, 1), make(chan struct{}, 1)
		s := newStandInside(t, p, recovering(recovered), func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "half")
			running <- struct{}{}
			<-r.Context().Done()
		})
		got := s.ask(t, http.MethodGet, nil, nil)
		await(t, "the handler", running)
		s.revoke(t)
		if p := await(t, "the panic", recovered); p != http.ErrAbortHandler {
			t.Errorf("recovered %v, want http.ErrAbortHandler", p)
		}
		wantCut(t, await(t, "the answer", got))
	})
}

// What ends otherwise than by returning passes through, and ends the request.
func TestGoexitPasses(t *testing.T) {
	g, _ := newGuard(t)
	left := make(chan any, 2)
	go func() {
		returned := false
		defer func() { left <- []any{recover(), returned} }()
		inside(t, g, httptest.NewRecorder(), func(http.ResponseWriter, *http.Request) { goexit() })
		returned = true
	}()
	if got := await(t, "the goroutine's end", left).([]any); got[0] != nil || got[1] != false {
		t.Errorf("recovered %v, returned %v", got[0], got[1])
	}
	t.Run("over a socket", func(t *testing.T) {
		eachProtocol(t, func(t *testing.T, p protocol) {
			told, observer := observed()
			s := &stand{}
			s.guard, s.authority = newGuard(t, observer)
			s.url, s.client = serve(t, p, guarded(s.guard, func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, "half")
				goexit()
			}))
			wantCut(t, s.get(t))
			told.want(t, guard.EventStarted)
			told.want(t, guard.EventFinished)
		})
	})
}

// A recoverer inside the guard answers as ever.
func TestRecovererInside(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		recovered := make(chan any, 1)
		s := newStand(t, p, recovering(recovered)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			panic("broken")
		})).ServeHTTP)
		if a := s.get(t); a.err != nil || a.status != http.StatusInternalServerError {
			t.Errorf("answer = %+v, want 500", a)
		}
		if p := await(t, "the panic", recovered); p != "broken" {
			t.Errorf("recovered %v", p)
		}
	})
}

// What the run's context is to a handler that has panicked is over: nothing left behind goes on under it.
func TestTheContextEndsWithAPanic(t *testing.T) {
	g, _ := newGuard(t)
	var ctx context.Context
	func() {
		defer func() { _ = recover() }()
		inside(t, g, httptest.NewRecorder(), func(_ http.ResponseWriter, r *http.Request) {
			ctx = r.Context()
			panic("broken")
		})
	}()
	if ctx.Err() == nil {
		t.Error("the context lives on")
	}
}

// A handler that panics because its write has failed, under a recoverer that swallows that: half an
// answer looks no more complete for it.
func TestPanicAfterADenialWithSomethingSent(t *testing.T) {
	swallowing := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() { _ = recover() }()
			next.ServeHTTP(w, r)
		})
	}
	eachProtocol(t, func(t *testing.T, p protocol) {
		running := make(chan struct{}, 1)
		s := newStandInside(t, p, swallowing, func(w http.ResponseWriter, r *http.Request) {
			_ = begin(w)
			_, _ = io.WriteString(w, "half")
			running <- struct{}{}
			<-r.Context().Done()
			if _, err := io.WriteString(w, "the rest"); err != nil {
				panic(err)
			}
		})
		got := s.ask(t, http.MethodGet, nil, nil)
		await(t, "the handler", running)
		s.revoke(t)
		wantCut(t, await(t, "the answer", got))
	})
}

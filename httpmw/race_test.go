package httpmw_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
)

// outcomes has for each request whether the server has cut it, once it is through with it.
type outcomes struct{ byID sync.Map }

func (o *outcomes) of(id string) chan bool {
	c, _ := o.byID.LoadOrStore(id, make(chan bool, 1))
	return c.(chan bool)
}

// around is the middleware that notes it.
func (o *outcomes) around(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := o.of(r.Header.Get("X-Id"))
		defer func() {
			p := recover()
			select {
			case c <- p != nil:
			default: // nobody has looked at the last one of that id
			}
			if p != nil {
				panic(p)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// pieces is a handler that reads and writes in one of several ways, and whose whole answer is known.
func pieces(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, _ := strconv.Atoi(r.Header.Get("X-Id"))
		if id%5 != 3 { // the server does not bear it together with a body that is left unread
			_ = http.NewResponseController(w).EnableFullDuplex()
		}
		switch id % 5 {
		case 0: // all at once
			text, _ := io.ReadAll(r.Body)
			_, _ = w.Write(text)
		case 1: // piece by piece
			buf := make([]byte, 100)
			for {
				n, err := r.Body.Read(buf)
				if _, failed := w.Write(buf[:n]); failed != nil || err != nil {
					return
				}
				w.(http.Flusher).Flush()
			}
		case 2: // copied
			_, _ = io.Copy(w, r.Body)
		case 3: // ignoring the body
			_, _ = io.WriteString(w, strings.Repeat("x", id%3000))
		case 4: // on another goroutine
			var wg sync.WaitGroup
			in, out := io.Pipe()
			wg.Go(func() {
				_, err := io.Copy(out, r.Body)
				_ = out.CloseWithError(err)
			})
			_, err := io.Copy(w, in)
			_ = in.CloseWithError(err)
			wg.Wait()
		}
		if err := context.Cause(r.Context()); err != nil && !errors.Is(err, guard.ErrDenied) {
			t.Errorf("the context ended with %v", err)
		}
	}
}

// wholeOf is the answer to a request that was not denied.
func wholeOf(id int, body string) string {
	if id%5 == 3 {
		return strings.Repeat("x", id%3000)
	}
	return body
}

// Denials that come at any moment cut the requests that they hit, and none besides: no deadline of
// one request is left for the next on its connection, no answer is half, and no refusal is for
// anything but a denial.
func TestRandomDenialsOnConnectionsInUse(t *testing.T) {
	const clients, requests = 8, 60
	eachProtocol(t, func(t *testing.T, p protocol) {
		cut := &outcomes{}
		s := newStandInside(t, p, cut.around, pieces(t))
		stop, stopped := make(chan struct{}), make(chan struct{})
		go s.flap(t, stop, stopped)
		var wg sync.WaitGroup
		for c := range clients {
			wg.Go(func() {
				for i := range requests {
					s.hammer(t, cut, c*requests+i)
				}
			})
		}
		wg.Wait()
		close(stop)
		<-stopped
		s.authority.Allow(device)
		learn(t, s.guard)
		for id := range 10 {
			if got, want := s.post(t, id, "calm"), wholeOf(id, "calm"); got.err != nil || got.text != want {
				t.Errorf("after all of it: %+v, want %q", got, want)
			}
		}
	})
}

// flap revokes and allows the device by turns.
func (s *stand) flap(t *testing.T, stop <-chan struct{}, stopped chan<- struct{}) {
	defer close(stopped)
	for {
		s.revoke(t)
		s.authority.Allow(device)
		learn(t, s.guard)
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(rand.IntN(2000)) * time.Microsecond):
		}
	}
}

func (s *stand) post(t *testing.T, id int, body string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, io.MultiReader(strings.NewReader(body))) // chunked
	if err != nil {
		return answer{err: err}
	}
	if id%2 == 0 {
		r.ContentLength = int64(len(body))
	}
	r.Header.Set("X-Id", strconv.Itoa(id))
	return s.do(r, nil)
}

// hammer sends one request and judges the answer.
func (s *stand) hammer(t *testing.T, cut *outcomes, id int) {
	t.Helper()
	body := strings.Repeat("b", 1+id*37%5000)
	got := s.post(t, id, body)
	switch {
	case got.err != nil:
		if errors.Is(got.err, context.DeadlineExceeded) || !await(t, "the server's end", cut.of(strconv.Itoa(id))) {
			t.Errorf("request %d: %v, but the server has not cut it", id, got.err)
		}
	case got.status == http.StatusForbidden:
		wantProblem(t, got, http.StatusForbidden, "DEVICE_REVOKED")
	case got.status != http.StatusOK || got.text != wholeOf(id, body):
		t.Errorf("request %d: %d, %d bytes, want %d bytes", id, got.status, len(got.text), len(wholeOf(id, body)))
	}
}

// Requests that wait on a connection while the one before them is denied are answered for themselves.
func TestPipelinedRequestsBehindADenial(t *testing.T) {
	running := make(chan string, 1)
	s := newStand(t, protocols()[0], func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			running <- r.URL.Path
			<-r.Context().Done()
			return
		}
		_, _ = io.WriteString(w, r.URL.Path)
	})
	c := dial(t, s.url)
	read := bufio.NewReader(c)
	next := func() answer {
		resp, err := http.ReadResponse(read, nil)
		if err != nil {
			return answer{err: err}
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		return answer{status: resp.StatusCode, header: resp.Header, text: string(text), err: err}
	}
	for range 20 {
		fmt.Fprint(c, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
		await(t, "the handler", running)
		fmt.Fprint(c, "GET /second HTTP/1.1\r\nHost: x\r\n\r\n")
		s.authority.Next(device, deny) // one question is answered so; the second request is allowed again
		learn(t, s.guard)
		wantProblem(t, next(), http.StatusForbidden, "DEVICE_REVOKED")
		wantWhole(t, next(), "/second")
	}
}

// deny answers a question with a denial.
func deny(context.Context, string) (guard.Decision, error) {
	return guard.Decision{Code: guard.CodeDeviceRevoked, RequestID: "once"}, nil
}

// Several goroutines of one handler may read, write, flush and set deadlines while the denial comes.
func TestDeniedWhileSeveralGoroutinesAreAtIt(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		busy := make(chan struct{}, 100)
		s := newStand(t, p, func(w http.ResponseWriter, r *http.Request) {
			_ = begin(w)
			rc := http.NewResponseController(w)
			var writing sync.Mutex // as the handler has to
			var wg sync.WaitGroup
			until := func(f func() error) {
				wg.Go(func() {
					var err error
					for range 1_000_000 {
						if err = f(); err != nil {
							break
						}
						select {
						case busy <- struct{}{}:
						default:
						}
					}
					wantDenied(t, err, guard.CodeDeviceRevoked)
				})
			}
			locked := func(f func() error) func() error {
				return func() error {
					writing.Lock()
					defer writing.Unlock()
					return f()
				}
			}
			until(locked(func() error {
				_, err := w.Write([]byte("data: 1\n\n"))
				return err
			}))
			until(locked(func() error {
				_, err := io.WriteString(w, "data: 2\n\n")
				return err
			}))
			until(locked(rc.Flush))
			until(func() error {
				_, err := r.Body.Read(make([]byte, 10))
				return err
			})
			until(func() error { return rc.SetReadDeadline(time.Now().Add(time.Hour)) })
			until(func() error { return rc.SetWriteDeadline(time.Now().Add(time.Hour)) })
			wg.Wait()
		})
		for range 5 {
			s.authority.Allow(device)
			learn(t, s.guard)
			in, out := io.Pipe()
			fed := make(chan struct{})
			go func() {
				defer close(fed)
				for {
					if _, err := out.Write(bytes.Repeat([]byte("x"), 100)); err != nil {
						return
					}
				}
			}()
			got := s.ask(t, http.MethodPost, in, nil)
			for range 200 {
				await(t, "the handler", busy)
			}
			s.revoke(t)
			wantCut(t, await(t, "the answer", got))
			_ = in.Close()
			<-fed
		}
	})
}

// A denial that comes just as the handler returns does one of two things: the answer is whole, or it is
// not there.
func TestDeniedAsTheHandlerReturns(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		running := make(chan struct{}, 1)
		s := newStand(t, p, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			running <- struct{}{}
			for range rand.IntN(300) {
				runtime.Gosched()
			}
			_, _ = io.WriteString(w, "done")
		})
		seen := map[string]int{}
		for range 200 {
			s.authority.Allow(device)
			learn(t, s.guard)
			got := s.ask(t, http.MethodPost, strings.NewReader("body"), nil)
			await(t, "the handler", running)
			s.revoke(t)
			switch a := await(t, "the answer", got); {
			case a.err != nil:
				wantCut(t, a)
				seen["cut"]++
			case a.status == http.StatusForbidden:
				wantProblem(t, a, http.StatusForbidden, "DEVICE_REVOKED")
				seen["refused"]++
			default:
				wantWhole(t, a, "done")
				seen["whole"]++
			}
		}
		t.Log(seen) // all of them, on most days
	})
}

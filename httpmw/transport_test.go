package httpmw_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
	"github.com/execguard/execguard/guard/machineid"
	"github.com/execguard/execguard/httpmw"
)

// callLog keeps what a guard tells its observers.
type callLog struct {
	mu     sync.Mutex
	events []guard.Event
	more   chan struct{} // closed by the next event; nil: nobody waits
}

func (l *callLog) observe(_ context.Context, e guard.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
}

// wait waits until there are n events of a kind, which may be told a little after what they tell.
func (l *callLog) wait(t testing.TB, kind guard.EventKind, n int) []guard.Event {
	t.Helper()
	for {
		l.mu.Lock()
		if l.more == nil {
			l.more = make(chan struct{})
		}
		more := l.more
		l.mu.Unlock()
		if found := l.of(kind); len(found) >= n {
			return found
		}
		await(t, string(kind), more)
	}
}

// of returns the events of a kind.
func (l *callLog) of(kind guard.EventKind) (found []guard.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e.Kind == kind {
			found = append(found, e)
		}
	}
	return found
}

// baseFunc is a base that is a function.
type baseFunc func(*http.Request) (*http.Response, error)

func (s baseFunc) RoundTrip(r *http.Request) (*http.Response, error) { return s(r) }

// baseWith is an answer with a body.
func baseWith(body io.ReadCloser) baseFunc {
	return func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: body, ContentLength: -1}, nil
	}
}

// upload is a request's body that notes that it was closed.
type upload struct {
	io.Reader

	once   sync.Once
	closed chan struct{}
}

func newUpload(r io.Reader) *upload { return &upload{Reader: r, closed: make(chan struct{})} }

func (u *upload) Close() error {
	u.once.Do(func() { close(u.closed) })
	if c, ok := u.Reader.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// calling is c, whose calls g guards.
func calling(g guard.Runner, c *http.Client) *http.Client {
	own := *c
	own.Transport = httpmw.Transport(g, httpmw.Fixed(device), c.Transport)
	return &own
}

// newCall makes a request that gives up after a while.
func newCall(t testing.TB, method, url string, body io.Reader) *http.Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// placed is what a call came to.
type placed struct {
	resp *http.Response
	err  error
}

// place sends r on a goroutine of its own.
func place(c *http.Client, r *http.Request) <-chan placed {
	done := make(chan placed, 1)
	go func() {
		resp, err := c.Do(r)
		done <- placed{resp, err}
	}()
	return done
}

// wantCallDenied wants a denial with the code, from a call that was in flight or not, and nothing that a
// caller takes for its own cancellation.
func wantCallDenied(t testing.TB, err error, code guard.Code, inFlight bool) {
	t.Helper()
	wantDenied(t, err, code)
	if denied := (*guard.DeniedError)(nil); errors.As(err, &denied) && denied.InFlight != inFlight {
		t.Errorf("InFlight = %t, want %t: %v", denied.InFlight, inFlight, err)
	}
	if !errors.Is(err, guard.ErrDenied) || errors.Is(err, context.Canceled) {
		t.Errorf("err = %v: Is ErrDenied %t, Canceled %t", err, errors.Is(err, guard.ErrDenied), errors.Is(err, context.Canceled))
	}
}

// wantOver wants no run in flight. The guard starts nothing afterwards.
func wantOver(t testing.TB, g *guard.Guard) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := g.Shutdown(ctx); err != nil {
		t.Errorf("a run goes on: %v", err)
	}
}

// wholeText reads all there is and closes it.
func wholeText(t testing.TB, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("reading %q: %v", all, err)
	}
	return string(all)
}

var (
	errMine  = errors.New("the caller's own reason")
	errWords = errors.New("the device function's own words")
)

// refusal is a reason why a call is not sent.
type refusal struct {
	device httpmw.DeviceFunc // nil: Fixed
	before func(t *testing.T, g *guard.Guard, v *guardtest.Validator, r *http.Request) *http.Request
	wants  []error // that the error matches
	not    []error // that it does not
	code   guard.Code
}

func refusals() map[string]refusal {
	failing := func(err error) httpmw.DeviceFunc {
		return func(*http.Request) (string, error) { return device, err }
	}
	scripted := func(script func(v *guardtest.Validator)) func(*testing.T, *guard.Guard, *guardtest.Validator, *http.Request) *http.Request {
		return func(_ *testing.T, _ *guard.Guard, v *guardtest.Validator, r *http.Request) *http.Request {
			script(v)
			return r
		}
	}
	return map[string]refusal{
		"the DeviceFunc fails":         {device: failing(errWords), wants: []error{errWords}, not: []error{guard.ErrDenied}},
		"there is no identity":         {device: httpmw.FromHeader("X-Device"), wants: []error{httpmw.ErrNoIdentity}, not: []error{guard.ErrDenied}},
		"the DeviceFunc could not ask": {device: failing(guard.ErrUnavailable), wants: []error{guard.ErrUnavailable}},
		"a blank id": {
			device: httpmw.Fixed(" "), wants: []error{guard.ErrDenied},
		},
		"denied": {
			before: scripted(func(v *guardtest.Validator) { v.Deny(device, guard.CodeDeviceRevoked) }),
			wants:  []error{guard.ErrDenied}, not: []error{guard.ErrUnavailable}, code: guard.CodeDeviceRevoked,
		},
		"an unknown code": {
			before: scripted(func(v *guardtest.Validator) { v.Deny(device, "QUOTA_EXHAUSTED") }),
			wants:  []error{guard.ErrDenied}, not: []error{guard.ErrUnavailable}, code: "QUOTA_EXHAUSTED",
		},
		"could not ask": {
			before: scripted(func(v *guardtest.Validator) { v.Always(device, guardtest.Reply(guard.Decision{}, context.Canceled)) }),
			wants:  []error{guard.ErrDenied, guard.ErrUnavailable}, code: guard.CodeSystemUnavailable,
		},
		"closed": {
			before: func(_ *testing.T, g *guard.Guard, _ *guardtest.Validator, r *http.Request) *http.Request {
				_ = g.Close()
				return r
			},
			wants: []error{guard.ErrClosed}, not: []error{guard.ErrDenied, context.Canceled},
		},
		"the caller has left": {
			before: func(_ *testing.T, _ *guard.Guard, _ *guardtest.Validator, r *http.Request) *http.Request {
				ctx, cancel := context.WithCancelCause(r.Context())
				cancel(errMine)
				return r.WithContext(ctx)
			},
			wants: []error{errMine}, not: []error{guard.ErrDenied},
		},
	}
}

// S1: what may not start is not sent, the request's body is closed as a RoundTripper has to, and
// the error that comes out of http.Client still is what it was.
func TestTransport_RefusedBeforeItIsSent(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		for name, c := range refusals() {
			t.Run(name, func(t *testing.T) {
				g, v := newGuard(t)
				var reached atomic.Int32
				addr, client := serve(t, p, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
				device := c.device
				if device == nil {
					device = httpmw.Fixed("worker:test:01")
				}
				client.Transport = httpmw.Transport(g, device, client.Transport)
				body := newUpload(strings.NewReader("work"))
				r := newCall(t, http.MethodPost, addr, body)
				if c.before != nil {
					r = c.before(t, g, v, r)
				}
				_, err := client.Do(r)
				wantRefused(t, err, c)
				await(t, "the body's Close", body.closed)
				if n := reached.Load(); n > 0 {
					t.Errorf("%d requests reached the server", n)
				}
				wantOver(t, g)
			})
		}
	})
}

func wantRefused(t *testing.T, err error, c refusal) {
	t.Helper()
	if u := (*url.Error)(nil); !errors.As(err, &u) {
		t.Errorf("err = %T, want http.Client's", err)
	}
	for _, want := range c.wants {
		if !errors.Is(err, want) {
			t.Errorf("err = %v, want it to match %v", err, want)
		}
	}
	for _, not := range c.not {
		if errors.Is(err, not) {
			t.Errorf("err = %v, want it not to match %v", err, not)
		}
	}
	if c.code != "" {
		wantCallDenied(t, err, c.code, false)
	}
}

// A caller's time-out ends the wait for the authority, and is the caller's.
func TestTransport_TimeOutWhileTheAuthorityIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, v := newGuard(t)
		v.Always(device, guardtest.Hang())
		body := newUpload(strings.NewReader("work"))
		c := &http.Client{Timeout: time.Second, Transport: httpmw.Transport(g, httpmw.Fixed(device), baseFunc(func(*http.Request) (*http.Response, error) {
			t.Error("it was sent")
			return nil, errMine
		}))}
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://example.invalid/", body)
		began := time.Now()
		_, err := c.Do(r)
		u := (*url.Error)(nil)
		if !errors.As(err, &u) || !u.Timeout() || errors.Is(err, guard.ErrDenied) {
			t.Errorf("err = %v, want a time-out that is no denial", err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %v", took)
		}
		await(t, "the body's Close", body.closed)
		synctest.Wait()
	})
}

// net/http: a RoundTripper must not change the request.
func TestTransport_LeavesTheRequestAlone(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		g, v := newGuard(t)
		addr, c := serve(t, p, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
		type key struct{}
		var given *http.Request
		base := c.Transport
		tr := httpmw.Transport(g, httpmw.Fixed(device), baseFunc(func(r *http.Request) (*http.Response, error) {
			given = r
			return base.RoundTrip(r)
		}))
		for _, code := range []guard.Code{guard.CodeAllow, guard.CodeDeviceRevoked} {
			if code != guard.CodeAllow {
				v.Deny(device, code)
			}
			ctx := context.WithValue(t.Context(), key{}, "value")
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, addr+"/path?query=1", newUpload(strings.NewReader("body")))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("X-Mine", "mine")
			r.Header["Cookie"] = []string{"a=b"}
			r.Trailer = http.Header{"X-Trailer": {"t"}}
			before, header, trailer, address := *r, r.Header.Clone(), r.Trailer.Clone(), *r.URL
			given = nil
			resp, err := tr.RoundTrip(r)
			if (err == nil) != (code == guard.CodeAllow) {
				t.Fatalf("%s: %v", code, err)
			}
			if err == nil {
				_ = wholeText(t, resp)
				if resp.Request != r {
					t.Error("resp.Request is not the caller's")
				}
				if given == r || given.Context() == ctx || given.Context().Value(key{}) != "value" {
					t.Error("the base got the caller's own request, or lost its values")
				}
			}
			if !reflect.DeepEqual(before, *r) || !reflect.DeepEqual(header, r.Header) || !reflect.DeepEqual(trailer, r.Trailer) || !reflect.DeepEqual(address, *r.URL) {
				t.Errorf("the request was changed:\n%+v\n%+v", before, *r)
			}
			if r.Context() != ctx {
				t.Error("the request has another context")
			}
		}
	})
}

// Every hop of a redirect is a call of its own, and one that is refused is not sent.
func TestTransport_EachHopIsACall(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		log := &callLog{}
		g, v := newGuard(t, guard.WithObserver(log.observe))
		var last atomic.Int32
		mux := http.NewServeMux()
		mux.Handle("/a", http.RedirectHandler("/b", http.StatusTemporaryRedirect))
		mux.Handle("/b", http.RedirectHandler("/c", http.StatusPermanentRedirect))
		mux.HandleFunc("/c", func(w http.ResponseWriter, r *http.Request) {
			last.Add(1)
			_, _ = io.Copy(w, r.Body)
		})
		addr, c := serve(t, p, mux)
		c = calling(g, c)
		resp, err := c.Do(newCall(t, http.MethodPost, addr+"/a", strings.NewReader("work")))
		if err != nil {
			t.Fatal(err)
		}
		if got := wholeText(t, resp); got != "work" || resp.Request.URL.Path != "/c" {
			t.Errorf("got %q from %s", got, resp.Request.URL)
		}
		if n := len(log.of(guard.EventStarted)); n != 3 || len(log.of(guard.EventFinished)) != 3 {
			t.Errorf("%d runs were started and %d finished, want 3", n, len(log.of(guard.EventFinished)))
		}

		c.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
			if r.URL.Path == "/c" {
				v.Deny(device, guard.CodeDeviceRevoked)
			}
			return nil
		}
		_, err = c.Do(newCall(t, http.MethodPost, addr+"/a", strings.NewReader("work")))
		wantCallDenied(t, err, guard.CodeDeviceRevoked, false)
		if n := last.Load(); n != 1 {
			t.Errorf("the last hop was reached %d times", n)
		}
		wantOver(t, g)
	})
}

// What http.Client adds to a request and keeps of an answer goes through.
func TestTransport_CookiesAndCredentials(t *testing.T) {
	g, _ := newGuard(t)
	addr, c := serve(t, protocols()[1], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		cookie, _ := r.Cookie("seen")
		http.SetCookie(w, &http.Cookie{Name: "seen", Value: "yes", Secure: true})
		fmt.Fprint(w, user, password, cookie != nil && cookie.Value == "yes")
	}))
	c = calling(g, c)
	c.Jar, _ = cookiejar.New(nil)
	addr = strings.Replace(addr, "https://", "https://me:secret@", 1)
	for _, want := range []string{"mesecretfalse", "mesecrettrue"} {
		if got := wholeText(t, get(t, c, addr)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// net/http sends a request again, with a body from GetBody, where a connection that it had kept
// turns out to be dead. That is one call.
func TestTransport_NetHTTPTriesAgain(t *testing.T) {
	log := &callLog{}
	g, _ := newGuard(t, guard.WithObserver(log.observe))
	var requests atomic.Int32
	addr, c := serve(t, protocols()[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, _ := io.ReadAll(r.Body)
		if requests.Add(1) == 2 { // over the connection that was kept
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				conn.Close()
			}
			return
		}
		_, _ = w.Write(got)
	}))
	c = calling(g, c)
	for range 2 {
		r := newCall(t, http.MethodPost, addr, bytes.NewReader([]byte("work")))
		r.Header.Set("Idempotency-Key", "1")
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if got := wholeText(t, resp); got != "work" {
			t.Errorf("got %q", got)
		}
	}
	if n := len(log.of(guard.EventStarted)); n != 2 || requests.Load() != 3 {
		t.Errorf("%d runs for %d requests, want 2 for 3", n, requests.Load())
	}
}

// The end of a run must not cost the connection: it has gone back before.
func TestTransport_KeepsConnections(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		g, _ := newGuard(t)
		addr, c := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				fmt.Fprint(w, strings.Repeat("x", 100_000))
			}
		}))
		c = calling(g, c)
		dialled := 0
		for i := range 60 {
			method := []string{http.MethodGet, http.MethodHead, http.MethodPost}[i%3]
			r := newCall(t, method, addr, http.NoBody)
			r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
				if !info.Reused {
					dialled++
				}
			}}))
			resp, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if got := wholeText(t, resp); method == http.MethodGet && len(got) != 100_000 {
				t.Errorf("got %d bytes", len(got))
			}
		}
		if dialled != 1 {
			t.Errorf("%d connections were opened for 60 calls", dialled)
		}
	})
}

// A base that does not do as it should takes no run with it.
func TestTransport_BaseMisbehaves(t *testing.T) {
	type way struct {
		base    baseFunc
		unwinds any // what it panics with
		err     error
	}
	body := func() io.ReadCloser { return io.NopCloser(strings.NewReader("never read")) }
	for name, c := range map[string]way{
		"panics":                {base: func(*http.Request) (*http.Response, error) { panic(errMine) }, unwinds: errMine},
		"aborts":                {base: func(*http.Request) (*http.Response, error) { panic(http.ErrAbortHandler) }, unwinds: http.ErrAbortHandler},
		"fails":                 {base: func(*http.Request) (*http.Response, error) { return nil, errMine }, err: errMine},
		"fails with an answer":  {base: func(*http.Request) (*http.Response, error) { return &http.Response{Body: body()}, errMine }, err: errMine},
		"is not there any more": {base: func(*http.Request) (*http.Response, error) { return nil, io.EOF }, err: io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			log := &callLog{}
			g, _ := newGuard(t, guard.WithObserver(log.observe))
			tr := httpmw.Transport(g, httpmw.Fixed(device), c.base)
			func() {
				defer func() {
					if got := recover(); got != c.unwinds {
						t.Errorf("it panicked with %v, want %v", got, c.unwinds)
					}
				}()
				resp, err := tr.RoundTrip(newCall(t, http.MethodGet, "http://example.invalid/", nil))
				if resp != nil || err != c.err {
					t.Errorf("got %v, %v, want the very error %v", resp, err, c.err)
				}
			}()
			wantOver(t, g)
			if e := log.wait(t, guard.EventFinished, 1); len(e) != 1 || e[0].Err == nil || len(log.of(guard.EventStopped)) != 0 {
				t.Errorf("the observers were told %+v, %+v", e, log.of(guard.EventStopped))
			}
		})
	}
}

// A base that returns neither an answer nor an error is http.Client's to complain about, and leaves
// no run.
func TestTransport_BaseReturnsNothing(t *testing.T) {
	g, _ := newGuard(t)
	tr := httpmw.Transport(g, httpmw.Fixed(device), baseFunc(func(*http.Request) (*http.Response, error) {
		return nil, nil //nolint:nilnil // that is what is tested
	}))
	func() {
		defer func() {
			if v := recover(); v != nil {
				t.Errorf("it panicked: %v", v)
			}
		}()
		if resp, err := tr.RoundTrip(newCall(t, http.MethodGet, "http://example.invalid/", nil)); resp != nil || err == nil {
			t.Errorf("got %v, %v, want an error", resp, err)
		}
	}()
	wantOver(t, g)
}

// A call that failed because the server hung up has failed, also for the observers: io.EOF is an end
// only of a body.
func TestTransport_FailsWithAnEOF(t *testing.T) {
	log := &callLog{}
	g, _ := newGuard(t, guard.WithObserver(log.observe))
	broken := fmt.Errorf("the connection broke: %w", io.EOF)
	tr := httpmw.Transport(g, httpmw.Fixed(device), baseFunc(func(*http.Request) (*http.Response, error) { return nil, broken }))
	if _, err := tr.RoundTrip(newCall(t, http.MethodGet, "http://example.invalid/", nil)); err != broken {
		t.Errorf("err = %v", err)
	}
	wantOver(t, g)
	if e := log.of(guard.EventFinished); len(e) != 1 || e[0].Err != broken {
		t.Errorf("the observers were told %+v, want the call's error", e)
	}
}

// A base that ends its goroutine takes no run with it either.
func TestTransport_BaseEndsItsGoroutine(t *testing.T) {
	g, _ := newGuard(t)
	tr := httpmw.Transport(g, httpmw.Fixed(device), baseFunc(func(*http.Request) (*http.Response, error) {
		runtime.Goexit()
		return nil, nil //nolint:nilnil // not reached
	}))
	gone := make(chan struct{})
	r := newCall(t, http.MethodGet, "http://example.invalid/", nil)
	go func() {
		defer close(gone)
		_, _ = tr.RoundTrip(r)
	}()
	await(t, "the goroutine's end", gone)
	wantOver(t, g)
}

// What net/http cannot be asked for it is not asked for.
func TestTransport_CloseIdleConnections(t *testing.T) {
	g, _ := newGuard(t)
	base := &idler{}
	c := &http.Client{Transport: httpmw.Transport(g, httpmw.Fixed(device), base)}
	c.CloseIdleConnections()
	if base.closed != 1 {
		t.Errorf("it went through %d times", base.closed)
	}
	c.Transport = httpmw.Transport(g, httpmw.Fixed(device), baseFunc(nil))
	c.CloseIdleConnections() // has nobody to tell
}

type idler struct {
	baseFunc

	closed int
}

func (i *idler) CloseIdleConnections() { i.closed++ }

// The base nil is http.DefaultTransport, as it is for http.Client.
func TestTransport_NoBase(t *testing.T) {
	g, _ := newGuard(t)
	before := http.DefaultTransport
	defer func() { http.DefaultTransport = before }()
	http.DefaultTransport = baseWith(io.NopCloser(strings.NewReader("the default")))
	c := &http.Client{Transport: httpmw.Transport(g, httpmw.Fixed(device), nil)}
	if got := wholeText(t, get(t, c, "http://example.invalid/")); got != "the default" {
		t.Errorf("got %q", got)
	}
	wantOver(t, g)
}

// A mistake in the wiring is found when the program starts.
func TestTransport_Mistakes(t *testing.T) {
	g, _ := newGuard(t)
	for what, wrong := range map[string]func(){
		"the Runner is nil":     func() { httpmw.Transport(nil, httpmw.Fixed(device), nil) },
		"the DeviceFunc is nil": func() { httpmw.Transport(g, nil, nil) },
		"an Option is nil":      func() { httpmw.Transport(g, httpmw.Fixed(device), nil, nil) },
	} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, "Transport: "+what) {
					t.Errorf("%s: it panicked with %q", what, got)
				}
			}()
			wrong()
		}()
	}
}

// silentRunner is a Runner that neither calls the function nor says why.
type silentRunner struct{}

func (silentRunner) Run(context.Context, string, func(context.Context) error) error { return nil }

func TestTransport_RunnerThatDoesNotRun(t *testing.T) {
	body := newUpload(strings.NewReader("work"))
	tr := httpmw.Transport(silentRunner{}, httpmw.Fixed(device), baseFunc(func(*http.Request) (*http.Response, error) {
		t.Error("it was sent")
		return nil, errMine
	}))
	resp, err := tr.RoundTrip(newCall(t, http.MethodPost, "http://example.invalid/", body))
	if resp != nil || err == nil {
		t.Errorf("got %v, %v", resp, err)
	}
	await(t, "the body's Close", body.closed)
}

// lateRunner is a guard that is there later than what needs it.
type lateRunner struct{ *guard.Guard }

// The authority's client may share the transport of the calls that its answers allow. It would wait
// for itself otherwise: at the start, and each time the watch asks.
func TestTransport_OfTheAuthoritysOwnClient(t *testing.T) {
	srv := guardtest.NewServer(t)
	srv.Register(device)
	late := &lateRunner{}
	shared := calling(late, srv.Client())
	client, err := machineid.New(srv.Key(), machineid.WithBaseURL(srv.URL()), machineid.WithHTTPClient(shared))
	if err != nil {
		t.Fatal(err)
	}
	g, err := guard.New(client, guard.WithInterval(50*time.Millisecond), guard.WithTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	late.Guard = g

	for name, ask := range map[string]func() error{
		"a call": func() error {
			resp, err := shared.Do(newCall(t, http.MethodGet, srv.URL()+"/api/v1/usage", nil))
			if err == nil {
				_ = resp.Body.Close()
			}
			return err
		},
		"a run": func() error { return g.Run(t.Context(), device, func(context.Context) error { return nil }) },
		// The program's own question is a call like any other: it asks for leave to ask.
		"a question": func() error { _, err := client.Validate(t.Context(), device); return err },
	} {
		if err := ask(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	addr, backend := serve(t, protocols()[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	resp := get(t, calling(g, backend), addr)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := srv.Wait(ctx, len(srv.Requests())+5); err != nil {
		t.Fatalf("the watch does not ask: %v", err)
	}
	srv.Revoke(device)
	_, err = io.ReadAll(resp.Body)
	wantCallDenied(t, err, guard.CodeDeviceRevoked, true)
	_, err = shared.Do(newCall(t, http.MethodGet, srv.URL()+"/api/v1/usage", nil))
	wantCallDenied(t, err, guard.CodeDeviceRevoked, false)
	wantOver(t, g)
}

// Under random revocations a call is either whole or denied, and nothing of its answer is handed on
// while the device is revoked. The race detector looks on.
func TestTransport_RandomRevocations(t *testing.T) {
	for _, p := range []protocol{protocols()[0], protocols()[2], protocols()[3]} {
		t.Run(p.name, func(t *testing.T) {
			g, v := newGuard(t)
			addr, c := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				for range eraSize / eraPiece {
					if _, err := w.Write(make([]byte, eraPiece)); err != nil {
						return
					}
					_ = http.NewResponseController(w).Flush()
				}
			}))
			c = calling(g, c)
			e := &era{over: make(chan struct{})}
			var workers sync.WaitGroup
			for range 8 {
				workers.Go(func() { e.work(t, c, addr) })
			}
			e.toggle(t, g, v)
			workers.Wait()
			if e.whole.Load() < eraEnough || e.cut.Load() < eraEnough || e.broken.Load() > 0 {
				t.Errorf("%d calls were whole and %d cut; %d times something was read while the device was revoked", e.whole.Load(), e.cut.Load(), e.broken.Load())
			}
			wantOver(t, g)
		})
	}
}

// The size of an answer, how much of it is flushed at a time, and how many calls must have come to
// each end.
const (
	eraSize   = 200_000
	eraPiece  = 8_000
	eraEnough = 50
)

// era counts the changes of a device's fortune: now is odd while nobody may have anything.
type era struct {
	now, broken, whole, cut atomic.Int64
	over                    chan struct{}
}

// work makes calls until the era is over.
func (e *era) work(t *testing.T, c *http.Client, addr string) {
	t.Helper()
	for {
		select {
		case <-e.over:
			return
		default:
		}
		n, err := e.call(c, addr)
		denied := (*guard.DeniedError)(nil)
		switch {
		case err == nil && n == eraSize:
			e.whole.Add(1)
		case !errors.As(err, &denied) || errors.Is(err, context.Canceled):
			t.Errorf("%d bytes, %v", n, err)
		case denied.InFlight:
			e.cut.Add(1)
		}
	}
}

// call makes a call and reads its answer, looking at each read whether it was allowed.
func (e *era) call(c *http.Client, addr string) (total int, err error) {
	r, err := http.NewRequest(http.MethodPost, addr, strings.NewReader("work")) //nolint:noctx // it ends with its denial
	if err != nil {
		return 0, err
	}
	resp, err := c.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	buffer := make([]byte, 10_000)
	for {
		before := e.now.Load()
		n, err := resp.Body.Read(buffer)
		if n > 0 && before%2 == 1 && e.now.Load() == before {
			e.broken.Add(1)
		}
		total += n
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// toggle revokes and allows the device in turn, until enough has happened. How long it is allowed
// follows how fast the machine is: about as long as one call takes.
func (e *era) toggle(t *testing.T, g *guard.Guard, v *guardtest.Validator) {
	t.Helper()
	defer close(e.over)
	end, span := time.After(patience), 10*time.Millisecond
	for e.whole.Load() < eraEnough || e.cut.Load() < eraEnough {
		whole, cut := e.whole.Load(), e.cut.Load()
		select {
		case <-end:
			return
		case <-time.After(time.Duration(rand.Int64N(int64(span)))):
		}
		revoke(t, g, v)
		e.now.Add(1)
		<-time.After(time.Duration(rand.Int64N(int64(time.Millisecond))))
		e.now.Add(1)
		v.Allow(device)
		switch {
		case e.whole.Load() == whole:
			span = min(2*span, time.Second)
		case e.cut.Load() == cut:
			span = max(span/2, time.Millisecond)
		}
	}
}

// A server that is about to end does not wait for an answer that nobody reads: Close cuts the call.
func TestTransport_ClosedInFlight(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		g, _ := newGuard(t)
		running := make(chan struct{}, 2)
		addr, c := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/body" {
				_ = http.NewResponseController(w).Flush()
			}
			running <- struct{}{}
			<-r.Context().Done()
		}))
		c = calling(g, c)
		waiting := place(c, newCall(t, http.MethodGet, addr+"/header", nil))
		resp := get(t, c, addr+"/body")
		await(t, "the first", running)
		await(t, "the second", running)
		_ = g.Close()
		_, err := resp.Body.Read(make([]byte, 1))
		for what, err := range map[string]error{"the header": await(t, "the header", waiting).err, "the body": err} {
			if !errors.Is(err, guard.ErrClosed) || errors.Is(err, guard.ErrDenied) || errors.Is(err, context.Canceled) {
				t.Errorf("%s: err = %v, want ErrClosed", what, err)
			}
		}
		wantOver(t, g)
	})
}

// A call inside a guarded handler ends with either denial, and says which.
func TestTransport_InsideAGuardedHandler(t *testing.T) {
	for name, same := range map[string]bool{"the same guard": true, "another": false} {
		t.Run(name, func(t *testing.T) {
			outer, v := newGuard(t)
			inner := outer
			if !same {
				inner, _ = newGuard(t)
			}
			waits, backend := serve(t, protocols()[0], http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
			called, result := make(chan struct{}), make(chan error, 1)
			addr, c := serve(t, protocols()[0], guarded(outer, func(_ http.ResponseWriter, r *http.Request) {
				out, _ := http.NewRequestWithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
					WroteRequest: func(httptrace.WroteRequestInfo) { close(called) },
				}), http.MethodGet, waits, nil)
				_, err := calling(inner, backend).Do(out)
				result <- err
			}))
			answered := place(c, newCall(t, http.MethodGet, addr, nil))
			await(t, "the inner call", called)
			revoke(t, outer, v)
			err := await(t, "the inner result", result)
			wantDenied(t, err, guard.CodeDeviceRevoked)
			a := await(t, "the answer", answered)
			if a.err != nil {
				t.Fatal(a.err)
			}
			defer a.resp.Body.Close()
			problem(t, a.resp, http.StatusForbidden, "DEVICE_REVOKED")
			wantOver(t, outer)
			wantOver(t, inner)
		})
	}
}

// A call in a guarded handler that ends because the handler's own run is denied, by another guard: that
// is a denial, and must not pass for somebody's cancellation.
func TestTransport_OuterDenialIsNoCancellation(t *testing.T) {
	outer, v := newGuard(t)
	inner, _ := newGuard(t)
	reached := make(chan struct{})
	addr, c := serve(t, protocols()[0], http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(reached)
		<-r.Context().Done()
	}))
	result := make(chan error, 1)
	go func() {
		_ = outer.Run(t.Context(), device, func(ctx context.Context) error {
			r, _ := http.NewRequestWithContext(ctx, http.MethodGet, addr, nil)
			_, err := calling(inner, c).Do(r)
			result <- err
			return nil
		})
	}()
	await(t, "the request", reached)
	revoke(t, outer, v)
	wantCallDenied(t, await(t, "the call", result), guard.CodeDeviceRevoked, true)
}

// Many calls to a server that hangs up in the middle of its answers: the error is net/http's own.
func TestTransport_ServerHangsUp(t *testing.T) {
	log := &callLog{}
	g, _ := newGuard(t, guard.WithObserver(log.observe))
	addr, c := serve(t, protocols()[0], http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		fmt.Fprint(w, "half")
	}))
	resp := get(t, calling(g, c), addr)
	if got, err := io.ReadAll(resp.Body); string(got) != "half" || err != io.ErrUnexpectedEOF {
		t.Errorf("got %q, %v", got, err)
	}
	wantOver(t, g)
	if e := log.of(guard.EventFinished); len(e) != 1 || e[0].Err != io.ErrUnexpectedEOF {
		t.Errorf("the observers were told %+v", e)
	}
}

// A server that cannot be reached is no denial.
func TestTransport_NobodyListens(t *testing.T) {
	g, _ := newGuard(t)
	l := httptest.NewServer(nil)
	l.Close()
	_, err := calling(g, l.Client()).Do(newCall(t, http.MethodGet, l.URL, nil))
	op := (*net.OpError)(nil)
	if !errors.As(err, &op) || errors.Is(err, guard.ErrDenied) {
		t.Errorf("err = %v, want the dialler's", err)
	}
	wantOver(t, g)
}

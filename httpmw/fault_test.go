package httpmw_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
	"github.com/execguard/execguard/guard/machineid"
	"github.com/execguard/execguard/httpmw"
)

// trouble is one fault of the contract's list: an authority that goes wrong.
type trouble struct {
	code    guard.Code
	endless bool                                         // no answer comes
	wait    time.Duration                                // the most that Retry-After may be; 0: the default
	arrange func(t *testing.T) (guard.Validator, func()) // the authority, and what begins the fault
	secret  func() string                                // what nobody may get to read
}

// troubles are the faults that a server or a network can show, and those that are the validator's own.
func troubles() map[string]func() trouble {
	all := scriptedTroubles()
	for _, f := range guardtest.Faults() {
		all[f.String()] = func() trouble { return served(f) }
	}
	return all
}

// neverAnswers tells of a fault whether the authority never answers.
func neverAnswers(f guardtest.Fault) bool {
	return slices.Contains([]guardtest.Fault{
		"accepted and silent", "one byte a second", "DNS silent", "TLS handshake stalled", "answer late", "answers out of order",
	}, f)
}

// served is a fault between MachineID's client and its server.
func served(f guardtest.Fault) trouble {
	var srv *guardtest.Server
	tr := trouble{code: f.Code(), endless: neverAnswers(f), secret: func() string { return srv.Key() }}
	if strings.HasPrefix(f.String(), "429 with Retry-After") {
		tr.wait = 7 * time.Second
	}
	tr.arrange = func(t *testing.T) (guard.Validator, func()) {
		srv = guardtest.NewServer(t)
		srv.Register(device)
		c, err := machineid.New(srv.Key(), machineid.WithBaseURL(srv.URL()), machineid.WithHTTPClient(srv.Client()))
		if err != nil {
			t.Fatal(err)
		}
		if d, err := c.Validate(t.Context(), device); err != nil || !d.Allowed {
			t.Fatalf("before the fault: %+v, %v", d, err)
		}
		return c, func() { srv.Inject(f) }
	}
	return tr
}

// scriptedTroubles are what only a validator can do wrong.
func scriptedTroubles() map[string]func() trouble {
	const secret = "internal-host-17"
	allow := guard.Decision{Allowed: true, Code: guard.CodeAllow}
	answers := map[string]guard.ValidatorFunc{
		"the validator panics":             guardtest.Panic(secret),
		"the validator ends its goroutine": guardtest.Goexit(),
		"an error beside an ALLOW":         guardtest.Reply(allow, errors.New("dial "+secret)),
		"ALLOW for another device":         guardtest.Reply(guard.Decision{Allowed: true, Code: guard.CodeAllow, DeviceID: secret}, nil),
		"allowed without a code":           guardtest.Reply(guard.Decision{Allowed: true, Reason: secret}, nil),
		"a reason":                         guardtest.Reply(guard.Decision{Code: guard.CodeSystemUnavailable, Reason: secret}, nil),
		"the caller's own Canceled":        guardtest.Reply(guard.Decision{}, context.Canceled),
	}
	all := map[string]func() trouble{}
	scripted := func(endless bool, answer func(t *testing.T) guard.ValidatorFunc) func() trouble {
		return func() trouble {
			return trouble{
				code: guard.CodeSystemUnavailable, endless: endless, secret: func() string { return "" },
				arrange: func(t *testing.T) (guard.Validator, func()) {
					v := guardtest.NewValidator(device)
					v.Always(device, answer(t))
					return v, func() {}
				},
			}
		}
	}
	for name, answer := range answers {
		all[name] = scripted(false, func(*testing.T) guard.ValidatorFunc { return answer })
	}
	all["the validator ignores its context"] = scripted(true, func(t *testing.T) guard.ValidatorFunc {
		release := make(chan struct{})
		t.Cleanup(func() { close(release) })
		return guardtest.Hold(release, guardtest.Reply(allow, nil))
	})
	return all
}

// moody answers well until the fault begins, and notes the last ALLOW.
type moody struct {
	honest, faulty guard.Validator
	broken         atomic.Bool

	mu   sync.Mutex
	sent time.Time // when the last question was asked that was answered with an ALLOW
}

func (a *moody) Validate(ctx context.Context, id string) (guard.Decision, error) {
	v, sent := a.honest, time.Now()
	if a.broken.Load() {
		v = a.faulty
	}
	d, err := v.Validate(ctx, id)
	a.mu.Lock()
	defer a.mu.Unlock()
	if d.Allowed && err == nil && v == a.honest && sent.After(a.sent) {
		a.sent = sent
	}
	return d, err
}

// The guard of these tests. Where answers do come they get more time than they need, so that a busy
// machine does not turn a no into a «could not ask».
const (
	faultInterval = 150 * time.Millisecond
	faultSilence  = 100 * time.Millisecond // the timeout under a fault that is silence
	faultAnswer   = 5 * time.Second        // the timeout under one that is an answer
	faultSlack    = 2 * time.Second        // what a busy machine may add to the stop bound
)

// rig is a guard with an authority that can go wrong, a server and a client under it, and a backend
// for the client.
type rig struct {
	trouble
	authority *moody
	inject    func()
	guard     *guard.Guard

	front   string // guarded by New
	client  *http.Client
	backend string // called through Transport
	caller  *http.Client

	begun  chan string    // the path of each request whose handler is called, on either server
	causes chan error     // what ended the handlers' contexts
	ends   chan time.Time // when the contexts ended, of handlers and calls
}

func newRig(t *testing.T, tr trouble) *rig {
	t.Helper()
	r := &rig{trouble: tr, begun: make(chan string, 10), causes: make(chan error, 10), ends: make(chan time.Time, 10)}
	faulty, inject := tr.arrange(t)
	r.inject = inject
	r.authority = &moody{honest: guardtest.NewValidator(device), faulty: faulty}
	timeout := faultAnswer
	if tr.endless {
		timeout = faultSilence
	}
	var err error
	if r.guard, err = guard.New(r.authority, guard.WithInterval(faultInterval), guard.WithTimeout(timeout)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.guard.Close() })

	handle := func(w http.ResponseWriter, req *http.Request) {
		if strings.HasSuffix(req.URL.Path, "/stream") {
			_ = http.NewResponseController(w).Flush()
		}
		r.begun <- req.URL.Path
		<-req.Context().Done()
		r.causes <- context.Cause(req.Context())
	}
	r.front, r.client = serve(t, protocols()[0], guarded(r.guard, func(w http.ResponseWriter, req *http.Request) {
		context.AfterFunc(req.Context(), func() { r.ends <- time.Now() })
		handle(w, req)
	}))
	backend, c := serve(t, protocols()[0], http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.begun <- req.URL.Path
		if strings.HasSuffix(req.URL.Path, "/stream") {
			_ = http.NewResponseController(w).Flush()
		}
		<-req.Context().Done()
	}))
	base := c.Transport
	c.Transport = httpmw.Transport(r.guard, httpmw.Fixed(device), baseFunc(func(req *http.Request) (*http.Response, error) {
		context.AfterFunc(req.Context(), func() { r.ends <- time.Now() })
		return base.RoundTrip(req)
	}))
	r.backend, r.caller = backend, c
	return r
}

// fail begins the fault.
func (r *rig) fail() {
	r.inject()
	r.authority.broken.Store(true)
}

// wantError wants a denial that says what happened and nothing that is nobody's business.
func (r *rig) wantError(t *testing.T, err error, inFlight bool) {
	t.Helper()
	wantCallDenied(t, err, r.code, inFlight)
	if errors.Is(err, guard.ErrUnavailable) != (r.code == guard.CodeSystemUnavailable) {
		t.Errorf("err = %v: Is ErrUnavailable %t", err, errors.Is(err, guard.ErrUnavailable))
	}
	r.wantSecret(t, fmt.Sprintf("%v\n%+v\n%#v\n%q", err, err, err, err))
}

func (r *rig) wantSecret(t *testing.T, text string) {
	t.Helper()
	if s := r.secret(); s != "" && strings.Contains(text, s) {
		t.Errorf("the secret is in %q", text)
	}
}

// wantAnswer wants the answer of New to a request that was refused, or stopped before it was answered.
func (r *rig) wantAnswer(t *testing.T, resp *http.Response, start bool) {
	t.Helper()
	status, retry := http.StatusForbidden, ""
	if r.code == guard.CodeSystemUnavailable {
		status = http.StatusServiceUnavailable
		if start {
			retry = "5"
		}
	}
	got := resp.Header.Get("Retry-After")
	if start && r.wait > 0 {
		if n, err := strconv.Atoi(got); err != nil || n != int(r.wait/time.Second) && n != int(r.wait/time.Second)-1 { // a date has whole seconds
			t.Errorf("Retry-After: %q, the authority said %v", got, r.wait)
		}
	} else if got != retry {
		t.Errorf("Retry-After: %q, want %q", got, retry)
	}
	var answer strings.Builder
	resp.Body = io.NopCloser(io.TeeReader(resp.Body, &answer))
	problem(t, resp, status, string(r.code))
	all := fmt.Sprint(resp.Header, answer.String())
	r.wantSecret(t, all)
	if strings.Contains(all, "internal-host") {
		t.Errorf("an inner error's text goes out: %s", all)
	}
}

// The contract's list of faults, through both adapters. For each: no unauthorised start (S1), no context
// live past the stop line (B2, S4), a typed error that names what happened, no secret in it (S8), nothing
// left running.
func TestFaults(t *testing.T) {
	for name, trouble := range troubles() {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			t.Run("at the start", func(t *testing.T) { faultAtTheStart(t, newRig(t, trouble())) })
			t.Run("while it runs", func(t *testing.T) { faultWhileItRuns(t, newRig(t, trouble())) })
		})
	}
}

func faultAtTheStart(t *testing.T, r *rig) {
	r.fail()
	answered := place(r.client, newCall(t, http.MethodGet, r.front+"/new/start", nil))
	// In turn: the first question under a fault gets no ALLOW, a later one may.
	o := await(t, "the answer", answered)
	if o.err != nil {
		t.Fatal(o.err)
	}
	defer o.resp.Body.Close()
	r.wantAnswer(t, o.resp, true)

	r.inject()
	body := newUpload(strings.NewReader("work"))
	called := place(r.caller, newCall(t, http.MethodPost, r.backend+"/call/start", body))
	o = await(t, "the call", called)
	r.wantError(t, o.err, false)
	await(t, "the body's Close", body.closed)
	if len(r.begun) > 0 {
		t.Errorf("%s was begun", <-r.begun)
	}
	wantOver(t, r.guard)
}

func faultWhileItRuns(t *testing.T, r *rig) {
	quiet := place(r.client, newCall(t, http.MethodGet, r.front+"/new/quiet", nil))
	stream := get(t, r.client, r.front+"/new/stream")
	waiting := place(r.caller, newCall(t, http.MethodGet, r.backend+"/call/quiet", nil))
	reading := get(t, r.caller, r.backend+"/call/stream")
	for range 4 {
		await(t, "a start", r.begun)
	}
	r.fail()

	o := await(t, "the answer", quiet)
	if o.err != nil {
		t.Fatal(o.err)
	}
	defer o.resp.Body.Close()
	r.wantAnswer(t, o.resp, false)
	if rest, err := io.ReadAll(stream.Body); err != io.ErrUnexpectedEOF || len(rest) > 0 {
		t.Errorf("the stream ends with %q, %v: it looks whole", rest, err)
	}
	r.wantError(t, await(t, "the call", waiting).err, true)
	rest, err := io.ReadAll(reading.Body)
	r.wantError(t, err, true)
	if len(rest) > 0 {
		t.Errorf("read %q", rest)
	}

	r.authority.mu.Lock()
	line := r.authority.sent.Add(r.guard.StopBound())
	r.authority.mu.Unlock()
	for range 4 {
		if late := await(t, "a context's end", r.ends).Sub(line); late > faultSlack {
			t.Errorf("a context lived %v past the stop line", late)
		}
	}
	for range 2 {
		r.wantCause(t, await(t, "a handler's end", r.causes))
	}
	if len(r.begun) > 0 {
		t.Errorf("%s was begun", <-r.begun)
	}
	wantOver(t, r.guard)
}

// wantCause wants the denial as the cause of a handler's context.
func (r *rig) wantCause(t *testing.T, cause error) {
	t.Helper()
	wantDenied(t, cause, r.code)
	if !errors.Is(cause, context.Canceled) {
		t.Errorf("the cause %v does not match context.Canceled", cause)
	}
	r.wantSecret(t, fmt.Sprintf("%v\n%+v\n%#v", cause, cause, cause))
}

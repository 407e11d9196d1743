package grpcmw_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
	"github.com/execguard/execguard/guard/machineid"
)

const (
	shortInterval = 150 * time.Millisecond
	// shortTimeout is for faults that never answer, and long enough for an honest answer from this
	// machine; the others answer at once, and get longTimeout for a machine that is busy.
	shortTimeout = 250 * time.Millisecond
	longTimeout  = 2 * time.Second
	// grace is how much later than this test's own timer the guard's and grpc's goroutines may be (B4).
	grace = 250 * time.Millisecond
)

// fault is one way in which the authority goes wrong.
type fault struct {
	name    string
	code    guard.Code // what is made of it
	check   func(guard.Decision, error) error
	honest  bool // now and then
	endless bool // it does not answer
	// newAuthority makes the authority, which allows the device until inject is called.
	newAuthority func(t *testing.T) (v guard.Validator, inject func(), secret string)
}

// faultsOnWire are those of a server or a network: MachineID's client over real sockets.
func faultsOnWire() (all []fault) {
	for _, f := range guardtest.Faults() {
		endless := false
		switch f {
		case "accepted and silent", "one byte a second", "DNS silent", "TLS handshake stalled", "answer late", "answers out of order":
			endless = true
		}
		all = append(all, fault{
			name: f.String(), code: f.Code(), check: f.Check, endless: endless,
			honest: f == "flapping" || f == "answers out of order",
			newAuthority: func(t *testing.T) (guard.Validator, func(), string) {
				srv := guardtest.NewServer(t)
				srv.Register(device)
				v, err := machineid.New(srv.Key(), machineid.WithBaseURL(srv.URL()), machineid.WithHTTPClient(srv.Client()))
				if err != nil {
					t.Fatal(err)
				}
				if d, err := v.Validate(t.Context(), device); err != nil || !d.Allowed { // and there is a connection
					t.Fatalf("before the fault: %+v, %v", d, err)
				}
				return v, func() { srv.Inject(f) }, srv.Key()
			},
		})
	}
	return all
}

// faultsInProcess are those of a Validator itself.
func faultsInProcess() (all []fault) {
	const secret = "org_0123456789abcdef"
	yes := guard.Decision{Allowed: true, Code: guard.CodeAllow, DeviceID: device}
	for name, answer := range map[string]guard.ValidatorFunc{
		"validator panics":              guardtest.Panic(secret),
		"validator ends its goroutine":  guardtest.Goexit(),
		"validator ignores its context": nil,
		"error beside an ALLOW":         guardtest.Reply(yes, errors.New("no")),
		"answer for another device":     guardtest.Reply(guard.Decision{Allowed: true, Code: guard.CodeAllow, DeviceID: other}, nil),
	} {
		all = append(all, fault{
			name: name, code: guard.CodeSystemUnavailable, endless: answer == nil,
			check: func(guard.Decision, error) error { return nil },
			newAuthority: func(t *testing.T) (guard.Validator, func(), string) {
				v, answer := guardtest.NewValidator(device), answer
				if answer == nil {
					release := make(chan struct{})
					t.Cleanup(func() { close(release) })
					answer = guardtest.Hold(release, guardtest.Reply(yes, nil))
				}
				return v, func() { v.Always(device, answer) }, secret
			},
		})
	}
	return all
}

// TestNoFaultStartsACall makes calls of every kind, guarded on either side, while the fault is there.
func TestNoFaultStartsACall(t *testing.T) {
	eachFault(t, func(f *trial) {
		f.inject()
		since := time.Now()
		results := f.callAll()
		for range calledKinds {
			r := within(f.t, results, "a call is refused")
			switch {
			case r.err != nil:
				f.judge(r, "start")
			case !f.honest || !f.allowedSince(since):
				f.t.Errorf("%s: not refused", r.name)
			}
		}
		f.verdict(since)
	})
}

// TestEveryFaultStopsACall lets the fault begin under calls of every kind, whose handlers sit in RecvMsg.
func TestEveryFaultStopsACall(t *testing.T) {
	eachFault(t, func(f *trial) {
		f.hold = true
		results := f.callAll()
		runs := make([]run, 0, len(calledKinds))
		for range calledKinds {
			runs = append(runs, within(f.t, f.inside, "a call begins"))
		}
		f.inject()
		since := time.Now()
		over := later(func() bool {
			for range calledKinds {
				f.judge(<-results, "run")
			}
			for _, r := range runs {
				<-r.ctx.Done()
			}
			return true
		})
		f.endsInTime(over, runs)
		f.verdict(since)
	})
}

// endsInTime watches over B2: what is there at the stop line, and a little later, should not be.
func (f *trial) endsInTime(over <-chan bool, runs []run) {
	f.t.Helper()
	line := func() time.Time { return f.lastAllow().Add(f.guard.StopBound() + grace) }
	for {
		timer := time.NewTimer(time.Until(line()))
		select {
		case <-over:
			timer.Stop()
			return
		case <-timer.C:
		}
		if time.Now().Before(line()) {
			continue // an ALLOW has moved it
		}
		for _, r := range runs {
			if r.ctx.Err() == nil {
				f.t.Errorf("%s: its context lives past the stop line", r.name)
			}
		}
		within(f.t, over, "all calls have ended")
		f.t.Error("not all calls had ended at the stop line")
		return
	}
}

// eachFault tries them side by side, and looks for what is left of them.
func eachFault(t *testing.T, try func(f *trial)) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Run("all", func(t *testing.T) {
		for _, f := range append(faultsOnWire(), faultsInProcess()...) {
			t.Run(f.name, func(t *testing.T) {
				t.Parallel()
				try(newTrial(t, f))
			})
		}
	})
	goleak.VerifyNone(t, before)
}

// trial is one guard under one fault, and calls that it guards, on the server or on the client.
type trial struct {
	fault
	witness

	t        *testing.T
	guard    *guard.Guard
	inject   func()
	secret   string
	hold     bool     // calls go on until they are stopped
	inside   chan run // calls that have begun
	onServer *grpc.ClientConn
	onClient *grpc.ClientConn
	started  atomic.Pointer[time.Time]
}

// run is what a call has begun under.
type run struct {
	name string
	ctx  context.Context
}

// witness notes when every ALLOW was asked for.
type witness struct {
	guard.Validator

	mu     sync.Mutex
	allows []time.Time
}

// Validate is guard.Validator's.
func (w *witness) Validate(ctx context.Context, id string) (guard.Decision, error) {
	sent := time.Now()
	d, err := w.Validator.Validate(ctx, id)
	if d.Allowed && d.Code == guard.CodeAllow && err == nil && (d.DeviceID == "" || d.DeviceID == id) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.allows = append(w.allows, sent)
	}
	return d, err
}

func (w *witness) lastAllow() (last time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, sent := range w.allows {
		if sent.After(last) {
			last = sent
		}
	}
	return last
}

func (w *witness) allowedSince(t time.Time) bool { return !w.lastAllow().Before(t) }

func newTrial(t *testing.T, what fault) *trial {
	t.Helper()
	f := &trial{fault: what, t: t, inside: make(chan run, 4*len(calledKinds))}
	f.Validator, f.inject, f.secret = what.newAuthority(t)
	timeout := longTimeout
	if what.endless {
		timeout = shortTimeout
	}
	g, err := guard.New(f, guard.WithInterval(shortInterval), guard.WithTimeout(timeout))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	f.guard = g
	f.onServer = dial(t, serve(t, f.handlers(true), f.serverOptions()...))
	f.onClient = dial(t, serve(t, f.handlers(false)), f.clientOptions()...)
	return f
}

// handlers are the service. Where it is guarded, its contexts are.
func (f *trial) handlers(guarded bool) calls {
	enter := func(name string, ctx context.Context) {
		if guarded {
			f.enter(name, ctx)
		}
	}
	return calls{
		unary: func(ctx context.Context, in *message) (*message, error) {
			enter("server's unary call", ctx)
			if f.hold {
				<-ctx.Done()
			}
			return in, ctx.Err()
		},
		stream: func(s grpc.ServerStream) error {
			enter("server's stream", s.Context())
			if f.hold {
				return s.RecvMsg(new(message))
			}
			return s.SendMsg(text(""))
		},
	}
}

// enter is called where nothing may be called that was not allowed since the call was made (S1).
func (f *trial) enter(name string, ctx context.Context) {
	if !f.allowedSince(*f.started.Load()) {
		f.t.Errorf("%s began without an ALLOW", name)
	}
	f.inside <- run{name, ctx}
}

// serverOptions look at the errors of the interceptors from outside too.
func (f *trial) serverOptions() []grpc.ServerOption {
	return append([]grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			resp, err := next(ctx, req)
			f.judgeInProcess("outside of UnaryServer", err)
			return resp, err
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			err := next(srv, ss)
			f.judgeInProcess("outside of StreamServer", err)
			return err
		}),
	}, guarded(f.guard, grpcmw.Fixed(device))...)
}

// clientOptions look at the contexts from inside too.
func (f *trial) clientOptions() []grpc.DialOption {
	return append(
		guarding(f.guard, grpcmw.Fixed(device)),
		grpc.WithChainUnaryInterceptor(func(
			ctx context.Context, method string, in, out any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption,
		) error {
			f.enter("client's unary call", ctx)
			return next(ctx, method, in, out, cc, opts...)
		}),
		grpc.WithChainStreamInterceptor(func(
			ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption,
		) (grpc.ClientStream, error) {
			f.enter("client's stream", ctx)
			return next(ctx, desc, cc, method, opts...)
		}),
	)
}

// calledKinds are all kinds of call, guarded on the server and on the client.
var calledKinds = func() (all []calledKind) {
	for _, method := range []string{unary, down, up, both} {
		all = append(all, calledKind{method, false}, calledKind{method, true})
	}
	return all
}()

type calledKind struct {
	method   string
	onClient bool
}

type result struct {
	name     string
	onClient bool
	err      error // as the caller has it; nil: it was answered
}

func (f *trial) callAll() <-chan result {
	results, now := make(chan result, len(calledKinds)), time.Now()
	f.started.Store(&now)
	for _, k := range calledKinds {
		conn, side := f.onServer, "server's "
		if k.onClient {
			conn, side = f.onClient, "client's "
		}
		go func() { results <- result{side + k.method, k.onClient, answered(f.t.Context(), conn, k.method)} }()
	}
	return results
}

// answered makes a call and waits for one answer, or for its end.
func answered(ctx context.Context, conn *grpc.ClientConn, method string) error {
	if method == unary {
		_, err := call(ctx, conn, "")
		return err
	}
	s, err := open(ctx, conn, method)
	if err != nil {
		return err
	}
	return s.RecvMsg(new(message))
}

// judge holds an error as the caller has it to the fault.
func (f *trial) judge(r result, phase string) {
	f.t.Helper()
	f.keepsSecret(r.name, r.err)
	want := map[bool]map[string]codes.Code{
		true:  {"start": codes.Unavailable, "run": codes.Aborted},
		false: {"start": codes.PermissionDenied, "run": codes.PermissionDenied},
	}[f.code == guard.CodeSystemUnavailable][phase]
	w := read(f.t, r.err)
	if w.code != want || w.reason != string(f.code) || w.phase != phase || (w.retry > 0) != (want == codes.Unavailable) {
		f.t.Errorf("%s: %+v, want %s with %s at the %s: %v", r.name, w, want, f.code, phase, r.err)
	}
	denied, ok := grpcmw.FromError(r.err)
	if !ok || denied.Decision.Code != f.code || denied.InFlight != (phase == "run") {
		f.t.Errorf("%s: FromError finds %+v", r.name, denied)
	}
	if r.onClient {
		f.judgeInProcess(r.name, r.err)
	}
}

// judgeInProcess holds an error to the fault where the guard's own denial is in it.
func (f *trial) judgeInProcess(name string, err error) {
	f.t.Helper()
	if err == nil {
		return // whether that is right, judge says
	}
	f.keepsSecret(name, err)
	denied := (*guard.DeniedError)(nil)
	if !errors.As(err, &denied) || errors.Is(err, context.Canceled) {
		f.t.Errorf("%s: %v is no denial", name, err)
		return
	}
	f.keepsSecret(name, denied)
	unavailable := f.code == guard.CodeSystemUnavailable
	if errors.Is(err, guard.ErrUnavailable) != unavailable || unavailable && denied.Decision.Reason == "" {
		f.t.Errorf("%s: %v does not say what happened", name, denied)
	}
	if err := f.check(denied.Decision, nil); err != nil {
		f.t.Errorf("%s: %v", name, err)
	}
}

// keepsSecret looks for the organisation's key in whatever can be printed or sent (S8).
func (f *trial) keepsSecret(name string, err error) {
	f.t.Helper()
	if all := fmt.Sprintf("%s %v %+v %#v %v", err, err, err, err, status.Convert(err).Proto()); strings.Contains(all, f.secret) {
		f.t.Errorf("%s: the key is in %s", name, all)
	}
}

// verdict looks at what is left: no ALLOW that was none, and no run.
func (f *trial) verdict(since time.Time) {
	f.t.Helper()
	if !f.honest && f.allowedSince(since) {
		f.t.Error("there was an ALLOW under the fault")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := f.guard.Shutdown(ctx); err != nil {
		f.t.Errorf("runs are left: %v", err)
	}
}

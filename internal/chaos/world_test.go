package chaos_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
	"github.com/execguard/execguard/guard/machineid"
	"github.com/execguard/execguard/internal/chaos"
	"github.com/execguard/execguard/internal/faulty"
)

const (
	ms = time.Millisecond

	// patience bounds what a test waits for that takes a fraction of a second.
	patience = 20 * time.Second
	// callTimeout is the client's own: a call that ignores its context ends by it.
	callTimeout = 600 * ms
)

// tolerance is how late, beyond what the machine is, a context may end. The race detector is after something else, and
// holds up goroutines that wait for no processor.
var tolerance = map[bool]time.Duration{false: 50 * ms, true: 200 * ms}[underRace]

// pace is that of most guards here: 300 ms from an ALLOW's request to the stop line, and 550 under the race detector. A busy
// machine must be able to keep to it, and questions that are answered "too late" must come too late.
var pace = map[bool]chaos.Terms{
	false: {Interval: 150 * ms, Timeout: 150 * ms},
	true:  {Interval: 300 * ms, Timeout: 250 * ms},
}[underRace]

// world is an authority, the faults before it, and guards with work under each of the adapters.
type world struct {
	t        *testing.T
	key      string
	org      *authority.Organisation
	recorder *chaos.Recorder
	machine  *chaos.Pulse
	server   *faulty.Server
	wire     *chaos.Wire
	base     string
	tls      bool

	disconnect func() // closes the server

	seams   []*seam
	guards  []*guard.Guard
	clients []*machineid.Client
	devices []string
	lanes   []string
	cancels []func()

	over    context.Context // ends when the lanes shall
	end     context.CancelFunc
	working sync.WaitGroup
	queue   *queue
	closers []func() // what the lanes have opened, in the order of opening
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// client makes a client with connections of its own.
func (w *world) client() *machineid.Client {
	opts := []machineid.Option{machineid.WithBaseURL(w.base), machineid.WithTimeout(callTimeout)}
	if w.tls {
		// With the server's dialer, which suffers from faults of name resolution.
		opts = append(opts, machineid.WithHTTPClient(&http.Client{Transport: w.server.Client().Transport.(*http.Transport).Clone()}))
	}
	c, err := machineid.New(w.key, opts...)
	must(w.t, err)
	w.clients = append(w.clients, c)
	return c
}

// register has the authority know a device. In a process without it that has been done.
func (w *world) register(device string) {
	if w.org == nil {
		return
	}
	must(w.t, w.recorder.Change(device, true, func() error { return second(w.org.Register(context.Background(), device)) }))
	w.devices = append(w.devices, device)
}

// runner makes a guard of its own for a lane, and its devices known: one of the lane's name, unless
// there are others.
func (w *world) runner(lane string, terms chaos.Terms, alone, hinted bool, devices ...string) *chaos.Runner {
	if len(devices) == 0 {
		devices = []string{lane}
	}
	for _, device := range devices {
		w.register(device)
	}
	w.lanes = append(w.lanes, lane)
	s := &seam{next: w.client()}
	opts := []guard.Option{guard.WithInterval(terms.Interval), guard.WithTimeout(terms.Timeout)}
	if terms.MaxAge > 0 {
		opts = append(opts, guard.WithReuse(terms.MaxAge))
	}
	if terms.Budget > 0 {
		opts = append(opts, guard.WithRetry(nil, terms.Budget))
	}
	g, err := guard.New(w.recorder.Validator(lane, terms, s), opts...)
	must(w.t, err)
	if hinted && w.org != nil {
		w.cancels = append(w.cancels, w.org.Subscribe(g.Hint))
	}
	w.seams, w.guards = append(w.seams, s), append(w.guards, g)
	return w.recorder.Runner(lane, lane, g, alone && !hinted)
}

// do has a step happen.
func (w *world) do(s chaos.Step) error {
	ctx := context.Background()
	switch s.Kind {
	case chaos.OnWire:
		return w.wire.Set(trouble(s.What))
	case chaos.AtServer:
		if s.What == "" {
			return w.server.Heal()
		}
		return w.server.Inject(s.What)
	case chaos.AtSeam:
		for _, at := range w.seams {
			at.Set(s.What)
		}
		return nil
	case chaos.Revoke:
		return w.recorder.Change(s.Device, false, func() error { return second(w.org.Revoke(ctx, s.Device)) })
	case chaos.Restore:
		return w.recorder.Change(s.Device, true, func() error { return second(w.org.Unrevoke(ctx, s.Device)) })
	case chaos.SwitchState:
		state := authority.StateActive
		if s.What != "" {
			state = authority.State(s.What)
		}
		return w.recorder.Change("", state == authority.StateActive, func() error { return w.org.SetState(ctx, state) })
	case chaos.Telling:
		w.recorder.Hint(s.Device)
		for _, g := range w.guards {
			g.Hint(s.Device)
		}
		return nil
	}
	return fmt.Errorf("no such kind of step: %q", s.Kind)
}

func second[T any](_ T, err error) error { return err }

// trouble is the one of that name; "" is none.
func trouble(name string) chaos.Trouble {
	for _, t := range chaos.Troubles() {
		if t.Name == name {
			return t
		}
	}
	return chaos.Trouble{}
}

// heal makes all well again.
func (w *world) heal() {
	for _, kind := range []chaos.Kind{chaos.OnWire, chaos.AtServer, chaos.AtSeam, chaos.SwitchState} {
		must(w.t, w.do(chaos.Step{Kind: kind}))
	}
	for _, device := range w.devices {
		must(w.t, w.do(chaos.Step{Kind: chaos.Restore, Device: device}))
	}
}

// finish ends the lanes and everything else, and returns what was recorded.
func (w *world) finish() chaos.History {
	w.end()
	for _, cancel := range w.cancels {
		cancel()
	}
	done := make(chan struct{})
	go func() { w.working.Wait(); close(done) }()
	if !within(patience, done) {
		w.t.Errorf("the lanes do not end within %v", patience)
	}
	for _, closeIt := range slices.Backward(w.closers) {
		closeIt()
	}
	for _, g := range w.guards {
		g.Close()
	}
	w.recorder.Wait()
	for _, c := range w.clients {
		c.CloseIdleConnections()
	}
	if w.wire != nil {
		w.wire.Close()
		w.disconnect()
	}
	h := w.recorder.History(tolerance, w.key)
	h.Obedient = true
	return h
}

// closeServer closes the server that has faults.
func (w *world) closeServer() {
	if err := w.server.Close(); err != nil {
		w.t.Errorf("the server: %v", err)
	}
	if strays := w.server.Strays(); len(strays) > 0 {
		w.t.Errorf("%d requests have followed a redirect", len(strays))
	}
}

package guard_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
)

// many is how many runs are in flight where there are many.
const many = 100_000

// inProcess is an authority in this process that costs next to nothing. It allows every device
// until it has revoked them all.
type inProcess struct {
	revoked atomic.Bool
	denied  atomic.Pointer[time.Time] // when it first answered so
}

// Validate is guard.Validator's.
func (a *inProcess) Validate(context.Context, string) (guard.Decision, error) {
	if !a.revoked.Load() {
		return guard.Decision{Allowed: true, Code: guard.CodeAllow}, nil
	}
	now := time.Now()
	a.denied.CompareAndSwap(nil, &now)
	return guard.Decision{Code: guard.CodeDeviceRevoked}, nil
}

// runFunc is Guard.Run, or what stands in its place for comparison.
type runFunc func(ctx context.Context, deviceID string, fn func(context.Context) error) error

// flight is a number of runs in flight, each on a goroutine of its caller's.
type flight struct {
	b       *testing.B
	run     runFunc
	parent  context.Context
	fn      func(context.Context) error // what a run does; it calls running.Done when it is in flight
	landed  func(error) bool            // whether a run that was in flight may return that
	running sync.WaitGroup              // those launched whose function has not been called
	ended   sync.WaitGroup              // those launched that have not returned
}

// launch has one more run of the device take off.
func (f *flight) launch(id string) {
	f.running.Add(1)
	f.ended.Go(func() {
		f.end(f.run(f.parent, id, f.fn)) // no frame between, which would count as the guard's
	})
}

// end looks at what a run returned. One that was refused was never in flight.
func (f *flight) end(err error) {
	if f.landed(err) {
		return
	}
	f.b.Errorf("a run returned %v", err)
	if denied := (*guard.DeniedError)(nil); err != nil && (!errors.As(err, &denied) || !denied.InFlight) {
		f.running.Done()
	}
}

// launchMany has n runs in flight, of each of the devices alike.
func (f *flight) launchMany(ids []string, n int) {
	for i := range n {
		f.launch(ids[i%len(ids)])
	}
	f.running.Wait()
}

// wasStopped is what a run returns that a denial has ended.
func wasStopped(err error) bool {
	denied, ok := err.(*guard.DeniedError)
	return ok && denied.InFlight
}

// wasFinished is what a run returns that nothing has ended.
func wasFinished(err error) bool { return err == nil }

// untilCancelled has runs that wait for their context to end.
func (f *flight) untilCancelled() {
	f.fn = func(ctx context.Context) error {
		f.running.Done()
		<-ctx.Done()
		return ctx.Err()
	}
}

// squadron is a flight under a guard and an authority of its own, which are to deny it.
type squadron struct {
	flight
	authority *inProcess
	guard     *guard.Guard
}

// newSquadron prepares a flight whose runs have parent for their callers' context.
func newSquadron(b *testing.B, parent context.Context) *squadron {
	b.Helper()
	a := new(inProcess)
	g, err := guard.New(a, guard.WithInterval(undisturbed), guard.WithReuse(undisturbed))
	if err != nil {
		b.Fatal(err)
	}
	return &squadron{flight{b: b, run: g.Run, parent: parent, landed: wasStopped}, a, g}
}

// permit has each of the devices allowed, so that what takes off after it need not wait.
func (s *squadron) permit(ids []string) {
	for _, id := range ids {
		if err := s.run(s.parent, id, func(context.Context) error { return nil }); err != nil {
			s.b.Error(err)
		}
	}
}

// deny has the guard learn that the devices are revoked, one after the other, and returns when
// the authority first said so.
func (s *squadron) deny(ids []string) time.Time {
	s.authority.revoked.Store(true)
	for _, id := range ids {
		if d, err := s.guard.Validate(context.Background(), id); err != nil || d.Code != guard.CodeDeviceRevoked {
			s.b.Errorf("denied with %+v, %v", d, err)
		}
	}
	return *s.authority.denied.Load()
}

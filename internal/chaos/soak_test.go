package chaos_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/internal/chaos"
)

// The soak in full is
//
//	go test ./internal/chaos -run Soak -v -chaos.soak 30m -timeout 40m
//
// with 1,000 devices and 50 runs each; the short one has fewer.
var soakTime = flag.Duration("chaos.soak", 0, "how long TestSoak goes on, with 1,000 devices and 50 runs each; 0: some seconds, with fewer")

// soak is a guard that keeps many devices' work going, while some are revoked and restored and the
// network fails now and then. What happens is judged at once: nothing is recorded.
type soak struct {
	*world

	terms   chaos.Terms   // a request an interval for each device is what the load is made of
	longest time.Duration // of most runs; a tenth last six times as long
	guard   *guard.Guard
	devices []*soaked
	denied  []*soaked    // the one that has been denied for longest first
	passed  int          // bounds, of devices that were denied all the while
	began   atomic.Int64 // runs
	stopped atomic.Int64
	refused atomic.Int64
}

// Steady memory, and a steady number of goroutines, whatever happens for however long.
func TestSoak(t *testing.T) {
	machine := chaos.NewPulse()
	s := &soak{world: newBareWorld(t, machine), terms: chaos.Terms{Interval: 300 * ms, Timeout: time.Second}, longest: 2 * time.Second}
	length, devices, runs := 3*time.Second, 60, 10
	if *soakTime > 0 {
		length, devices, runs = *soakTime, 1000, 50
		s.terms, s.longest = chaos.Terms{Interval: 2 * time.Second, Timeout: 3 * time.Second}, 10*time.Second
	}
	s.found(devices)
	for _, d := range s.devices {
		for range runs {
			s.working.Go(func() { s.work(d) })
		}
	}
	s.settle(int64(devices * runs))
	first := s.measure()
	t.Logf("at the start: %v", first)
	s.unrest(length)
	s.heal()
	s.settle(first.began + 1)
	last := s.measure()
	t.Logf("at the end:   %v", last)
	s.judge(first, last)
	machine.Stop()
}

// found makes the devices known, and a guard for all of them.
func (s *soak) found(devices int) {
	for i := range devices {
		d := &soaked{id: fmt.Sprintf("soak-%04d", i)}
		s.devices = append(s.devices, d)
		must(s.t, second(s.org.Register(context.Background(), d.id)))
	}
	var err error
	s.guard, err = guard.New(s.client(), guard.WithInterval(s.terms.Interval), guard.WithTimeout(s.terms.Timeout))
	must(s.t, err)
	s.guards = append(s.guards, s.guard)
}

// work is one run after the other.
func (s *soak) work(d *soaked) {
	for s.over.Err() == nil {
		called, started := time.Now(), false
		err := s.guard.Run(s.over, d.id, func(ctx context.Context) error {
			started = true
			s.began.Add(1)
			if d.deniedSince(called) {
				s.t.Errorf("S1: %s has started though it was denied all the time since Run was called", d.id)
			}
			length := rand.N(s.longest)
			if rand.N(10) == 0 {
				length *= 6
			}
			return s.hold(ctx, d, length)
		})
		switch {
		case !started:
			s.refused.Add(1)
			_ = pause(s.over, rand.N(2*s.terms.Interval))
		case err != nil && s.over.Err() == nil:
			s.stopped.Add(1)
			if end := chaos.EndOf(err); !end.Denied || !end.InFlight || end.Canceled {
				s.t.Errorf("%s: a stopped run returned %v", d.id, err)
			}
		}
	}
}

// hold waits for the end of a run, and judges when it came: not after the bound from a revocation.
func (s *soak) hold(ctx context.Context, d *soaked, length time.Duration) error {
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	now := time.Now()
	if late, bare := d.late(now, s.terms.Bound()); late > tolerance+bare && s.over.Err() == nil {
		// Looking it up takes a while, and is seldom needed.
		if machine := s.machine.Machine().Late(now.Add(-late), now); late > tolerance+max(machine, bare) {
			s.t.Errorf("S4: %s was live %v after the bound from its revocation (the machine was late by %v, a bare timer by %v)", d.id, late, machine, bare)
		}
	}
	return context.Cause(ctx) // nil, where it ends by itself
}

// unrest has devices denied and the network fail, all the time.
func (s *soak) unrest(length time.Duration) {
	began, report := time.Now(), time.NewTicker(max(time.Minute, length/20))
	defer report.Stop()
	for time.Since(began) < length {
		for range 1 + len(s.devices)/500 {
			s.revoke(s.devices[rand.IntN(len(s.devices))])
		}
		if rand.N(20) == 0 {
			all := chaos.Troubles()
			must(s.t, s.wire.Set(all[rand.IntN(len(all))]))
			_ = pause(context.Background(), rand.N(300*ms))
			must(s.t, s.wire.Set(chaos.Trouble{}))
		}
		_ = pause(context.Background(), 200*ms)
		s.machine.Forget(time.Now().Add(-time.Minute))
		select {
		case <-report.C:
			s.t.Logf("%v: %v", time.Since(began).Round(time.Second), s.measure())
		default:
		}
	}
}

// revoke denies a device, and restores the one that has been denied for longest where a twentieth is.
func (s *soak) revoke(d *soaked) {
	if slices.Contains(s.denied, d) {
		return
	}
	must(s.t, second(s.org.Revoke(context.Background(), d.id)))
	d.set(time.Now(), s.terms.Bound())
	s.denied = append(s.denied, d)
	// Not before its bound has passed: until then nothing can be too late, and hold has nothing to judge.
	if len(s.denied) <= 1+len(s.devices)/20 || !s.denied[0].deniedSince(time.Now().Add(-s.terms.Bound()-500*ms)) {
		return
	}
	s.passed++
	s.denied[0].set(time.Time{}, 0)
	must(s.t, second(s.org.Unrevoke(context.Background(), s.denied[0].id)))
	s.denied = s.denied[1:]
}

func (s *soak) heal() {
	must(s.t, s.wire.Set(chaos.Trouble{}))
	for _, d := range s.devices {
		d.set(time.Time{}, 0)
		must(s.t, second(s.org.Unrevoke(context.Background(), d.id)))
	}
}

// settle waits until so many runs have begun, and then until every device has had the time to.
func (s *soak) settle(began int64) {
	if !eventually(func() bool { return s.began.Load() >= began }) {
		s.t.Errorf("%d runs have begun, %d should have", s.began.Load(), began)
	}
	_ = pause(context.Background(), 2*s.terms.Interval)
}

// state is what there is of everything.
type state struct {
	heap, stacks            uint64 // bytes in use
	goroutines              int
	began, stopped, refused int64
}

func (s *soak) measure() state {
	runtime.GC()
	runtime.GC() // what finalisers and pools have kept
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return state{m.HeapAlloc, m.StackInuse, runtime.NumGoroutine(), s.began.Load(), s.stopped.Load(), s.refused.Load()}
}

func (s state) String() string {
	const mib = 1 << 20
	return fmt.Sprintf("heap %.1f MiB, stacks %.1f MiB, %d goroutines; %d runs begun, %d stopped, %d refused",
		float64(s.heap)/mib, float64(s.stacks)/mib, s.goroutines, s.began, s.stopped, s.refused)
}

// judge compares the end with the start, and looks what is left when all is over.
func (s *soak) judge(first, last state) {
	if last.heap > first.heap+first.heap/4+8<<20 {
		s.t.Errorf("the heap has grown from %d to %d bytes", first.heap, last.heap)
	}
	if last.goroutines > first.goroutines+first.goroutines/10+50 {
		s.t.Errorf("there are %d goroutines after %d", last.goroutines, first.goroutines)
	}
	if s.passed == 0 || last.stopped == 0 || last.began == first.began {
		s.t.Errorf("too little was seen: %v", last)
	}
	s.finish()
}

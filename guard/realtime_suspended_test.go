package guard_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
	"github.com/execguard/execguard/guard/machineid"
)

// follow is how soon contexts follow a jump of the clocks (S6).
const follow = time.Second

// suspendedPace makes a bound that no try reaches by waiting.
var suspendedPace = pace{interval: 20 * time.Second, timeout: 5 * time.Second}

// S6 on a machine that is suspended and resumed while work is under way, over real sockets: for the
// process no time has passed but on the wall clock. Where that has leapt over the line, contexts
// follow within a second, Checkpoint says no at once, who comes back is denied, and nothing starts
// on what was allowed before. Where it has not, nobody is stopped.
func TestRealTime_SuspendedMachine(t *testing.T) {
	machine := newPulse()
	defer machine.stop()
	server := guardtest.NewServer(t, guardtest.WithPlainHTTP())
	for i := range 4 {
		server.Register(deviceName(i))
	}
	client, err := machineid.New(server.Key(), machineid.WithBaseURL(server.URL()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	found := share(make([]struct{}, 25), func(_ struct{}, n int) findings { return suspend(client, machine, n%4 != 0, n%4 == 1) })
	found.report(t)
	t.Logf("where nobody moved they were told after %s", spread(found.resumed))
	if found.across < *realTries/2 {
		t.Errorf("in %d tries %d lines passed while the machine was suspended", *realTries, found.across)
	}
}

// suspension is one try.
type suspension struct {
	*stage

	still    bool
	ahead    atomic.Int64  // of the wall clock, in nanoseconds
	resumed  chan struct{} // closed when the machine is
	at       time.Time     // when that was
	runs     []*seenRun
	start    seenStart // of a run that was called right after that
	returned error     // what Run returned of a function that came back right after that
}

// suspend suspends the machine once, for longer than the bound or for less. Where nobody moves, only the
// guard's own ticker looks at the clocks after that.
func suspend(client guard.Validator, machine *pulse, long, still bool) (found findings) {
	s := &suspension{resumed: make(chan struct{}), still: still}
	r := newRecorder(client, suspendedPace, machine)
	var err error
	if s.stage, err = newStage(r, 1); err != nil {
		found.complainf("%v", err)
		return found
	}
	defer s.guard.Close()
	guard.SetWall(s.guard, func(t time.Time) int64 { return t.UnixNano() + s.ahead.Load() })
	length := rand.N(suspendedPace.interval - time.Second)
	if long {
		length = suspendedPace.bound() + rand.N(24*time.Hour)
	}
	if err := s.play(length); err != nil {
		found.void++
		return found
	}
	s.guard.Close()
	r.land()
	seen := r.stop(false)
	if !still {
		found.add(seen.judgeStart(s.start, 0))
	}
	if long {
		found.across++
		found.add(seen.afterLeap(s))
		return found
	}
	found.add(seen.afterNap(s, length))
	return found
}

// play has runs begin, the machine stand still for that long, and the runs end.
func (s *suspension) play(length time.Duration) (err error) {
	parts := []string{listeners[0], listeners[2], partChecks}
	if s.still {
		parts = parts[:2]
	}
	s.runs, err = s.stage.start(parts)
	if err != nil {
		s.end()
		s.wait()
		return err
	}
	back := make(chan error, 1)
	back <- errTooBusy // nobody has come back
	if !s.still {
		<-back
		s.comeBack(back)
	}
	pauseFor(rand.N(300*time.Millisecond), s.done)
	s.at = time.Now()
	s.ahead.Store(int64(length))
	close(s.resumed)
	if !s.still {
		s.startAnew()
	}
	pauseFor(follow+200*time.Millisecond, s.done) // when they have to be told, all have been
	s.end()
	s.wait()
	s.returned = <-back
	return nil
}

// comeBack has one more function run, which returns nil right after the machine was resumed.
func (s *suspension) comeBack(back chan<- error) {
	began := make(chan struct{})
	go func() {
		called := false
		err := s.guard.Run(context.Background(), deviceName(3), func(context.Context) error {
			called = true
			close(began)
			<-s.resumed
			return nil
		})
		if !called {
			close(began)
			err = errTooBusy
		}
		back <- err
	}()
	<-began
}

// startAnew starts a run on a device that has others in flight.
func (s *suspension) startAnew() {
	s.start = seenStart{Called: s.at}
	err := s.guard.Run(context.Background(), deviceName(0), func(ctx context.Context) error {
		d, _ := guard.DecisionFrom(ctx)
		s.start.RequestID = d.RequestID
		return nil
	})
	if s.start.RequestID == "" {
		s.start.RequestID = fmt.Sprint("none: ", err)
	}
}

// afterLeap judges what became of the runs whose line has passed.
func (s sightings) afterLeap(p *suspension) (found findings) {
	resumed := p.at
	for _, w := range p.runs {
		within := follow
		if w.Part == partChecks {
			within = 0
		}
		told := w.Told
		if told.IsZero() {
			told = w.Left
		}
		late := told.Sub(resumed)
		machine := missing(s.Looks, resumed, told)
		if p.still {
			found.resumed = append(found.resumed, late)
		} else {
			found.late, found.machine = append(found.late, late), append(found.machine, machine)
		}
		switch {
		case late > within+tolerance+machine:
			found.complainf("%s: told to stop %v after the machine was resumed (the machine: %v): S6", w, late, machine)
		case !w.Denied:
			found.complainf("%s: Run returned %q after the line had passed", w, w.Err)
		}
		if !w.LastYes.Before(resumed) {
			found.complainf("%s: Checkpoint said yes %v after the machine was resumed: S6", w, w.LastYes.Sub(resumed))
		}
	}
	denied := (*guard.DeniedError)(nil)
	if p.returned != errTooBusy && (!errors.As(p.returned, &denied) || !denied.InFlight) {
		found.complainf("a function that came back after its line: Run returned %v: S6", p.returned)
	}
	return found
}

// afterNap judges runs whose line has not passed: the authority is well, and nobody is to be stopped.
func (s sightings) afterNap(p *suspension, length time.Duration) (found findings) {
	for _, w := range p.runs {
		if !w.Told.IsZero() || w.Err != "<nil>" {
			found.complainf("%s: stopped by a suspension of %v, with %q", w, length, w.Err)
		}
	}
	if p.returned != nil && p.returned != errTooBusy {
		found.complainf("a function that came back after a suspension of %v: Run returned %v", length, p.returned)
	}
	return found
}

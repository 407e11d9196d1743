package cronwrap_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/guard"
)

// Everything at once: Add, Remove, runs by hand, Stop and Start, revocations; no run begins while the device is denied or
// Stop has returned and Start has not been called, no run outlives Stop, and all the counts come back to nothing.
func TestStress(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { stress(t, rand.New(rand.NewPCG(seed, 4))) })
		})
	}
}

func stress(t *testing.T, random *rand.Rand) {
	f := newFixture(t)
	c := newCron(t, cron.WithChain(cronwrap.SkipIfStillRunning(cron.DiscardLogger)))
	var running, begun atomic.Int64
	var denied atomic.Bool
	work := func(ctx context.Context) error {
		if denied.Load() {
			t.Errorf("a run has begun at %v while the device was denied", time.Now())
		}
		running.Add(1)
		defer running.Add(-1)
		switch begun.Add(1) % 7 {
		case 0:
			panic("boom")
		case 1, 2, 3:
			select {
			case <-ctx.Done():
			case <-time.After(90 * time.Second):
			}
		case 4:
			return errors.New("own")
		}
		return nil
	}
	var jobs []cron.Job
	for i := range 6 {
		opts := []cronwrap.Option{cronwrap.WithName(fmt.Sprint(i)), cronwrap.WithErrorHandler(func(error) {})}
		if i%2 == 0 {
			opts = append(opts, cronwrap.WithCatchUp())
		}
		jobs = append(jobs, kinds[i%len(kinds)].job(f, work, opts...))
	}
	for _, j := range jobs {
		add(t, c, "0 0 0 1 1 *", j) // so that Stop finds it, whatever is removed
	}
	var wg sync.WaitGroup
	var ids []cron.EntryID
	c.Start()
	for range 300 {
		pass(random64(random, 40*time.Second) + 1)
		j := jobs[random.IntN(len(jobs))]
		switch random.IntN(9) {
		case 0, 1:
			ids = append(ids, add(t, c, "*/20 * * * * *", j))
		case 2:
			if len(ids) > 3 {
				c.Remove(ids[0])
				ids = ids[1:]
			}
		case 3, 4:
			wg.Go(j.Run)
		case 5:
			denied.Store(true)
			f.deny(t, guard.CodeDeviceRevoked)
		case 6, 7:
			denied.Store(false)
			f.allow()
		case 8:
			wg.Go(func() { _ = stopWithin(time.Second, c) }) // two at once
			if err := stopWithin(time.Minute, c); err != nil {
				t.Errorf("Stop: %v", err)
			}
			synctest.Wait()
			before := begun.Load()
			pass(time.Minute + time.Second)
			if n := begun.Load() - before; n > 0 && len(ids) == 0 {
				t.Errorf("%d runs have begun after Stop", n)
			}
			c.Start()
		}
	}
	denied.Store(false)
	f.allow()
	pass(time.Hour) // what was removed while it waited is caught up, and by hand all comes to an end
	stop(t, c)
	wg.Wait()
	if n := running.Load(); n != 0 {
		t.Errorf("%d runs go on", n)
	}
	if begun.Load() < 300 {
		t.Errorf("%d runs in all: nothing was tested", begun.Load())
	}
	wantIdle(t, f)
}

func random64(r *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(most)))
}

// The same calls in real time, on all processors, for the race detector: fake time lets them meet too politely.
func TestConcurrency(t *testing.T) {
	f := newFixture(t, guard.WithInterval(5*time.Millisecond), guard.WithTimeout(time.Second))
	c := newCron(t, cron.WithChain(cronwrap.SkipIfStillRunning(cron.DiscardLogger)))
	running := new(atomic.Int64)
	work := func(ctx context.Context) error {
		running.Add(1)
		defer running.Add(-1)
		if _, ok := cronwrap.Scheduled(ctx); !ok && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return guard.Checkpoint(ctx)
	}
	exact, other := f.exact(work, cronwrap.WithCatchUp()), f.job(work)
	nested := f.wrap()(exact)
	c.Start()
	var wg sync.WaitGroup
	for _, call := range []func(){
		exact.Run, other.Run, nested.Run,
		func() {
			for _, j := range []cron.Job{exact, other, nested} {
				id, err := cronwrap.Add(c, "* * * * * *", j)
				if err != nil {
					t.Error(err)
				}
				e := c.Entry(id)
				_ = e.Schedule.Next(time.Now())
				e.Job.Run()
				e.WrappedJob.Run()
				_ = fmt.Sprintf("%v %+v", e, e)
				c.Remove(id)
			}
		},
		func() { _ = stopWithin(time.Millisecond, c); c.Start() },
		func() { f.script.Deny(device, guard.CodeDeviceRevoked); _, _ = f.Validate(t.Context(), device) },
		func() { f.allow(); f.Hint(device) },
	} {
		for range 2 {
			wg.Go(func() {
				for range 60 {
					call()
				}
			})
		}
	}
	wg.Wait()
	f.allow()
	for _, j := range []cron.Job{exact, other, nested} {
		add(t, c, "* * * * * *", j)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := cronwrap.Stop(ctx, c); err != nil {
		t.Errorf("Stop: %v", err)
	}
	if n := running.Load(); n != 0 {
		t.Errorf("%d runs go on", n)
	}
}

package guard_test

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
)

// BenchmarkWatch is what it takes to go on asking while work is in flight.
func BenchmarkWatch(b *testing.B) {
	b.Run("100k-runs-of-1k", benchFleet)
	b.Run("bare-1k", benchBare)
	b.Run("idle-100k-devices", benchIdle)
}

// How the devices are watched, and how many intervals are looked at.
const (
	watchInterval = time.Second
	watchLooks    = 5
)

// benchFleet has 100k runs of 1000 devices in flight, which are validated once a second over
// loopback HTTP.
func benchFleet(b *testing.B) {
	ids := deviceIDs(1000)
	log := &watchLog{client: newWireClient(b), began: time.Now()}
	others := runtime.NumGoroutine() + many
	g := benchGuard(b, log, guard.WithInterval(watchInterval))
	f, release := launchIdle(b, g.Run)
	defer release()
	for some := range slices.Chunk(ids, 100) { // in quick succession: it is the guard that has to spread them
		f.launchMany(some, len(some))
	}
	for i := range ids {
		f.launchMany(ids[i:i+1], many/len(ids)-1)
	}
	benchWatch(b, log, others)
}

// benchBare has the validator alone called as often, in the order of the devices: what of the
// figures is net/http's and the machine's.
func benchBare(b *testing.B) {
	ids := deviceIDs(1000)
	log := &watchLog{client: newWireClient(b), began: time.Now()}
	ctx, stop := context.WithCancel(context.Background())
	var asking sync.WaitGroup
	defer asking.Wait()
	defer stop()
	others := runtime.NumGoroutine()
	asking.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			due := watchInterval / time.Duration(len(ids)) * time.Duration(i)
			<-time.After(due - time.Since(log.began))
			asking.Go(func() {
				if _, err := log.Validate(ctx, ids[i%len(ids)]); err != nil && ctx.Err() == nil {
					b.Error(err)
				}
			})
		}
	})
	benchWatch(b, log, others)
}

// benchWatch looks on when each device has been asked about in its turn, which it keeps.
func benchWatch(b *testing.B, log *watchLog, others int) {
	b.Helper()
	<-time.After(watchInterval + watchInterval/2)
	figures := watchFigures{}
	for b.Loop() {
		for range watchLooks {
			figures.lookOn(log, watchInterval, others)
		}
	}
	figures.report(b)
}

// benchIdle has one idle run of each of 100k devices. B/device is what is left of that when as many
// runs of a single device are taken off, B/device+run when as many goroutines are that wait for
// the same.
func benchIdle(b *testing.B) {
	ids := deviceIDs(many)
	guarded := func(ids []string) float64 {
		g := benchGuard(b, new(inProcess), guard.WithInterval(undisturbed))
		return idleFootprint(b, g.Run, ids)
	}
	bare := func(ctx context.Context, _ string, fn func(context.Context) error) error { return fn(ctx) }
	guarded(ids) // so that from here on goroutines are used again

	var device, run float64
	for b.Loop() {
		all := guarded(ids)
		device += (all - guarded(ids[:1])) / many
		run += (all - idleFootprint(b, bare, ids)) / many
	}
	b.ReportMetric(device/float64(b.N), "B/device")
	b.ReportMetric(run/float64(b.N), "B/device+run")
	b.ReportMetric(0, "ns/op")
}

// launchIdle prepares a flight whose runs wait to be released, and do not ask their contexts for
// anything.
func launchIdle(b *testing.B, run runFunc) (f *flight, release func()) {
	b.Helper()
	over := make(chan struct{})
	f = &flight{b: b, run: run, parent: context.Background(), landed: wasFinished}
	f.fn = func(context.Context) error {
		f.running.Done()
		<-over
		return nil
	}
	return f, func() {
		close(over)
		f.ended.Wait()
	}
}

// idleFootprint returns how many bytes of heap idle runs of the devices hold.
func idleFootprint(b *testing.B, run runFunc, ids []string) float64 {
	b.Helper()
	f, release := launchIdle(b, run)
	defer release()
	heap, _ := footprint(func() { f.launchMany(ids, many) })
	return heap
}

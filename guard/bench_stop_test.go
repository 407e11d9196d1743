package guard_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"
)

// BenchmarkStop is what the guard adds to its bounds (B4): from the instant at which the denial
// has come, with n runs of one device in flight, until the last function has returned. Beside it
// the floor: as many goroutines that wake up because a channel was closed.
func BenchmarkStop(b *testing.B) {
	for _, n := range []int{1, 1000, many} {
		b.Run(fmt.Sprintf("guard/%d", n), func(b *testing.B) {
			rounds(b, n, "ns/run", func() time.Duration { return stopRuns(b, n) })
		})
		b.Run(fmt.Sprintf("floor/%d", n), func(b *testing.B) {
			rounds(b, n, "ns/run", func() time.Duration { return wakeGoroutines(n) })
		})
	}
}

func stopRuns(b *testing.B, n int) time.Duration {
	b.Helper()
	parent, stop := context.WithCancel(context.Background())
	defer stop()
	s := newSquadron(b, parent)
	s.untilCancelled()
	ids := deviceIDs(1)
	s.launchMany(ids, n)
	collectBefore(n)
	came := s.deny(ids)
	s.ended.Wait()
	return time.Since(came)
}

func wakeGoroutines(n int) time.Duration {
	stop := make(chan struct{})
	var running, ended sync.WaitGroup
	running.Add(n)
	for range n {
		ended.Go(func() {
			running.Done()
			<-stop
		})
	}
	running.Wait()
	collectBefore(n)
	began := time.Now()
	close(stop)
	ended.Wait()
	return time.Since(began)
}

// collectBefore collects the garbage before a step that is long enough to meet a collection, and
// leaves a short one alone: it would find its core asleep.
func collectBefore(n int) {
	if n >= many {
		runtime.GC()
	}
}

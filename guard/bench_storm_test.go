package guard_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkStorm is the denial of 100k runs of one device that nobody waits on, each under a
// parent that never ends: from the answer having come until every run has been told. In «asked»
// each run has asked its context for Done, as one does that waits.
func BenchmarkStorm(b *testing.B) {
	b.Run("100k", func(b *testing.B) { benchStorm(b, func(context.Context) {}) })
	b.Run("100k-asked", func(b *testing.B) { benchStorm(b, func(ctx context.Context) { ctx.Done() }) })
}

func benchStorm(b *testing.B, ask func(context.Context)) {
	b.Helper()
	const each = 5 // storms in a round, which is their mean: one takes far less time than what prepares it
	contexts := make([]context.Context, many)
	rounds(b, many, "ns/run", func() (spent time.Duration) {
		for range each {
			spent += storm(b, contexts, ask)
		}
		return spent / each
	})
}

// storm has runs in flight that leave their contexts in contexts and do nothing until they have
// all been denied.
func storm(b *testing.B, contexts []context.Context, ask func(context.Context)) time.Duration {
	b.Helper()
	over := make(chan struct{})
	var next atomic.Int64
	s := newSquadron(b, context.Background())
	s.fn = func(ctx context.Context) error {
		ask(ctx)
		contexts[next.Add(1)-1] = ctx
		s.running.Done()
		<-over
		return nil
	}
	ids := deviceIDs(1)
	s.launchMany(ids, len(contexts))
	runtime.GC()
	spent := -time.Until(s.deny(ids))
	for _, ctx := range contexts { // at once: nobody may be told only later
		if ctx.Err() == nil || !closed(ctx.Done()) {
			b.Fatal("a run was not told")
		}
	}
	close(over)
	s.ended.Wait()
	return spent
}

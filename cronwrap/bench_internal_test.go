package cronwrap

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// BenchmarkCronTick is BenchmarkCronChain/lease for a tick of a job that Add has added: with a look at the stack, on a
// goroutine that cron has started, and the tick's time in the context. It is internal because only cron can
// make a tick, and makes one a second.
func BenchmarkCronTick(b *testing.B) {
	const longest = 24 * time.Hour
	g, err := guard.New(guardtest.NewValidator("a"), guard.WithInterval(longest), guard.WithReuse(longest))
	if err != nil {
		b.Fatal(err)
	}
	defer g.Close()
	if d, err := g.Validate(b.Context(), "a"); err != nil || !d.Allowed {
		b.Fatalf("Validate: %+v, %v", d, err)
	}
	c := cron.New(cron.WithLogger(cron.DiscardLogger))
	id, err := Add(c, "@yearly", Job(g, "a", func(context.Context) error { return nil }))
	if err != nil {
		b.Fatal(err)
	}
	e, ok := c.Entry(id).Job.(*entry)
	if !ok {
		b.Fatalf("added as %T", c.Entry(id).Job)
	}
	at, done := time.Now().Round(0), make(chan struct{})
	var once sync.Once
	c.Schedule(cron.Every(time.Second), cron.FuncJob(func() {
		once.Do(func() {
			defer close(done)
			b.ReportAllocs()
			for b.Loop() {
				e.times.fired = at
				e.Run()
			}
		})
	}))
	c.Start()
	<-done
	<-c.Stop().Done()
}

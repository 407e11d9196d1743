package cronwrap_test

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// undisturbed is an interval in which no benchmark meets a renewal: the longest that there is.
const undisturbed = 24 * time.Hour

// lease is a guard on whose permission every tick can start.
func lease(b *testing.B) *guard.Guard {
	b.Helper()
	g, err := guard.New(guardtest.NewValidator(device), guard.WithInterval(undisturbed), guard.WithReuse(undisturbed))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = g.Close() })
	if d, err := g.Validate(b.Context(), device); err != nil || !d.Allowed {
		b.Fatalf("Validate: %+v, %v", d, err)
	}
	return g
}

// bareRun is what the guard itself takes of all that.
func bareRun(g *guard.Guard) cron.Job {
	return cron.FuncJob(func() { _ = g.Run(context.Background(), device, nothing) })
}

func nothing(context.Context) error { return nil }

// cancellable is the least that a layer costs which can end a run.
func cancellable(j cron.Job) cron.Job {
	return cron.FuncJob(func() {
		_, cancel := context.WithCancelCause(context.Background())
		defer cancel(nil)
		j.Run()
	})
}

// BenchmarkCronChain is one firing of a job: through cron's own wrappers, with the least that a layer costs which
// can end a run, and guarded, on a permission that may be reused.
func BenchmarkCronChain(b *testing.B) {
	plain := cron.FuncJob(func() {})
	quiet := cronwrap.Logger(slog.New(slog.DiscardHandler))
	for _, c := range []struct {
		name  string
		chain cron.Chain
		job   cron.Job
	}{
		{"bare", cron.NewChain(), plain},
		{"WithCancelCause", cron.NewChain(cancellable), plain},
		{"Recover+SkipIfStillRunning", cron.NewChain(cron.Recover(quiet), cron.SkipIfStillRunning(quiet)), plain},
		{"Guard.Run", cron.NewChain(), bareRun(lease(b))},
		{"lease", cron.NewChain(), cronwrap.Job(lease(b), device, nothing)},
		{"lease-New", cron.NewChain(cronwrap.New(lease(b), device)), plain},
		{"lease+SkipIfStillRunning", cron.NewChain(cronwrap.SkipIfStillRunning(quiet)), cronwrap.Job(lease(b), device, nothing)},
	} {
		b.Run(c.name, func(b *testing.B) {
			wrapped := c.chain.Then(c.job)
			b.ReportAllocs()
			for b.Loop() {
				wrapped.Run()
			}
		})
	}
}

// BenchmarkCronChainAgainstFloor fires a guarded job and one in the least that can end a run in turns, so that whatever
// else the machine does meets both, and reports how many times the latter's time the former takes.
func BenchmarkCronChainAgainstFloor(b *testing.B) {
	plain := cron.FuncJob(func() {})
	for _, s := range []struct {
		name string
		job  cron.Job
	}{
		{"Guard.Run", bareRun(lease(b))}, {"Job", cronwrap.Job(lease(b), device, nothing)}, {"New", cronwrap.New(lease(b), device)(plain)},
	} {
		b.Run(s.name, func(b *testing.B) {
			const firings, blocks = 200, 500
			pair, first := [2]cron.Job{cancellable(plain), s.job}, 0
			var spent [2]time.Duration
			for b.Loop() {
				for range blocks {
					for _, i := range []int{first, 1 - first} {
						began := time.Now()
						for range firings {
							pair[i].Run()
						}
						spent[i] += time.Since(began)
					}
					first = 1 - first
				}
			}
			b.ReportMetric(0, "ns/op") // a block's time says nothing
			b.ReportMetric(float64(spent[1])/float64(spent[0]), "x-floor")
		})
	}
}

// BenchmarkCronFiring has a thousand entries due at the same second and reports how late the jobs begin, bare and
// guarded, each of them asking an authority in process: by then every one has been asked about that begins.
func BenchmarkCronFiring(b *testing.B) {
	const entries = 1000
	g, err := guard.New(guardtest.NewValidator(device), guard.WithInterval(undisturbed))
	if err != nil {
		b.Fatal(err)
	}
	defer g.Close()
	leased := lease(b)
	for _, s := range []struct {
		name string
		job  func(note func()) cron.Job
	}{
		{"bare", func(note func()) cron.Job { return cron.FuncJob(note) }},
		{"asking", func(note func()) cron.Job {
			return cronwrap.Job(g, device, func(context.Context) error { note(); return nil })
		}},
		{"lease", func(note func()) cron.Job {
			return cronwrap.Job(leased, device, func(context.Context) error { note(); return nil })
		}},
	} {
		b.Run(s.name, func(b *testing.B) {
			late := make(chan time.Duration, 10*entries)
			c := cron.New(cron.WithLogger(cron.DiscardLogger))
			for range entries {
				note := func() { late <- time.Duration(time.Now().Nanosecond()) } // it was due on the second
				if _, err := cronwrap.Add(c, "@every 1s", s.job(note)); err != nil {
					b.Fatal(err)
				}
			}
			var all []time.Duration
			for b.Loop() {
				c.Start()
				for range entries {
					all = append(all, <-late)
				}
				<-c.Stop().Done()
				for len(late) > 0 {
					<-late
				}
			}
			slices.Sort(all)
			b.ReportMetric(0, "ns/op") // most of it is the wait for the second
			b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-late-µs")
			b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-late-µs")
		})
	}
}

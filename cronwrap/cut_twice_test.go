package cronwrap_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/guard"
)

// Of two runs that were cut, the one that ends first waits for both, and takes the time of the other, which is the later.
func TestTimeOfTwoRunsThatWereCut(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		f, c, seen := newFixture(t), newCron(t), &runs{}
		add(t, c, "0 0 * * * *", k.job(f, func(ctx context.Context) error {
			seen.note(ctx)
			if seen.count() > 2 {
				return nil
			}
			began := time.Now()
			<-ctx.Done()
			if time.Since(began) < time.Hour {
				time.Sleep(time.Second) // the later one ends later
			}
			return ctx.Err()
		}, cronwrap.WithCatchUp()))
		c.Start()
		pass(2*time.Hour + time.Minute)
		f.deny(t, guard.CodePlanFrozen)
		pass(time.Minute)
		f.allow()
		pass(10 * time.Minute)
		wantTimes(t, seen.scheduled(), day(1, 0, 0), day(2, 0, 0), day(2, 0, 0))
		stop(t, c)
	})
}

// An error handler that panics, and a log that panics when it is told: nothing of that comes out of Run.
func TestPanicOfTheErrorHandlerAndOfTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		cronwrap.Job(f, device, func(context.Context) error { return errors.New("own") },
			cronwrap.WithLogger(slog.New(deaf{})), cronwrap.WithErrorHandler(func(error) { panic("the handler") })).Run()
		wantIdle(t, f)
	})
}

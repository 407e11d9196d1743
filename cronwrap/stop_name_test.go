package cronwrap_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/cronwrap"
)

// Stop names all jobs that still run, one after the other.
func TestStopNamesThemAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, release := newFixture(t), newCron(t), make(chan struct{})
		for _, name := range []string{"one", "other"} {
			add(t, c, "0 0 * * * *", f.job(func(context.Context) error {
				<-release
				return nil
			}, cronwrap.WithName(name)))
		}
		c.Start()
		pass(time.Hour + time.Minute)
		err := stopWithin(time.Minute, c)
		if text := fmt.Sprint(err); !strings.Contains(text, `"one", "other"`) && !strings.Contains(text, `"other", "one"`) {
			t.Errorf("err = %v", err)
		}
		close(release)
		stop(t, c)
	})
}

// Stop finds a job inside of SkipIfStillRunning, whether that was added or stands in the chain, and cancels its run.
func TestStopFindsAJobInsideOfASkip(t *testing.T) {
	skip := cronwrap.SkipIfStillRunning(cron.DiscardLogger)
	for name, put := range map[string]func(t *testing.T, f fixture, fn func(context.Context) error) *cron.Cron{
		"added": func(t *testing.T, f fixture, fn func(context.Context) error) *cron.Cron {
			c := newCron(t)
			add(t, c, "0 0 * * * *", skip(f.job(fn)))
			return c
		},
		"added as cron does": func(t *testing.T, f fixture, fn func(context.Context) error) *cron.Cron {
			c := newCron(t)
			addBare(t, c, "0 0 * * * *", skip(f.job(fn)))
			return c
		},
		"New's, in the chain": func(t *testing.T, f fixture, fn func(context.Context) error) *cron.Cron {
			c := newCron(t, cron.WithChain(skip, f.wrap()))
			addBare(t, c, "0 0 * * * *", f.job(fn))
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, seen := newFixture(t), &runs{}
				c := put(t, f, func(ctx context.Context) error {
					seen.note(ctx)
					return obey(ctx)
				})
				c.Start()
				pass(time.Hour + time.Minute)
				stop(t, c)
				if seen.count() != 1 {
					t.Errorf("%d runs", seen.count())
				}
			})
		})
	}
}

// A job that was added twice, and is stuck, is one job to Stop, which names it once; and a Stop that has less
// time than it would give one that came too late takes just that.
func TestStopNamesAJobOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, release := newFixture(t), newCron(t), make(chan struct{})
		j := f.job(func(context.Context) error {
			<-release
			return nil
		})
		add(t, c, "0 0 * * * *", j)
		add(t, c, "0 30 * * * *", j)
		c.Start()
		pass(2 * time.Hour)
		began := time.Now()
		err := stopWithin(time.Millisecond, c)
		if took := time.Since(began); err == nil || strings.Count(err.Error(), "entry ") != 1 || took != time.Millisecond {
			t.Errorf("err = %v after %v", err, took)
		}
		close(release)
		stop(t, c)
	})
}

package cronwrap_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/guard"
)

// What Add could not do it says, and it gives no id for it.
func TestAddSaysWhatIsWrong(t *testing.T) {
	c, j := newCron(t), cronwrap.Job(runnerFunc(nil2), device, obey)
	spec := newCron(t, cron.WithParser(cron.NewParser(cron.Minute)))
	_, own := spec.AddJob("@hourly", j)
	for name, test := range map[string]struct {
		cron *cron.Cron
		job  cron.Job
		want string
	}{
		"a spec":      {spec, j, own.Error()},
		"no Cron":     {nil, j, "cronwrap: the Cron is nil"},
		"no job":      {c, nil, "cronwrap: the cron.Job is nil"},
		"no schedule": {newCron(t, cron.WithParser(silent{})), j, "cronwrap: the entry was removed while it was being added"},
	} {
		id, err := cronwrap.Add(test.cron, "@hourly", test.job)
		if id != 0 || err == nil || err.Error() != test.want {
			t.Errorf("%s: id %d, err = %v, want: %s", name, id, err, test.want)
		}
	}
}

// silent is a parser that makes nothing of a spec, and does not say so: as far as Add can see, the entry is gone.
type silent struct{}

func (silent) Parse(string) (cron.Schedule, error) { return nil, nil } //nolint:nilnil // that is what it is for

// An entry prints as what it was made of, with every verb: cron's own log shows entries (S8).
func TestEntriesPrintWhatTheyAreMadeOf(t *testing.T) {
	f, bare := newFixture(t), newCron(t)
	for want, j := range map[string]cron.Job{
		`cronwrap.Job("report")`: f.job(obey, cronwrap.WithName("report")),
		`cronwrap.New("report")`: f.wrap(cronwrap.WithName("report"))(cron.FuncJob(func() {})),
		"cronwrap.Job":           f.job(obey),
	} {
		c := newCron(t)
		e, plain := c.Entry(add(t, c, "0 0 * * * *", j)), bare.Entry(addBare(t, bare, "0 0 * * * *", j))
		if got := fmt.Sprintf("%v|%#v|%v|%#v", j, j, e.Job, e.Job); got != strings.Join(slices.Repeat([]string{want}, 4), "|") {
			t.Errorf("printed %s, want %s", got, want)
		}
		schedule := fmt.Sprint(plain.Schedule)
		if got := fmt.Sprintf("%v|%#v", e.Schedule, e.Schedule); got != schedule+"|"+schedule {
			t.Errorf("printed %s, want %s", got, schedule)
		}
	}
}

// A panic's value is printed where the runtime would print it, and %#v shows no more.
func TestPanicsArePrintedAsTheRuntimeDoes(t *testing.T) {
	type secret struct{ text string }
	type number int
	type word string
	for want, value := range map[string]any{
		`"boom"`:                          "boom",
		"out of order":                    errors.New("out of order"),
		"1s":                              time.Second,
		"bool(true)":                      true,
		"int(7)":                          7,
		"complex128((1+2i))":              1 + 2i,
		"cronwrap_test.number(8)":         number(8),
		"cronwrap_test.word(nine)":        word("nine"),
		"cronwrap_test.secret":            secret{"hush"},
		"*cronwrap_test.secret":           &secret{"hush"},
		"[]string":                        []string{"hush"},
		"func()":                          func() {},
		"map[string]string":               map[string]string{"hush": "hush"},
		"chan int":                        make(chan int),
		"cronwrap: a handler's own error": errors.New("cronwrap: a handler's own error"),
	} {
		synctest.Test(t, func(t *testing.T) {
			f, seen := newFixture(t), &errorsSeen{}
			f.job(func(context.Context) error { panic(value) }, cronwrap.WithErrorHandler(seen.handle)).Run()
			text := "cronwrap: the job panicked: " + want
			f.log.want(t, slog.LevelError, "the job panicked", "error", text)
			if all := seen.list(); len(all) != 1 || fmt.Sprintf("%v|%#v", all[0], all[0]) != text+"|"+text {
				t.Errorf("handled %v, want %s", all, text)
			}
		})
	}
}

// A panic of the error handler is told of with its stack, and with what it was to handle.
func TestPanicOfTheErrorHandlerIsToldInFull(t *testing.T) {
	f := newFixture(t)
	f.job(func(context.Context) error { return errors.New("the disk is full") },
		cronwrap.WithErrorHandler(func(error) { panic("no memory") })).Run()
	r := f.log.want(t, slog.LevelError, "the error handler panicked", "error", "the disk is full", "panic", `"no memory"`)
	if !strings.Contains(r.attrs["stack"], "said_test.go") {
		t.Errorf("logged: %v", r.attrs)
	}
}

// A record has the keys that WithLogger names «where there is something to say», and no empty ones.
func TestKeysOfARecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.job(func(context.Context) error { return errors.New("own") }).Run()
		f.deny(t, guard.CodeDeviceRevoked)
		f.job(obey).Run()
		f.wrap(cronwrap.WithName("plain"))(cron.FuncJob(func() {})).Run()
		_ = f.Close()
		f.job(obey).Run()
		var got []string
		for _, r := range f.log.find("") {
			got = append(got, strings.Join(slices.Sorted(maps.Keys(r.attrs)), " "))
		}
		want := []string{"device error", "code device error request_id", "code device error job request_id", "device error"}
		if !slices.Equal(got, want) {
			t.Errorf("logged the keys %q, want %q", got, want)
		}
		f.log.want(t, slog.LevelWarn, "guard closed: skipped", "error", guard.ErrClosed.Error())
	})
}

// What a stopped run has returned is logged beside the denial, if it says anything that the denial does not.
func TestErrorOfARunThatIsToBeCaughtUp(t *testing.T) {
	own := errors.New("the disk is full")
	for name, test := range map[string]struct {
		work func(ctx context.Context) error
		tail string
	}{
		"nothing":             {func(context.Context) error { return nil }, ""},
		"its context's end":   {context.Context.Err, ""},
		"the denial":          {guard.Checkpoint, ""},
		"an error of its own": {func(context.Context) error { return own }, "; the function returned: the disk is full"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, c, seen := newFixture(t), newCron(t), &runs{}
				f.script.Deny(device, guard.CodeDeviceRevoked)
				add(t, c, "0 0 12 * * *", f.exact(func(ctx context.Context) error {
					seen.note(ctx)
					<-ctx.Done()
					return test.work(ctx)
				}, cronwrap.WithCatchUp()))
				c.Start()
				pass(12*time.Hour + time.Minute)
				f.allow()
				pass(time.Minute)
				_ = f.deny(t, guard.CodePlanFrozen)
				pass(time.Second)
				stop(t, c)
				r := f.log.want(t, slog.LevelWarn, "denied while it ran: stopped, to be caught up", "code", "PLAN_FROZEN")
				text, tail, _ := strings.Cut(r.attrs["error"], ";")
				if tail != strings.TrimPrefix(test.tail, ";") || !strings.Contains(text, "PLAN_FROZEN") || seen.count() != 1 {
					t.Errorf("logged %q after %d runs, want it to end with %q", r.attrs["error"], seen.count(), test.tail)
				}
			})
		})
	}
}

package guard_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// journal is a slog.Handler that keeps what the guard logs.
type journal struct {
	level slog.LevelVar
	mu    sync.Mutex
	lines []line
}

// line is one record.
type line struct {
	at                  time.Time
	level               slog.Level
	phase, code, device string
	count               uint64
}

func (j *journal) Enabled(_ context.Context, l slog.Level) bool { return l >= j.level.Level() }
func (j *journal) WithAttrs([]slog.Attr) slog.Handler           { return j }
func (j *journal) WithGroup(string) slog.Handler                { return j }

func (j *journal) Handle(_ context.Context, r slog.Record) error {
	l := line{at: time.Now(), level: r.Level}
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "phase":
			l.phase = a.Value.String()
		case "code":
			l.code = a.Value.String()
		case "device":
			l.device = a.Value.String()
		case "count":
			l.count = a.Value.Uint64()
		}
		return true
	})
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, l)
	return nil
}

// take returns what was logged since it was last called, in some phases, or in all.
func (j *journal) take(phases ...string) []line {
	synctest.Wait()
	j.mu.Lock()
	defer j.mu.Unlock()
	lines := j.lines
	j.lines = nil
	return slices.DeleteFunc(lines, func(l line) bool { return len(phases) > 0 && !slices.Contains(phases, l.phase) })
}

func logging(t *testing.T, a *authority, level slog.Level, opts ...guard.Option) (*guard.Guard, *journal) {
	t.Helper()
	j := &journal{}
	j.level.Set(level)
	return newGuard(t, a, append(opts, guard.WithLogger(slog.New(j)))...), j
}

func runs(t *testing.T, g *guard.Guard, device string) {
	t.Helper()
	if err := g.Run(t.Context(), device, func(context.Context) error { return nil }); err != nil {
		t.Fatal(err)
	}
}

// A fleet that is refused ten times a second while the authority is down: ten records a minute and one
// that tells of the others, and nothing is lost of the count.
func TestLogger_AnOutageDoesNotFillADisk(t *testing.T) {
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelWarn} {
		bubble(t, level.String(), func(t *testing.T) {
			a := newAuthority()
			events := &diary{}
			g, j := logging(t, a, level, guard.WithObserver(events.observe))
			a.fail(errors.New("connection refused"))
			const minutes = 5
			for i := range minutes * 60 * 10 {
				refuse(t, g, fmt.Sprint(i%500))
				time.Sleep(100 * time.Millisecond)
			}
			a.allow()
			time.Sleep(time.Minute)
			runs(t, g, "d") // whatever happens next tells the rest, though it is not logged itself
			var logged, told uint64
			perMinute := map[time.Time]int{}
			for _, l := range j.take("refused", "validated", "suppressed") {
				if l.level != slog.LevelWarn {
					continue // the answers, for debugging
				}
				perMinute[l.at.Truncate(time.Minute)]++
				if l.phase == "suppressed" {
					told += l.count
				} else {
					logged++
				}
				if l.code != string(guard.CodeSystemUnavailable) || (l.device == "") != (l.phase == "suppressed") {
					t.Errorf("%+v", l)
				}
			}
			for minute, n := range perMinute {
				if n > 11 {
					t.Errorf("%d records in the minute from %v", n, minute)
				}
			}
			happened := 0
			for _, e := range events.read(guard.EventRefused, guard.EventValidated) {
				if e.Decision.Code == guard.CodeSystemUnavailable {
					happened++
				}
			}
			if happened != 2*minutes*60*10 || logged != 10*minutes || logged+told != uint64(happened) {
				t.Errorf("%d happened, %d were logged and %d told of", happened, logged, told)
			}
		})
	}
}

// What an authority has decided is logged for each device: once, until it changes.
func TestLogger_TheFirstRefusalOfEachDeviceIsAlwaysLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g, j := logging(t, a, slog.LevelWarn)
		want := func(what string, n int, code guard.Code) {
			t.Helper()
			lines := j.take("refused")
			seen := map[string]bool{}
			for _, l := range lines {
				seen[l.device] = true
				if l.code != string(code) {
					t.Errorf("%s: %+v", what, l)
				}
			}
			if len(lines) != n || len(seen) != n {
				t.Errorf("%s: %d records of %d devices, want %d", what, len(lines), len(seen), n)
			}
		}
		all := make([]string, 300)
		for i := range all {
			all[i] = fmt.Sprint(i)
		}
		a.deny(guard.CodeDeviceRevoked)
		refuse(t, g, all...)
		want("the first time", 300, guard.CodeDeviceRevoked)
		for range 6 {
			refuse(t, g, all...)
			time.Sleep(9 * time.Minute)
		}
		want("again and again", 0, "")
		a.deny(guard.CodeDeviceNotFound)
		refuse(t, g, all...)
		refuse(t, g, all...)
		want("with another code", 300, guard.CodeDeviceNotFound)
		a.allow("7")
		runs(t, g, "7")
		a.deny(guard.CodeDeviceNotFound)
		refuse(t, g, all...)
		want("one was allowed in between", 1, guard.CodeDeviceNotFound)
		time.Sleep(6 * time.Minute)
		refuse(t, g, all...)
		want("an hour later", 300, guard.CodeDeviceNotFound)
		refuse(t, g, all...)
		want("and again", 0, "")
	})
}

// A wave of failures hides no decision and no closing, nor the other way round.
func TestLogger_OneKindOfWarningDoesNotHideAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g, j := logging(t, a, slog.LevelWarn)
		a.fail(errors.New("connection refused"))
		for range 100 {
			refuse(t, g, "d")
		}
		a.deny("STRANGE_1", "s1")
		a.deny("STRANGE_2", "s2")
		refuse(t, g, "s1", "s1", "s2", "s2", "s2")
		_ = g.Close()
		for range 100 {
			_ = g.Run(t.Context(), "d", mustNotRun(t))
		}
		logged := map[string]int{}
		for _, l := range j.take("refused") {
			logged[l.code]++
		}
		// Of ten records, some are of answers and not of refusals.
		if n := logged["SYSTEM_UNAVAILABLE"]; n < 4 || n > 10 || logged["STRANGE_1"] != 1 || logged["STRANGE_2"] != 1 || logged[""] != 10 {
			t.Errorf("logged %v", logged)
		}
		time.Sleep(time.Minute)
		_ = g.Run(t.Context(), "d", mustNotRun(t))
		told := map[string]uint64{}
		for _, l := range j.take("suppressed") {
			told[l.code] += l.count
		}
		if told["SYSTEM_UNAVAILABLE"] != 190 || told["OTHER"] != 3 || told[""] != 90 || len(told) != 3 {
			t.Errorf("told %v", told)
		}
	})
}

func TestLogger_StopsAndOverrunsAreNeverHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g, j := logging(t, a, slog.LevelWarn)
		for i := range 200 {
			launchFunc(t.Context(), g, fmt.Sprint(i%20), func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(5 * time.Second)
				return nil
			})
		}
		synctest.Wait()
		a.fail(errors.New("connection refused"))
		time.Sleep(time.Minute)
		if lines := j.take("stopped"); len(lines) != 200 {
			t.Errorf("%d stops", len(lines))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g, j := logging(t, a, slog.LevelError)
		for range 200 {
			launchFunc(t.Context(), g, "d", func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(5 * time.Second)
				return nil
			})
		}
		synctest.Wait()
		a.deny(guard.CodeDeviceRevoked)
		g.Hint("d")
		time.Sleep(time.Minute)
		if lines := j.take(); len(lines) != 200 || lines[0].phase != "overran" {
			t.Errorf("%d records: %+v", len(lines), lines)
		}
	})
}

// Who wants no warnings is told of none that were held back, and uses nothing up for when he does.
func TestLogger_NothingIsHeldBackThatNobodyWants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g, j := logging(t, a, slog.LevelError)
		a.fail(errors.New("connection refused"))
		for range 100 {
			refuse(t, g, "d")
		}
		a.deny(guard.CodeDeviceRevoked)
		refuse(t, g, "d")
		synctest.Wait()
		j.level.Set(slog.LevelWarn)
		refuse(t, g, "d")
		a.fail(errors.New("connection refused"))
		for range 5 {
			refuse(t, g, "d")
		}
		time.Sleep(2 * time.Minute)
		refuse(t, g, "d")
		for i, l := range j.take() {
			if l.phase == "suppressed" || i > 12 {
				t.Errorf("%+v", l)
			}
		}
	})
}

// A handler that fails in its own way weakens nothing (the observers' rule), and what is logged at once from everywhere
// is counted to the last.
func TestLogger_AHandlerThatPanicsAndManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		j := &journal{}
		j.level.Set(slog.LevelWarn)
		first := true
		g := newGuard(t, a, guard.WithLogger(slog.New(handlerFunc{j, func() {
			if first {
				first = false
				panic("own")
			}
		}})))
		a.deny(guard.CodeDeviceRevoked, "d")
		refuse(t, g, "d")
		a.fail(errors.New("connection refused"), "x")
		refuse(t, g, "x")
		synctest.Wait()
		var wait sync.WaitGroup
		for range 50 {
			wait.Go(func() {
				for range 20 {
					_ = g.Run(t.Context(), "x", mustNotRun(t))
				}
			})
		}
		wait.Wait()
		time.Sleep(time.Minute)
		runs(t, g, "y")
		logged, told := uint64(0), uint64(0)
		for _, l := range j.take() {
			switch l.phase {
			case "suppressed":
				told += l.count
			case "refused", "validated":
				logged++
			}
		}
		asked := uint64(a.count("x"))
		if want := 1001 + asked; logged != 10 || logged+told != want {
			t.Errorf("%d logged, %d told of; want %d", logged, told, want)
		}
	})
}

// handlerFunc does something before it handles.
type handlerFunc struct {
	slog.Handler
	before func()
}

func (h handlerFunc) Handle(ctx context.Context, r slog.Record) error {
	h.before()
	return h.Handler.Handle(ctx, r)
}

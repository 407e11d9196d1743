package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
)

// story is told in chapters, each of which shows one thing that cronwrap does, and fails where it does not do
// it. The jobs and their log tell what happens, on goroutines of their own.
type story struct {
	org    *authority.Organisation
	guard  guard.Runner
	began  time.Time
	events chan event

	mu  sync.Mutex
	out io.Writer // printed to under mu
}

// event is one thing that has happened to a job.
type event struct{ job, fact string }

func newStory(out io.Writer, org *authority.Organisation, g guard.Runner) *story {
	return &story{out: out, org: org, guard: g, began: time.Now(), events: make(chan event, 1000)}
}

// tell tells all chapters, up to one that does not go as it should.
func (s *story) tell(ctx context.Context, patience time.Duration) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("something did not come, or goes on"))
	defer cancel()
	w := &works{log: slog.New(diary{s}), tell: s.notef}
	c, err := w.schedule(s.guard)
	if err != nil {
		return err
	}
	c.Start()
	defer func() { err = errors.Join(err, end(c)) }()
	for _, chapter := range []struct {
		title string
		tell  func(ctx context.Context, c *cron.Cron) error
	}{
		{"jobs run on their ticks", s.ticks},
		{"the device is revoked in mid-run, and the backup is cut", s.backupIsCut},
		{"the ticks that follow are refused", s.ticksAreRefused},
		{"the device is allowed again, and one report is caught up", s.reportIsCaughtUp},
		{"Stop cancels what runs, and waits for it", s.stop},
	} {
		s.print("\n--- " + chapter.title)
		if err := chapter.tell(ctx, c); err != nil {
			return fmt.Errorf("%s: %w", chapter.title, err)
		}
	}
	return nil
}

// end stops whatever still runs when the story has ended early; it is harmless otherwise.
func end(c *cron.Cron) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return cronwrap.Stop(ctx, c)
}

// notef notes and prints what has happened to a job.
func (s *story) notef(job, format string, args ...any) {
	e := event{job, fmt.Sprintf(format, args...)}
	s.sayf(job, "%s", e.fact)
	s.events <- e
}

// sayf prints one line: the time gone by, what it is about, and the fact.
func (s *story) sayf(what, format string, args ...any) {
	s.print(fmt.Sprintf("%6.2fs  %-10s ", time.Since(s.began).Seconds(), what) + fmt.Sprintf(format, args...))
}

func (s *story) print(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintln(s.out, strings.TrimRight(line, " "))
}

// expect waits for a fact about a job, and hands it on. The facts that must not come before it are errors.
func (s *story) expect(ctx context.Context, job, fact string, never ...string) (string, error) {
	for {
		select {
		case e := <-s.events:
			if e.job == job && strings.HasPrefix(e.fact, fact) {
				return e.fact, nil
			}
			if err := mustNot(e, never); err != nil {
				return "", err
			}
		case <-ctx.Done():
			return "", fmt.Errorf("%s: %q: %w", job, fact, context.Cause(ctx))
		}
	}
}

// watch lets time go by, in which certain facts must not come.
func (s *story) watch(ctx context.Context, d time.Duration, never ...string) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case e := <-s.events:
			if err := mustNot(e, never); err != nil {
				return err
			}
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func mustNot(e event, never []string) error {
	for _, fact := range never {
		if strings.HasPrefix(e.fact, fact) {
			return fmt.Errorf("%s: %q should not have come", e.job, e.fact)
		}
	}
	return nil
}

// diary is the log of the schedule, as a part of the story.
type diary struct{ story *story }

func (diary) Enabled(context.Context, slog.Level) bool { return true }

// Handle tells what is logged about a job, with the code and the request id that an operator would look for.
func (d diary) Handle(_ context.Context, r slog.Record) error {
	attrs := map[string]string{"job": "(cron)"}
	r.Attrs(func(a slog.Attr) bool {
		attrs[a.Key] = a.Value.String()
		return true
	})
	fact := strings.TrimPrefix(r.Message, "cronwrap: ")
	if code, ok := attrs["code"]; ok {
		fact += fmt.Sprintf(" (%s, request %s)", code, attrs["request_id"])
	}
	d.story.notef(attrs["job"], "%s", fact)
	return nil
}

func (d diary) WithAttrs([]slog.Attr) slog.Handler { return d }
func (d diary) WithGroup(string) slog.Handler      { return d }

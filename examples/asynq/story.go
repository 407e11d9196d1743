package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
)

// story is told in chapters, each of which shows one way to use asynqmw, and fails where that does
// not do what it promises. All of it is printed on one goroutine; asynq has others.
type story struct {
	out   io.Writer
	began time.Time
	org   *authority.Organisation
	redis asynq.RedisClientOpt
	desk  *desk
	total account
}

func newStory(out io.Writer, org *authority.Organisation, redis asynq.RedisClientOpt) *story {
	return &story{out: out, began: time.Now(), org: org, redis: redis, desk: &desk{begun: make(map[string]int)}}
}

// tell tells both chapters, up to one that does not go as it should, and prints the account.
func (s *story) tell(ctx context.Context, r guard.Runner, g *guard.Guard, patience time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errTooLong)
	defer cancel()
	for _, chapter := range []struct {
		title string
		tell  func(ctx context.Context) error
	}{
		{"two devices share a queue, and one of them is revoked", func(ctx context.Context) error { return s.oneIsRevoked(ctx, r) }},
		{"a process is revoked, and fetches nothing meanwhile", func(ctx context.Context) error { return s.processIsRevoked(ctx, g) }},
	} {
		fmt.Fprintf(s.out, "\n--- %s\n", chapter.title)
		if err := chapter.tell(ctx); err != nil {
			return fmt.Errorf("%s: %w", chapter.title, err)
		}
	}
	fmt.Fprintln(s.out)
	s.total.cut = s.desk.cutsSoFar()
	s.sayf("(account)", "%v", s.total)
	return s.total.check()
}

// account is what has become of all tasks.
type account struct {
	enqueued, handled, cut, refused, spent, archived int
}

func (a account) String() string {
	return fmt.Sprintf("enqueued %d, handled %d, cut %d, refused %d, retries spent %d, archived %d",
		a.enqueued, a.handled, a.cut, a.refused, a.spent, a.archived)
}

func (a account) check() error {
	switch {
	case a.handled != a.enqueued, a.spent != 0, a.archived != 0:
		return fmt.Errorf("the denials have cost tasks or retries: %v", a)
	case a.cut == 0 || a.refused == 0:
		return fmt.Errorf("nothing was cut, or nothing refused: %v", a)
	}
	return nil
}

// settle adds a queue to the account.
func (s *story) settle(enqueued int, now state) {
	s.total.enqueued += enqueued
	s.total.handled += now.handled
	s.total.spent += now.spent
	s.total.archived += now.lost
}

// sayf prints one line: the time gone by, what it is about, and the fact.
func (s *story) sayf(what, format string, args ...any) {
	line := fmt.Sprintf("%6.2fs  %-11s ", time.Since(s.began).Seconds(), what) + fmt.Sprintf(format, args...)
	fmt.Fprintln(s.out, strings.TrimRight(line, " "))
}

func (s *story) revoke(ctx context.Context, device string) error {
	s.sayf("(revoked)", "%s", device)
	_, err := s.org.Revoke(ctx, device)
	return err
}

func (s *story) restore(ctx context.Context, device string) error {
	s.sayf("(restored)", "%s", device)
	_, err := s.org.Unrevoke(ctx, device)
	return err
}

// until waits until the queue is as wanted, and tells of the pages that are cut meanwhile.
func (s *story) until(ctx context.Context, q *queue, wanted func(now state) bool) (now state, err error) {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		if now, err = q.state(); err != nil {
			return now, err
		}
		ready := wanted(now)
		for _, c := range s.desk.takeCut() {
			s.sayf("cut", "page %s of %s%s", c.page, c.device, reason(c.why))
		}
		if ready {
			return now, nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return now, fmt.Errorf("%w; the queue has %+v", context.Cause(ctx), now)
		}
	}
}

// reason is what a handler finds out about its end.
func reason(cause error) string {
	denied := (*guard.DeniedError)(nil)
	if !errors.As(cause, &denied) {
		return ""
	}
	return fmt.Sprintf(": %s, request %s", denied.Decision.Code, denied.Decision.RequestID)
}

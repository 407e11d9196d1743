package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/guard"
)

// What the jobs and their log say.
const (
	begins  = "begins"
	cut     = "is cut"
	written = "is written for "
	skipped = "denied: skipped"
	waits   = "denied: to be caught up"
	stopped = "denied while it ran: stopped"
)

// ticks: both jobs run, a backup and the reports beside it.
func (s *story) ticks(ctx context.Context, _ *cron.Cron) error {
	if _, err := s.expect(ctx, "report", written, skipped, waits); err != nil {
		return err
	}
	_, err := s.expect(ctx, "backup", "has copied", skipped, waits, cut)
	return err
}

// backupIsCut: the device is revoked while the backup runs.
func (s *story) backupIsCut(ctx context.Context, _ *cron.Cron) error {
	if _, err := s.expect(ctx, "backup", begins); err != nil {
		return err
	}
	if err := s.watch(ctx, 300*time.Millisecond, cut); err != nil {
		return err
	}
	s.sayf("(revoked)", "%s", device)
	revoked := time.Now()
	if _, err := s.org.Revoke(ctx, device); err != nil {
		return err
	}
	fact, err := s.expect(ctx, "backup", cut, "has copied")
	if err != nil {
		return err
	}
	if !strings.Contains(fact, string(guard.CodeDeviceRevoked)) {
		return fmt.Errorf("the backup was told %q, and not of the denial", fact)
	}
	took := time.Since(revoked).Round(10 * time.Microsecond)
	if _, err := s.expect(ctx, "backup", stopped); err != nil {
		return err
	}
	s.sayf("(cut)", "%v after the revocation", took)
	return nil
}

// ticksAreRefused: neither job runs; the backup's ticks are lost, and one of the reports waits for its turn.
func (s *story) ticksAreRefused(ctx context.Context, _ *cron.Cron) error {
	if _, err := s.expect(ctx, "report", waits, begins, written); err != nil {
		return err
	}
	if _, err := s.expect(ctx, "backup", skipped, begins, written); err != nil {
		return err
	}
	return s.watch(ctx, 500*time.Millisecond, begins, written, waits)
}

// reportIsCaughtUp: of the reports that were missed the latest is written, at once, and then the schedule goes on.
func (s *story) reportIsCaughtUp(ctx context.Context, _ *cron.Cron) error {
	s.sayf("(allowed)", "%s", device)
	missed := time.Now().UTC().Truncate(time.Second) // the tick before this
	if _, err := s.org.Unrevoke(ctx, device); err != nil {
		return err
	}
	for _, tick := range []time.Time{missed, missed.Add(time.Second)} {
		fact, err := s.expect(ctx, "report", written, skipped, waits)
		if err != nil {
			return err
		}
		if want := written + tick.Format(time.TimeOnly); fact != want {
			return fmt.Errorf("the report %s: %q was expected", fact, want)
		}
	}
	return nil
}

// stop: the schedule ends in the middle of a backup.
func (s *story) stop(ctx context.Context, c *cron.Cron) error {
	if _, err := s.expect(ctx, "backup", begins, skipped); err != nil {
		return err
	}
	if err := s.watch(ctx, 300*time.Millisecond, cut); err != nil {
		return err
	}
	s.sayf("(Stop)", "")
	if err := cronwrap.Stop(ctx, c); err != nil {
		return err
	}
	s.sayf("(stopped)", "nothing runs")
	if _, err := s.expect(ctx, "backup", cut, "has copied"); err != nil {
		return err
	}
	return s.watch(ctx, 1200*time.Millisecond, begins, written, skipped)
}

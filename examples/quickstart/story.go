package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/execguard/execguard/contextx"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/machineid"
)

// story is told in chapters, each of which shows one thing that a guard does, and fails where
// the guard does not do it.
type story struct {
	*report

	client  *machineid.Client
	device  string
	beat    time.Duration // the guard's interval, by which everything else is timed
	service *service      // what is asked, where it is ours to take away
	guard   *guard.Guard
	revoked bool // the device, by us
}

type chapter struct {
	title string
	tell  func(ctx context.Context) error
}

// settings are those of every guard in the story.
func (s *story) settings() []guard.Option {
	return []guard.Option{guard.WithInterval(s.beat), guard.WithObserver(s.observe)}
}

// tell registers the device and tells the chapters, up to one that does not go as it should.
func (s *story) tell(ctx context.Context, chapters ...chapter) (err error) {
	if s.guard, err = guard.New(s.overhear(s.client), s.settings()...); err != nil {
		return err
	}
	defer s.close()
	if _, err := s.client.Register(ctx, s.device); err != nil {
		return err
	}
	s.sayf("registered", "%s", s.device)
	defer s.restore(ctx)
	for _, c := range chapters {
		s.headline(c.title)
		if err := c.tell(ctx); err != nil {
			return fmt.Errorf("%s: %w", c.title, err)
		}
	}
	return nil
}

func (s *story) close() {
	s.guard.Close()
	s.client.CloseIdleConnections()
	s.report.close()
}

// work is a report of so many pages, four a beat. It looks at its context between two pages:
// cancelling is asking, and a job that never looks is never stopped.
func (s *story) work(pages int) func(context.Context) error {
	return func(ctx context.Context) error {
		for page := range pages {
			if err := wait(ctx, s.beat/4); err != nil {
				s.sayf("job", "breaks off after page %d of %d", page, pages)
				return err
			}
		}
		s.sayf("job", "has written all %d pages", pages)
		return nil
	}
}

// stoppedByRevocation: the device is revoked while its job runs.
func (s *story) stoppedByRevocation(ctx context.Context) error {
	acted, ended := meanwhile(ctx, 2*s.beat, s.revoke, func(ctx context.Context) error {
		return s.guard.Run(ctx, s.device, s.work(100))
	})
	if acted.err != nil {
		return errors.Join(acted.err, ended)
	}
	return errors.Join(expectDenial(ended, guard.CodeDeviceRevoked, true), s.expectBound(acted.at))
}

// refused: while the device is revoked, nothing starts.
func (s *story) refused(ctx context.Context) error {
	err := s.guard.Run(ctx, s.device, func(context.Context) error {
		return errors.New("the job was started")
	})
	return expectDenial(err, guard.CodeDeviceRevoked, false)
}

// backAgain: Keep waits until the device is restored, then runs the job.
func (s *story) backAgain(ctx context.Context) error {
	acted, ended := meanwhile(ctx, 2*s.beat, s.unrevoke, func(ctx context.Context) error {
		return s.guard.Keep(ctx, s.device, s.work(4))
	})
	return errors.Join(acted.err, ended)
}

// revoke speaks before it acts, for the guard may learn of it before the answer is here.
func (s *story) revoke(ctx context.Context) error {
	s.sayf("revoke", "%s; the job must end within %v", s.device, s.guard.StopBound())
	s.revoked = true // perhaps, even if the answer should get lost
	_, err := s.client.Revoke(ctx, s.device)
	return err
}

func (s *story) unrevoke(ctx context.Context) error {
	s.sayf("unrevoke", "%s", s.device)
	if _, err := s.client.Unrevoke(ctx, s.device); err != nil {
		return err
	}
	s.revoked = false
	return nil
}

// restore leaves no device revoked, not even when the story breaks off.
func (s *story) restore(ctx context.Context) {
	if !s.revoked {
		return
	}
	ctx, cancel := contextx.Cleanup(ctx, 10*time.Second)
	defer cancel()
	if err := s.unrevoke(ctx); err != nil {
		s.sayf("unrevoke", "%s is still revoked: %v", s.device, err)
	}
}

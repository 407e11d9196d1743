package main

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/execguard/execguard/guard"
)

// stoppedByOutage: nobody can say that the device is not revoked, so work stops.
func (s *story) stoppedByOutage(ctx context.Context) error {
	acted, ended := meanwhile(ctx, 2*s.beat, s.takeAway, func(ctx context.Context) error {
		return s.guard.Run(ctx, s.device, s.work(100))
	})
	if acted.err != nil {
		return errors.Join(acted.err, ended)
	}
	err := errors.Join(expectDenial(ended, guard.CodeSystemUnavailable, true), s.expectBound(acted.at))
	return errors.Join(err, s.bringBack(ctx))
}

// outageRiddenOut: with a retry that was asked for, the same outage does not stop the job. The
// price is a longer stop bound.
func (s *story) outageRiddenOut(ctx context.Context) error {
	retry := guard.WithRetry(func() guard.BackOff { return backoff.NewConstantBackOff(s.beat / 2) }, 5*time.Second)
	patient, err := guard.New(s.overhear(s.client), append(s.settings(), retry)...)
	if err != nil {
		return err
	}
	defer patient.Close()
	s.sayf("guard", "stops within %v, the other one within %v", patient.StopBound(), s.guard.StopBound())

	over := make(chan struct{})
	acted, ended := meanwhile(ctx, s.beat, s.outage(over), func(ctx context.Context) error {
		return patient.Run(ctx, s.device, func(ctx context.Context) error {
			select {
			case <-over:
				return s.work(8)(ctx)
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	return errors.Join(acted.err, ended)
}

func (s *story) takeAway(context.Context) error {
	s.sayf("outage", "nothing listens on %s any more", s.service.addr)
	return s.service.takeAway()
}

func (s *story) bringBack(ctx context.Context) error {
	s.sayf("outage", "is over")
	return s.service.bringBack(ctx)
}

// outage takes the authority away until it was asked in vain a few times, and then closes over.
func (s *story) outage(over chan<- struct{}) func(context.Context) error {
	return func(ctx context.Context) error {
		enough := s.unanswered() + 4
		if err := s.takeAway(ctx); err != nil {
			return err
		}
		for s.unanswered() < enough {
			if err := wait(ctx, s.beat/10); err != nil {
				return err
			}
		}
		defer close(over)
		return s.bringBack(ctx)
	}
}

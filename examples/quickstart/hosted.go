package main

import (
	"context"
	"errors"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/machineid"
)

// guarded is all that a program needs: it does the work while MachineID allows it.
func guarded(ctx context.Context, work func(ctx context.Context) error) error {
	client, err := machineid.FromEnv() // MACHINEID_ORG_KEY
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	device, err := machineid.DeviceIDFromEnv() // MACHINEID_DEVICE_ID
	if err != nil {
		return err
	}
	g, err := guard.New(client)
	if err != nil {
		return err
	}
	defer g.Close()
	return g.Run(ctx, device, work) // ctx of work ends when MachineID says no, or cannot be asked
}

// hosted tells what can be told with an authority that others rely on too: nothing is revoked
// unless that was allowed, and its outages are not ours to make.
func hosted(ctx context.Context, r *report, beat time.Duration, allowRevoke bool) error {
	client, err := machineid.FromEnv()
	if err != nil {
		return err
	}
	device, err := machineid.DeviceIDFromEnv()
	if err != nil {
		return err
	}
	s := &story{report: r, client: client, device: device, beat: beat}
	chapters := []chapter{
		{"a device is allowed, and its job finishes", s.finishes},
		{"a device that nobody has registered starts nothing", s.refusedAsUnknown},
	}
	if allowRevoke {
		chapters = append(chapters,
			chapter{"a device is revoked, and its job is stopped", s.stoppedByRevocation},
			chapter{"while it is revoked, nothing starts", s.refused},
			chapter{"restored, it works again by itself", s.backAgain},
		)
	}
	return s.tell(ctx, chapters...)
}

// finishes: the job takes long enough for the guard to ask again in between.
func (s *story) finishes(ctx context.Context) error {
	if err := guarded(ctx, s.work(2)); err != nil {
		return err
	}
	return s.guard.Run(ctx, s.device, s.work(6))
}

// refusedAsUnknown: whatever the authority calls it, an unknown device is denied by it.
func (s *story) refusedAsUnknown(ctx context.Context) error {
	err := s.guard.Run(ctx, s.device+":never-registered", func(context.Context) error {
		return errors.New("the job was started")
	})
	if !errors.Is(err, guard.ErrDenied) || errors.Is(err, guard.ErrUnavailable) {
		return errors.Join(errors.New("a denial by the authority was expected"), err)
	}
	return nil
}

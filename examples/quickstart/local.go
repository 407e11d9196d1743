package main

import (
	"context"
	"errors"
	"time"

	"github.com/execguard/execguard/guard/machineid"
)

// local tells the whole story, with an authority of our own.
func local(ctx context.Context, r *report, beat time.Duration) (err error) {
	own, err := startService(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, own.takeAway()) }()
	client, err := machineid.New(own.key, machineid.WithBaseURL("http://"+own.addr))
	if err != nil {
		return err
	}
	r.sayf("authority", "listens on %s", own.addr)
	s := &story{report: r, client: client, device: "worker:demo:report:01", beat: beat, service: own}
	return s.tell(ctx,
		chapter{"a device is revoked, and its job is stopped", s.stoppedByRevocation},
		chapter{"while it is revoked, nothing starts", s.refused},
		chapter{"restored, it works again by itself", s.backAgain},
		chapter{"nobody can be asked, and the job is stopped", s.stoppedByOutage},
		chapter{"an opted-in retry rides the outage out", s.outageRiddenOut},
	)
}

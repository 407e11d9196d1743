package asynqmw

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/guard"
)

// Periodic lets p's tasks be scheduled only while v allows the device, for an asynq.PeriodicTaskManager. On
// anything but an ALLOW it answers with an empty list, so that the manager takes out what it has
// scheduled; an error would have it go on with that. It fails closed in time too: v is asked through a Guard, v
// itself if it is one, which gives a question up at its timeout (3 s by default).
//
// A manager asks every SyncInterval, 3 minutes by default, and until then a denied schedule goes on
// enqueueing; the tasks that come of it are New's to refuse. p's own error is returned as it is. The default slog.Logger is told
// when the schedule is taken out.
// Periodic panics if v or p is nil.
func Periodic(v guard.Validator, deviceID string, p asynq.PeriodicTaskConfigProvider) asynq.PeriodicTaskConfigProvider {
	if isNil(p) {
		mistake("Periodic: the PeriodicTaskConfigProvider is nil")
	}
	g, ok := v.(*guard.Guard)
	if !ok || g == nil {
		var err error
		if g, err = guard.New(v); err != nil {
			mistake("Periodic: " + err.Error())
		}
	}
	return &periodic{guard: g, device: deviceID, provider: p}
}

type periodic struct {
	guard    *guard.Guard
	device   string
	provider asynq.PeriodicTaskConfigProvider
	out      atomic.Bool // the schedule has been taken out
}

// GetConfigs is called by the manager, which has no context to give, and would not recover a panic.
func (p *periodic) GetConfigs() ([]*asynq.PeriodicTaskConfig, error) {
	d, err := p.guard.Validate(context.Background(), p.device)
	if err == nil && d.Allowed {
		p.out.Store(false)
		return p.provider.GetConfigs()
	}
	if !p.out.Swap(true) {
		defaultLogger().Warn("asynqmw: denied: nothing periodic is scheduled", slog.String("device", p.device),
			slog.String("code", string(d.Code)), slog.String("request_id", d.RequestID), slog.String("reason", d.Reason))
	}
	return []*asynq.PeriodicTaskConfig{}, nil
}

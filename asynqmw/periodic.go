package asynqmw

import (
	"context"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/guard"
)

// Periodic lets p's tasks be scheduled only while v allows the device, for an asynq.PeriodicTaskManager. On
// anything but an ALLOW it answers with an empty list, so that the manager takes out what it has
// scheduled; an error would have it go on with that. It fails closed in time too: v is asked through a Guard, v
// itself if it is one, which gives a question up at its timeout (3 s by default).
//
// A manager asks every SyncInterval, 3 minutes by default, and until then a denied schedule goes on
// enqueueing; the tasks that come of it are New's to refuse. p's own error is returned as it is.
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
}

// GetConfigs is called by the manager, which has no context to give, and would not recover a panic.
func (p *periodic) GetConfigs() ([]*asynq.PeriodicTaskConfig, error) {
	if d, err := p.guard.Validate(context.Background(), p.device); err == nil && d.Allowed {
		return p.provider.GetConfigs()
	}
	return []*asynq.PeriodicTaskConfig{}, nil
}

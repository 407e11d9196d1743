package asynqmw

import (
	"context"
	"errors"
	"strings"

	"github.com/hibiken/asynq"
)

// ErrNoIdentity is matched by the refusal of a task that does not name its device.
var ErrNoIdentity = errors.New("asynqmw: no identity")

// DeviceFunc says which device a task stands for. It is called before each attempt, on several
// goroutines at once, and again while a task is held; ctx is asynq's, with the task's id and queue. An
// error refuses the task like a denial: it goes back, or is held. The error's text is not printed;
// errors.Is and errors.As find it. The guard, which is not asked then, tells its observers nothing of it.
type DeviceFunc func(ctx context.Context, t *asynq.Task) (deviceID string, err error)

// Fixed says that this process is the device, whatever the task.
func Fixed(deviceID string) DeviceFunc {
	return func(context.Context, *asynq.Task) (string, error) { return deviceID, nil }
}

// FromHeader takes the device's id from the task's headers (asynq.NewTaskWithHeaders). A task without
// this header, or with a blank one, has no identity and is refused. Who enqueues a task writes its
// headers, so they are as good as the queue is closed. A task that a GroupAggregator
// makes has the headers that the aggregator gives it, so group by device.
func FromHeader(name string) DeviceFunc {
	if strings.TrimSpace(name) == "" {
		mistake("FromHeader: the name is blank")
	}
	return func(_ context.Context, t *asynq.Task) (string, error) {
		if id := t.Headers()[name]; strings.TrimSpace(id) != "" {
			return id, nil
		}
		return "", &identityError{why: "the task has no header " + name}
	}
}

// identityError is why a task has no identity. It never prints what somebody else's error says.
type identityError struct {
	why string
	err error // what the DeviceFunc said; nil: it was one of ours
}

func (e *identityError) Error() string { return ErrNoIdentity.Error() + ": " + e.why }

func (e *identityError) Is(target error) bool { return target == ErrNoIdentity }

func (e *identityError) Unwrap() error { return e.err }

// GoString is Error, so that %#v does not look inside.
func (e *identityError) GoString() string { return e.Error() }

package asynqmw_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/guard"
)

const (
	soakQueue    = "default"
	soakType     = "soak"
	soakHeader   = "device"
	soakGroup    = 8               // tasks of a group that make one
	soakShutdown = 3 * time.Second // longer than any handler works
)

// The kinds of tasks.
const (
	soakPlain      = "plain"      // retries are left
	soakOnce       = "once"       // MaxRetry(0)
	soakHurried    = "hurried"    // MaxRetry(0), and a timeout shorter than most denials
	soakLast       = "last"       // fails until its last attempt
	soakPoison     = "poison"     // fails always
	soakPanics     = "panics"     // panics at its first attempt
	soakUnique     = "unique"     // MaxRetry(0), and there can be no second one
	soakKept       = "kept"       // MaxRetry(0), with retention
	soakDeadline   = "deadline"   // MaxRetry(0), with a deadline
	soakLater      = "later"      // scheduled
	soakGrouped    = "grouped"    // to be part of
	soakAggregated = "aggregated" // one of these
)

// soakKinds are as frequent as they are named.
var soakKinds = []string{
	soakPlain, soakPlain, soakPlain, soakOnce, soakOnce, soakOnce, soakHurried, soakHurried, soakHurried, soakLast, soakLast,
	soakPoison, soakPanics, soakUnique, soakUnique, soakKept, soakDeadline, soakLater, soakGrouped, soakGrouped,
}

var (
	errSoakFail  = errors.New("soak: meant to fail")
	errSoakPanic = fmt.Errorf("%w with a panic", errSoakFail)
)

// soakJob is a task's payload: what its handler does.
type soakJob struct {
	Key      string // of one task, and of what is to be one
	Kind     string
	Work     time.Duration
	Manner   int  // what the handler makes of being stopped
	Stubborn bool // the handler does not look at its context
	Members  []string
}

func (j *soakJob) payload() []byte {
	p, err := json.Marshal(j)
	if err != nil {
		panic(err)
	}
	return p
}

func readSoakJob(payload []byte) (j soakJob) {
	if err := json.Unmarshal(payload, &j); err != nil {
		panic(err)
	}
	return j
}

// do is the handler's work.
func (j *soakJob) do(ctx context.Context, retried, most int) error {
	work := time.NewTimer(j.Work)
	defer work.Stop()
	stop := ctx.Done()
	if j.Stubborn {
		stop = nil
	}
	select {
	case <-work.C:
	case <-stop:
	}
	switch {
	case ctx.Err() != nil:
		return j.stopped(ctx)
	case j.Kind == soakPoison, j.Kind == soakLast && retried < most:
		return errSoakFail
	case j.Kind == soakPanics && retried == 0:
		return errSoakPanic
	}
	return nil
}

// stopped is what the handler returns after a denial: none of it counts.
func (j *soakJob) stopped(ctx context.Context) error {
	cause := context.Cause(ctx)
	if !errors.Is(cause, guard.ErrDenied) {
		return ctx.Err()
	}
	switch j.Manner {
	case 0:
		return cause
	case 1:
		return nil
	case 2:
		return fmt.Errorf("soak: stopped: %w", asynq.SkipRetry)
	case 3:
		return asynq.RevokeTask
	case 4:
		return errSoakPanic
	default:
		return errors.New("soak: stopped")
	}
}

// soakTask is a task that is, or is to be, enqueued.
type soakTask struct {
	id     string
	job    soakJob
	device string
	opts   []asynq.Option
	retry  int
}

// newSoakTask draws the i-th task.
func newSoakTask(r *rand.Rand, i int, devices []string, hurry time.Duration) *soakTask {
	kind := soakKinds[r.IntN(len(soakKinds))]
	s := &soakTask{id: fmt.Sprintf("%s-%05d", kind, i), device: devices[r.IntN(len(devices))]}
	s.job = soakJob{Key: s.id, Kind: kind, Work: time.Millisecond * time.Duration(1+r.IntN(30)), Manner: r.IntN(6)}
	if n := r.IntN(12); n < 4 && kind != soakHurried {
		s.job.Work, s.job.Stubborn = time.Millisecond*time.Duration(100+r.IntN(700)), r.IntN(3) == 0
		if n == 0 { // about as long as a refused task stays away, so that the next attempt might find it at work
			s.job.Work, s.job.Stubborn = time.Millisecond*time.Duration(2000+r.IntN(900)), true
		}
	}
	switch kind {
	case soakPlain, soakLater:
		s.retry = 3
	case soakLast, soakPanics:
		s.retry = 1 + r.IntN(2)
	case soakPoison:
		s.retry = r.IntN(2)
	}
	s.opts = append(s.options(r, hurry), asynq.TaskID(s.id), asynq.MaxRetry(s.retry), asynq.Queue(soakQueue))
	return s
}

func (s *soakTask) options(r *rand.Rand, hurry time.Duration) []asynq.Option {
	switch s.job.Kind {
	case soakHurried:
		return []asynq.Option{asynq.Timeout(hurry + time.Second*time.Duration(r.IntN(2)))}
	case soakUnique:
		return []asynq.Option{asynq.Unique(time.Hour)}
	case soakKept:
		return []asynq.Option{asynq.Retention(time.Hour)}
	case soakDeadline:
		return []asynq.Option{asynq.Deadline(time.Now().Add(time.Hour))}
	case soakLater:
		return []asynq.Option{asynq.ProcessIn(time.Second * time.Duration(1+r.IntN(5)))}
	case soakGrouped:
		return []asynq.Option{asynq.Group(s.device)}
	}
	return nil
}

func (s *soakTask) enqueue(c *asynq.Client) error {
	_, err := c.Enqueue(asynq.NewTaskWithHeaders(soakType, s.job.payload(), map[string]string{soakHeader: s.device}), s.opts...)
	return err
}

// again is the same task a second time, by another id.
func (s *soakTask) again(i int) *soakTask {
	twin := *s
	twin.id = fmt.Sprintf("%s-twin-%05d", s.id, i)
	twin.opts = append(append([]asynq.Option(nil), s.opts...), asynq.TaskID(twin.id))
	return &twin
}

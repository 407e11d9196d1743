package guard_test

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/execguard/execguard/guard"
)

// seenCall is one call to the authority, seen from between the guard and its client.
type seenCall struct {
	Device    string
	Sent      time.Time // right before the client was called: the guard reckons from a moment earlier
	Deadline  time.Time // its context's: the guard's own instant of sending, and the timeout
	Returned  time.Time // zero: it has not
	Allowed   bool
	RequestID string
	Accepted  bool  // the guard has told its observer of this ALLOW
	GiveUp    alarm // for the deadline
	Line      alarm // for the stop line, where it was allowed
}

// alarm is a goroutine that waits for the deadline of one of the standard library's contexts: what
// a function would wait for that has no guard.
type alarm struct {
	Due, Rang time.Time
	stop      context.CancelFunc
}

// recorder is a validator that keeps a record of what passes through it.
type recorder struct {
	next  guard.Validator
	pace  pace
	deaf  bool // calls do not end with their context
	made  time.Time
	pulse *pulse

	mu        sync.Mutex
	calls     []*seenCall
	flying    int
	landed    *sync.Cond      // flying has changed
	accepted  map[string]bool // request ids of the ALLOWs that the guard has told of
	undecided map[string]int  // by device, how many calls brought no ALLOW, as the guard has told
}

func newRecorder(next guard.Validator, p pace, machine *pulse) *recorder {
	r := &recorder{next: next, pace: p, pulse: machine, made: time.Now(), accepted: map[string]bool{}, undecided: map[string]int{}}
	r.landed = sync.NewCond(&r.mu)
	return r
}

// Validate is guard.Validator's.
func (r *recorder) Validate(ctx context.Context, id string) (guard.Decision, error) {
	c := r.begin(ctx, id)
	if r.deaf {
		ctx = context.WithoutCancel(ctx)
	}
	d, err := r.next.Validate(ctx, id)
	r.end(c, d, err)
	return d, err
}

func (r *recorder) begin(ctx context.Context, id string) *seenCall {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := &seenCall{Device: id, Sent: time.Now()}
	c.Deadline, _ = ctx.Deadline()
	r.set(&c.GiveUp, c.Deadline)
	r.calls = append(r.calls, c)
	r.flying++
	return c
}

func (r *recorder) end(c *seenCall, d guard.Decision, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.Returned, c.RequestID = time.Now(), d.RequestID
	c.Allowed = err == nil && d.Allowed
	if c.Allowed {
		r.set(&c.Line, c.Sent.Add(r.pace.bound()))
	}
	r.flying--
	r.landed.Broadcast()
}

// set sets an alarm. The caller holds mu.
func (r *recorder) set(a *alarm, due time.Time) {
	a.Due = due
	ctx, stop := context.WithDeadline(context.Background(), due)
	a.stop = stop
	go func() {
		<-ctx.Done()
		now := time.Now()
		r.mu.Lock()
		defer r.mu.Unlock()
		if ctx.Err() == context.DeadlineExceeded {
			a.Rang = now
		}
	}()
}

// observe is the guard's observer. It alone tells which ALLOWs the guard took: one that came at
// the last moment it may have given up.
func (r *recorder) observe(_ context.Context, e guard.Event) {
	if e.Kind != guard.EventValidated {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Decision.Allowed {
		r.accepted[e.Decision.RequestID] = true
	} else {
		r.undecided[e.DeviceID]++
	}
}

// land waits until no call is in flight.
func (r *recorder) land() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.flying > 0 {
		r.landed.Wait()
	}
}

// line is where the stop line stands now of a run that began then.
func (r *recorder) line(device string, began time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	var calls []seenCall
	for _, c := range r.calls {
		if c.Device == device {
			calls = append(calls, *c)
		}
	}
	return reckon(r.pace, calls, began).line
}

// sightings are what there is to judge a try by.
type sightings struct {
	Calls     []seenCall
	Observed  bool           // the guard had an observer, and nobody set the clock
	Undecided map[string]int // see recorder
	Looks     []look         // at what the machine did
}

// stop stops the alarms and returns what was seen.
func (r *recorder) stop(observed bool) sightings {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := sightings{Looks: r.pulse.since(r.made), Observed: observed && !leapt(r.made), Undecided: maps.Clone(r.undecided)}
	now := time.Now()
	for _, c := range r.calls {
		for _, a := range []*alarm{&c.GiveUp, &c.Line} {
			if a.stop != nil {
				a.stop()
			}
			if a.Rang.IsZero() {
				a.Rang = later(now, a.Due)
			}
		}
		c.Accepted = r.accepted[c.RequestID]
		s.Calls = append(s.Calls, *c)
	}
	return s
}

// leapt tells whether the wall clock was set since then. The guard goes by the faster clock, and
// what it does early for that is no false alarm.
func leapt(since time.Time) bool {
	now := time.Now()
	return (now.Round(0).Sub(since.Round(0)) - now.Sub(since)).Abs() > slack
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

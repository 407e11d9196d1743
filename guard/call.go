package guard

import (
	"context"
	"fmt"
	"reflect"
	"runtime"
	"time"

	"github.com/execguard/execguard/contextx"
)

// Why a call to the authority is cancelled.
var (
	errTimeout  = fmt.Errorf("guard: the authority did not answer in time: %w", context.DeadlineExceeded)
	errUnwanted = fmt.Errorf("guard: nobody waits for the answer any more: %w", context.Canceled)
)

// maxHung is how many calls about one device may ignore that they were given up (L4).
const maxHung = 2

// call is one try of a question: one request to the authority, on a goroutine of its own
// because it must be possible to give it up.
type call struct {
	question *question
	device   *device
	urgent   bool // what its slot was taken for
	seq      uint64
	at       reading // when it was sent
	deadline time.Duration
	cancel   context.CancelCauseFunc
	waitNext time.Duration // the back-off's wait, should this try fail; negative: no other try
	givenUp  bool          // the deadline was there before the answer
	unwanted bool          // cancelled: what it answers is no answer
}

// send puts q in flight. The caller has a slot for it.
func (d *device) send(q *question, urgent bool) {
	g := d.guard
	c := &call{question: q, device: d, urgent: urgent, seq: g.seq.Add(1), at: g.clock.read(), waitNext: -1}
	c.deadline = c.at.elapsed + g.timeout
	if q.retryUntil != 0 {
		c.deadline = min(c.deadline, q.retryUntil)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	c.cancel = cancel
	d.next, d.flying, d.queued, q.backingOff = nil, c, false, false
	d.sent = c.at.elapsed
	go c.run(callContext{ctx, c.at.at.Add(c.deadline - c.at.elapsed)})
}

// validatingKey marks the contexts that validators get.
var validatingKey = contextx.NewKey[bool]("guard.validating")

// Validating tells whether ctx is one that a Guard handed to its Validator, or derived from one.
// What guards outgoing calls lets those of the authority's own client pass by it: they would wait
// for themselves.
func Validating(ctx context.Context) bool {
	marked, _ := validatingKey.From(ctx)
	return marked
}

// callContext tells a validator how long it has, and that it is one. It is the schedule that ends
// it, on the guard's own clock, not a timer a call.
type callContext struct {
	context.Context //nolint:containedctx // it is a context
	deadline        time.Time
}

func (c callContext) Deadline() (time.Time, bool) { return c.deadline, true }

func (c callContext) Value(key any) any {
	if key == validatingKey {
		return true
	}
	return c.Context.Value(key)
}

// run asks. A validator that panics or ends its goroutine has not answered.
func (c *call) run(ctx context.Context) {
	who := "back-off"
	var v *verdict
	defer func() {
		if v == nil {
			v = unanswered(who, recover())
		}
		c.returned(v)
	}()
	c.prepareRetry()
	who = "validator"
	if ctx.Err() == nil { // not given up before it was sent
		v = c.ask(ctx)
	}
}

func (c *call) ask(ctx context.Context) *verdict {
	d, err := c.device.guard.validate(ctx, c.device.id)
	return judge(c.device.id, d, err)
}

func unanswered(who string, panicked any) *verdict {
	if panicked != nil {
		return unavailable(Decision{}, nil, "the "+who+" panicked: "+panicText(panicked))
	}
	return unavailable(Decision{}, nil, "the "+who+" ended its goroutine")
}

// panicText prints no value but the runtime's own: there might be a secret in it.
func panicText(p any) string {
	kind := reflect.TypeOf(p)
	if kind.Kind() == reflect.Pointer {
		kind = kind.Elem()
	}
	if err, ok := p.(runtime.Error); ok && kind.PkgPath() == "runtime" {
		return err.Error()
	}
	return fmt.Sprintf("%T", p)
}

// prepareRetry asks the back-off before the authority is asked: it is the user's code, and
// where its answer is needed there is a lock held or a deadline to keep.
func (c *call) prepareRetry() {
	g := c.device.guard
	if g.newBackOff == nil {
		return
	}
	if c.question.backOff == nil {
		c.question.backOff = g.newBackOff()
		c.question.backOff.Reset() // those that are not made by their constructor begin with it
	}
	wait := c.question.backOff.NextBackOff()
	now := c.device.lock()
	c.waitNext = wait
	c.device.unlock(now)
}

// returned takes the answer of the validator.
func (c *call) returned(v *verdict) {
	d, g := c.device, c.device.guard
	now := d.lock()
	learnt := c.learn(v, now)
	d.unlock(now)
	c.cancel(nil)
	if learnt != nil && learnt.Code.OrganisationWide() {
		g.update()
	}
	g.handOn(c.urgent)
}

// learn makes of the answer what is to be made of it, and returns that; nil where the answer was
// no answer.
func (c *call) learn(v *verdict, now time.Duration) *verdict {
	d := c.device
	switch {
	case c.givenUp:
		return c.learnLate(v, now)
	case c.unwanted:
		d.flying = nil
		return nil
	}
	d.flying, d.latency = nil, now-c.at.elapsed
	d.heed(v, now)
	overtaken := d.overtaking(c.seq)
	switch {
	case v.Allowed && overtaken != nil:
		d.guard.note(v, now)
		v = overtaken.verdict()
		d.answer(c.question, v, c.seq)
	default:
		v = c.permit(v, now)
		d.guard.note(v, now) // an ALLOW that had run out is none
		if !d.retry(c.question, v, c.waitNext, now) {
			d.resolve(c.question, v, c.seq, now)
		}
	}
	d.guard.events.validated(d.id, v, d.latency)
	return v
}

// heed notes how long the authority wants to be left alone; an ALLOW takes that back.
func (d *device) heed(v *verdict, now time.Duration) {
	if v.Allowed {
		d.floor = 0
	} else if v.RetryAfter > 0 {
		d.floor = max(d.floor, now+v.RetryAfter)
	}
}

// learnLate takes the answer of a call that was given up. It can no longer allow anything, but a
// denial is one whenever it is learnt (S3, S5), even where a younger request was allowed.
func (c *call) learnLate(v *verdict, now time.Duration) (denied *verdict) {
	d := c.device
	d.hung--
	d.guard.slots.hang(c.urgent, -1)
	if c.unwanted || v.Allowed || v.Code == CodeSystemUnavailable {
		return nil
	}
	d.heed(v, now)
	d.deny(v.deniedError(d.id), now)
	return v
}

// permit makes an ALLOW the device's permission, unless it has run out already.
func (c *call) permit(v *verdict, now time.Duration) *verdict {
	if !v.Allowed {
		return v
	}
	sent := c.at.elapsed
	p := &permission{decision: &v.Decision, seq: c.seq, sent: sent, line: sent + c.device.guard.StopBound()}
	if !v.ExpiresAt.IsZero() {
		if line := sent + min(c.at.until(v.ExpiresAt), 3*longest); line < p.line {
			p.line, p.expires = line, true
		}
	}
	if now >= p.line {
		return unavailable(v.Decision, nil, "the ALLOW had run out before it came")
	}
	c.device.permit(p)
	return v
}

// giveUp ends the wait for a call at its deadline. The call keeps its slot until it returns.
func (d *device) giveUp(now time.Duration) {
	c, took := d.flying, d.flying.deadline-d.flying.at.elapsed
	c.givenUp = true
	d.flying = nil
	d.hung++
	d.guard.slots.hang(c.urgent, 1)
	c.cancel(errTimeout)
	v := unavailable(Decision{}, errTimeout, fmt.Sprintf("no answer within %v", took))
	if c.unwanted {
		return
	}
	d.guard.note(v, now)
	d.guard.events.validated(d.id, v, took)
	if d.retry(c.question, v, c.waitNext, now) {
		return
	}
	d.resolve(c.question, v, 0, now)
}

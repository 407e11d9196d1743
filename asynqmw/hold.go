package asynqmw

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hibiken/asynq"
)

// hold keeps a task that cannot go back on asynq's goroutine, where its lease is renewed, until
// the device is allowed and the task has been handled. A server that shuts down meanwhile requeues it
// with nothing spent. Only its own deadline must not find it here, at which asynq archives it as
// a failure.
func (g *gate) hold(ctx context.Context, a *attempt, r *refusal) error {
	w := newWait(ctx, g.reserve(ctx, r))
	defer w.end()
	if !g.takePlace(ctx) {
		return g.park(w, r)
	}
	defer g.held.Add(-1)
	ask := w.during(g.runner.Run)
	rest := r.delay
	if a.again = g.keep != nil; a.again {
		ask, rest = w.during(g.keep), r.after // it waits by itself, with others of the same device, and hears hints
	}
	if rest > 0 && !w.sleep(rest) {
		return g.letGo(w, r, noPlace)
	}
	for {
		a.called = false
		err, why := a.try(w.ctx, ask)
		if why == nil && (w.ctx.Err() == nil || a.called && !a.stopped()) {
			return err
		}
		if why != nil {
			r = g.refuse(why)
		}
		if !w.sleep(r.delay) {
			return g.letGo(w, r, noPlace)
		}
	}
}

// reserve is how long before its deadline a held task is let go. One that is put back has all its Timeout
// again, so half of this one's is kept for the handler, should it be called before.
func (g *gate) reserve(ctx context.Context, r *refusal) func(left time.Duration) time.Duration {
	return func(left time.Duration) time.Duration {
		if half := left / 2; g.returns != nil && exhausted(ctx) && half > r.delay {
			return half
		}
		return little(left)
	}
}

// takePlace counts the task among those held, unless there are too many. One that could only go back at the
// cost of a retry, because the server's Config does not know a refusal, is held all the same.
func (g *gate) takePlace(ctx context.Context) bool {
	n := g.held.Add(1)
	if g.maxHeld < 0 || n <= g.maxHeld || !configured(ctx) && !exhausted(ctx) {
		return true
	}
	g.held.Add(-1)
	return false
}

// park lets go of a task for which there is no place among those held, as soon as there is one in the archive.
func (g *gate) park(w *wait, r *refusal) error {
	if g.returns == nil || !exhausted(w.attempt) {
		return g.letGo(w, r, noPlace)
	}
	return g.letGo(w, r, g.returns.takePlace(w.ctx))
}

// letGo returns what asynq is to have for a task that is held no longer: it archives it, and whoever
// may is to put it back. Where asynq has ended the attempt in another way, it has requeued the task or
// knows what to do. place gives back the task's place in the archive.
func (g *gate) letGo(w *wait, r *refusal, place func()) error {
	if err := w.attempt.Err(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		place()
		if exhausted(w.attempt) && g.returns != nil {
			r.parked = time.Now().Add(g.pause())
		}
		return r // at which asynq does not look, unless it was a middleware outside that has ended the attempt
	}
	if !exhausted(w.attempt) {
		return r // of a closed guard; or of a server that is not Configured, and then it spends a retry
	}
	id, known := asynq.GetTaskID(w.attempt)
	queue, _ := asynq.GetQueueName(w.attempt)
	if known && g.returns != nil {
		now := time.Now()
		p := &parking{parkedTask: parkedTask{queue, id}, place: place, log: loggerOf(w.attempt)}
		delay := r.delay
		if w.ctx.Err() != nil { // it was held long enough: the archive has 10,000 places for everybody's
			p.since, delay = now, g.pause()
		}
		r.parked = now.Add(delay)
		g.returns.park(delay, p)
		return r
	}
	place()
	return lose(w.attempt, r)
}

func noPlace() {}

// lose is letGo where nobody puts the task back.
func lose(attempt context.Context, r *refusal) *refusal {
	id, _ := asynq.GetTaskID(attempt)
	queue, _ := asynq.GetQueueName(attempt)
	r.lost = true
	loggerOf(attempt).Error(fmt.Sprintf("asynqmw: task id=%s of queue %q stays in the archive: "+
		"it was denied, could be held no longer, and nobody is to put it back: %v", id, queue, r.why))
	return r
}

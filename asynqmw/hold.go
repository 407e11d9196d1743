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
	w := newWait(ctx)
	defer w.end()
	if !g.takePlace() {
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
		if why == nil && (w.ctx.Err() == nil || a.finished(err)) {
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

// takePlace counts the task among those held, unless there are too many.
func (g *gate) takePlace() bool {
	if n := g.held.Add(1); g.maxHeld < 0 || n <= g.maxHeld {
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
		return err
	}
	if !exhausted(w.attempt) {
		return r // of a closed guard; or of a server that is not Configured, and then it spends a retry
	}
	id, known := asynq.GetTaskID(w.attempt)
	queue, _ := asynq.GetQueueName(w.attempt)
	if known && g.returns != nil {
		now := time.Now()
		p := &parking{parkedTask: parkedTask{queue, id}, place: place, log: loggerOf(w.attempt)}
		if w.ctx.Err() != nil {
			p.since = now
		}
		r.parked = now.Add(r.delay)
		g.returns.park(r.delay, p)
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
	loggerOf(attempt).Error(fmt.Sprintf("asynqmw: task id=%s of queue %q goes to the archive, held too long by a denial and not handled: %v",
		id, queue, r.why))
	return r
}

package asynqmw

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
)

const (
	maxParked = 100             // of those parked for want of a place: far from the 10,000 that asynq's archive keeps
	backAgain = time.Second     // between two looks at a task that asynq has not archived yet
	backAtAll = 3 * time.Minute // longer than asynq takes to recover from a crash
	soon      = 2 * time.Second // for asynq to archive a task, and keep the whole second of it
)

// returns puts tasks back that asynq has archived because they could not be held any longer. While
// they are away a timer is all that there is of them, and no goroutine.
type returns struct {
	inspector *asynq.Inspector
	interval  time.Duration
	places    chan struct{}
	searched  atomic.Bool // for what an earlier process has left

	mu     sync.Mutex
	parked map[parkedTask]int // how often each was, and is not back yet
}

type parkedTask struct{ queue, id string }

func newReturns(i *asynq.Inspector, interval time.Duration) *returns {
	if i == nil {
		return nil
	}
	return &returns{inspector: i, interval: interval, places: make(chan struct{}, maxParked), parked: map[parkedTask]int{}}
}

// takePlace waits for a place in the archive, and returns how it is given back. A task whose wait ends first goes
// there without one, because asynq sees to that.
func (r *returns) takePlace(ctx context.Context) (give func()) {
	select {
	case r.places <- struct{}{}:
		return func() { <-r.places }
	case <-ctx.Done():
		return noPlace
	}
}

// parking is a task that asynq has archived, or is about to.
type parking struct {
	*returns
	parkedTask
	since  time.Time // when its wait was over, and its deadline near; zero: that was not why
	found  bool      // it is another process that has parked it
	giveUp time.Time
	place  func() // gives it back
	log    logger
}

// park has a task put back after a while.
func (r *returns) park(after time.Duration, p *parking) {
	p.returns, p.giveUp = r, time.Now().Add(after+backAtAll)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.parked[p.parkedTask]++
	time.AfterFunc(after, p.putBack)
}

// putBack makes the task pending again, or has another look at it later.
func (p *parking) putBack() {
	again, err := p.unarchive()
	if again && time.Now().Before(p.giveUp) {
		time.AfterFunc(backAgain, p.putBack)
		return
	}
	if err != nil { // otherwise it is back; or active still, because asynq is to recover it from a crash
		p.log.Error(fmt.Sprintf("asynqmw: task id=%s of queue %q could not be put back from the archive: %v", p.id, p.queue, err))
	}
	p.forget(p.parkedTask)
	p.place()
}

func (r *returns) forget(t parkedTask) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.parked[t]--; r.parked[t] == 0 {
		delete(r.parked, t)
	}
}

// knows tells whether the task was parked by this process, which puts it back when it is due.
func (r *returns) knows(t parkedTask) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.parked[t] > 0
}

// unarchive makes the task pending if it is in the archive because it was parked; again: asynq has not
// come to that yet, or Redis could not be asked.
func (p *parking) unarchive() (again bool, err error) {
	info, err := p.inspector.GetTaskInfo(p.queue, p.id)
	switch {
	case errors.Is(err, asynq.ErrQueueNotFound) && !p.found:
		return false, err // is it the Inspector of another Redis?
	case gone(err):
		return false, nil
	case err != nil:
		return true, err
	case info.State == asynq.TaskStateActive:
		return true, nil
	case info.State != asynq.TaskStateArchived || !p.reason(info):
		return false, nil // it is back, or has failed, or been recovered from a crash
	}
	if err = p.inspector.RunTask(p.queue, p.id); gone(err) {
		return false, nil
	}
	return err != nil, err // or somebody else was faster, as the next look shows
}

// reason tells whether the task is in the archive because it was parked. Its deadline may have come before asynq
// could be told so.
func (p *parking) reason(info *asynq.TaskInfo) bool {
	if _, parked := parkedUntil(info.LastErr); parked {
		return true
	}
	return info.LastErr == context.DeadlineExceeded.Error() && info.LastFailedAt.Before(p.since.Add(soon))
}

func gone(err error) bool {
	return errors.Is(err, asynq.ErrTaskNotFound) || errors.Is(err, asynq.ErrQueueNotFound)
}

// begin looks once for what others have parked and not put back.
func (r *returns) begin(ctx context.Context) {
	if r == nil || r.searched.Load() || r.searched.Swap(true) {
		return
	}
	log := loggerOf(ctx)
	go func() {
		if err := r.search(log); err != nil {
			time.AfterFunc(r.interval, func() { r.searched.Store(false) }) // a later task's turn
			log.Warn(fmt.Sprintf("asynqmw: the archive could not be searched for tasks to put back: %v", err))
		}
	}()
}

// search has everything put back that others have parked and do not put back themselves. It takes its time
// with each task: RunTask does not look whether one is still in the archive, so two processes had better not try at once.
func (r *returns) search(log logger) error {
	queues, err := r.inspector.Queues()
	for _, queue := range queues {
		var left map[string]time.Time
		if left, err = r.left(queue); err != nil {
			return err
		}
		for id, due := range left {
			t := parkedTask{queue, id}
			if !r.knows(t) {
				wait := max(time.Until(due), 0) + r.interval + rand.N(r.interval)
				r.park(wait, &parking{parkedTask: t, found: true, place: noPlace, log: log})
			}
		}
	}
	return err
}

// left is the ids of the parked tasks in the archive of a queue, and when they are due.
func (r *returns) left(queue string) (map[string]time.Time, error) {
	const size = 100
	ids := map[string]time.Time{}
	for page := 1; ; page++ {
		tasks, err := r.inspector.ListArchivedTasks(queue, asynq.PageSize(size), asynq.Page(page))
		if err != nil && !gone(err) {
			return nil, err
		}
		for _, t := range tasks {
			if due, parked := parkedUntil(t.LastErr); parked {
				ids[t.ID] = due
			}
		}
		if len(tasks) < size {
			return ids, nil
		}
	}
}

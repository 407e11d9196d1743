package asynqmw

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
)

const (
	maxParked = 100             // of those parked for want of a place: far from the 10,000 that asynq's archive keeps
	backAgain = time.Second     // between two looks at a task that asynq has not archived yet
	backAtAll = 3 * time.Minute // longer than asynq takes to recover from a crash
)

// returns puts tasks back that asynq has archived because they could not be held any longer.
type returns struct {
	inspector *asynq.Inspector
	places    chan struct{}
	searched  atomic.Bool // for what an earlier process has left

	mu      sync.Mutex
	parked  map[parkedTask]parking
	working bool // a goroutine puts them back; it ends with the last of them
}

type parkedTask struct{ queue, id string }

// parking is when a parked task is put back.
type parking struct {
	due   time.Time
	until time.Time // given up then
	place func()    // to be given back; nil: it has none
}

func newReturns(i *asynq.Inspector) *returns {
	if i == nil {
		return nil
	}
	return &returns{inspector: i, places: make(chan struct{}, maxParked), parked: map[parkedTask]parking{}}
}

// takePlace waits for a place in the archive. A task whose wait ends first goes there without one, because asynq
// sees to that.
func (r *returns) takePlace(ctx context.Context) (give func()) {
	select {
	case r.places <- struct{}{}:
		return func() { <-r.places }
	case <-ctx.Done():
		return nil
	}
}

// park has a task put back after a while that asynq is about to archive.
func (r *returns) park(t parkedTask, after time.Duration, place func(), log asynq.Logger) {
	due := time.Now().Add(after)
	r.mu.Lock()
	defer r.mu.Unlock()
	if before := r.parked[t].place; before != nil {
		before()
	}
	r.parked[t] = parking{due: due, until: due.Add(backAtAll), place: place}
	if !r.working {
		r.working = true
		go r.work(log)
	}
}

// work puts parked tasks back until there are none.
func (r *returns) work(log asynq.Logger) {
	for next, more := r.next(); more; next, more = r.next() {
		<-time.After(time.Until(next))
		for t, p := range r.due() {
			r.putBack(t, p, log)
		}
	}
}

// next is when the first parked task is due. Where there is none, the work is over.
func (r *returns) next() (next time.Time, more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.parked {
		if !more || p.due.Before(next) {
			next, more = p.due, true
		}
	}
	r.working = more
	return next, more
}

func (r *returns) due() map[parkedTask]parking {
	now, due := time.Now(), map[parkedTask]parking{}
	r.mu.Lock()
	defer r.mu.Unlock()
	for t, p := range r.parked {
		if !p.due.After(now) {
			due[t] = p
		}
	}
	return due
}

// putBack makes one task pending again, or looks at it again later.
func (r *returns) putBack(t parkedTask, p parking, log asynq.Logger) {
	switch again, err := r.unarchive(t); {
	case !again:
		r.forget(t, p)
	case time.Now().Before(p.until):
		r.later(t, p)
	default:
		r.forget(t, p)
		log.Error(fmt.Sprintf("asynqmw: task id=%s of queue %q could not be put back from the archive: %v", t.id, t.queue, err))
	}
}

// unarchive makes a task pending if it is in the archive because it was parked; again: asynq has not
// come to that yet, or Redis could not be asked.
func (r *returns) unarchive(t parkedTask) (again bool, err error) {
	info, err := r.inspector.GetTaskInfo(t.queue, t.id)
	switch {
	case gone(err):
		return false, nil
	case err != nil:
		return true, err
	case info.State == asynq.TaskStateActive:
		return true, errors.New("it is still active")
	case info.State != asynq.TaskStateArchived:
		return false, nil
	case !wasParked(info.LastErr) && info.LastErr != context.DeadlineExceeded.Error(): // its deadline has come first
		return false, nil // it has failed, or been recovered from a crash
	}
	err = r.inspector.RunTask(t.queue, t.id)
	return err != nil && !gone(err), err
}

func gone(err error) bool {
	return errors.Is(err, asynq.ErrTaskNotFound) || errors.Is(err, asynq.ErrQueueNotFound)
}

// later has another look at a task, unless it was parked anew meanwhile.
func (r *returns) later(t parkedTask, p parking) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.parked[t]; now.due.Equal(p.due) {
		now.due = time.Now().Add(backAgain)
		r.parked[t] = now
	}
}

func (r *returns) forget(t parkedTask, p parking) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now, ok := r.parked[t]; !ok || !now.due.Equal(p.due) {
		return
	}
	delete(r.parked, t)
	if p.place != nil {
		p.place()
	}
}

// begin looks once for what an earlier process has parked and not put back.
func (r *returns) begin(ctx context.Context) {
	if r == nil || r.searched.Load() || r.searched.Swap(true) {
		return
	}
	log := loggerOf(ctx)
	go func() {
		if err := r.search(); err != nil {
			r.searched.Store(false) // the next task's turn
			log.Warn(fmt.Sprintf("asynqmw: the archive could not be searched for tasks to put back: %v", err))
		}
	}()
}

func (r *returns) search() error {
	queues, err := r.inspector.Queues()
	for _, queue := range queues {
		var left []string
		if left, err = r.left(queue); err != nil {
			return err
		}
		for _, id := range left {
			t := parkedTask{queue, id}
			if r.knows(t) {
				continue
			}
			if _, err = r.unarchive(t); err != nil {
				return err
			}
		}
	}
	return err
}

// knows tells whether the task was parked by this process, which puts it back when it is due.
func (r *returns) knows(t parkedTask) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.parked[t]
	return ok
}

// left is the ids of the parked tasks in the archive of a queue.
func (r *returns) left(queue string) (ids []string, err error) {
	const size = 100
	for page := 1; ; page++ {
		tasks, err := r.inspector.ListArchivedTasks(queue, asynq.PageSize(size), asynq.Page(page))
		if err != nil && !gone(err) {
			return nil, err
		}
		for _, t := range tasks {
			if wasParked(t.LastErr) {
				ids = append(ids, t.ID)
			}
		}
		if len(tasks) < size {
			return ids, nil
		}
	}
}

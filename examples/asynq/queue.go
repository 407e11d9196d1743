package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hibiken/asynq"
)

// queue is one of asynq's queues, with a name of its own.
type queue struct {
	name      string
	client    *asynq.Client
	inspector *asynq.Inspector
}

func newQueue(redis asynq.RedisConnOpt, about string) *queue {
	return &queue{
		name:      "execguard-demo-" + about + "-" + strings.ToLower(rand.Text()[:8]),
		client:    asynq.NewClient(redis),
		inspector: asynq.NewInspector(redis),
	}
}

// enqueue adds the pages of a device, every third of them as one that is never to be retried.
func (q *queue) enqueue(device string, pages ...int) error {
	for _, page := range pages {
		retries := 3
		if page%3 == 0 {
			retries = 0
		}
		t := asynq.NewTaskWithHeaders(pageTask, fmt.Append(nil, page), map[string]string{"device": device})
		if _, err := q.client.Enqueue(t, asynq.Queue(q.name), asynq.MaxRetry(retries), asynq.Retention(time.Hour)); err != nil {
			return err
		}
	}
	return nil
}

// state is what asynq knows of a queue.
type state struct {
	pending int // to be fetched
	held    int // at work, or held by the middleware
	back    int // to be fetched later
	handled int
	lost    int // archived
	spent   int // retries
}

func (q *queue) state() (s state, err error) {
	info, err := q.inspector.GetQueueInfo(q.name)
	if err != nil {
		return s, err
	}
	s = state{pending: info.Pending, held: info.Active, back: info.Retry, handled: info.Completed, lost: info.Archived}
	for _, list := range []func(string, ...asynq.ListOption) ([]*asynq.TaskInfo, error){
		q.inspector.ListPendingTasks, q.inspector.ListActiveTasks, q.inspector.ListRetryTasks,
		q.inspector.ListCompletedTasks, q.inspector.ListArchivedTasks,
	} {
		tasks, err := list(q.name, asynq.PageSize(1000))
		if err != nil {
			return s, err
		}
		for _, t := range tasks {
			s.spent += t.Retried
		}
	}
	return s, nil
}

// remove takes the queue out of Redis. No server works on it any more.
func (q *queue) remove() error {
	_, err := q.inspector.DeleteAllCompletedTasks(q.name)
	if err == nil {
		err = q.inspector.DeleteQueue(q.name, true)
	}
	if errors.Is(err, asynq.ErrQueueNotFound) {
		err = nil // nothing was enqueued
	}
	return errors.Join(err, q.client.Close(), q.inspector.Close())
}

package asynqmw_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
)

// work is a handler that notes what it is given. By default it does nothing.
type work struct {
	act func(ctx context.Context, t *asynq.Task) error

	mu    sync.Mutex
	runs  []visit
	live  map[string]int
	twice bool // two copies of one task have been at work at the same time
}

// visit is one call of a handler.
type visit struct {
	id  string
	at  time.Time
	ctx context.Context
}

// working makes a handler of what it is to do.
func working(act func(ctx context.Context, t *asynq.Task) error) *work {
	return &work{act: act, live: map[string]int{}}
}

// done is a handler that does nothing, well.
func done() *work { return working(func(context.Context, *asynq.Task) error { return nil }) }

// ProcessTask is asynq.Handler's.
func (w *work) ProcessTask(ctx context.Context, t *asynq.Task) error {
	id, _ := asynq.GetTaskID(ctx)
	w.mu.Lock()
	w.runs = append(w.runs, visit{id, time.Now(), ctx})
	w.live[id]++
	w.twice = w.twice || w.live[id] > 1
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.live[id]--
	}()
	return w.act(ctx, t)
}

// visits is every call so far, of one task or, for "", of all.
func (w *work) visits(id string) []visit {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.runs), func(v visit) bool { return id != "" && v.id != id })
}

// await waits for the n-th call for a task.
func (w *work) await(t testing.TB, id string, n int) visit {
	t.Helper()
	eventually(t, fmt.Sprintf("call %d of the handler", n), func() bool { return len(w.visits(id)) >= n })
	return w.visits(id)[n-1]
}

// want wants the handler to have been called so often, and never for a task that it was at work on.
func (w *work) want(t testing.TB, id string, n int) {
	t.Helper()
	if got := len(w.visits(id)); got != n {
		t.Errorf("the handler was called %d times, want %d", got, n)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.twice {
		t.Error("two copies of one task were at work")
	}
}

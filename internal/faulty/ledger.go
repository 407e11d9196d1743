package faulty

import (
	"context"
	"slices"
	"sync"
)

// Ledger is a list that only grows, and that can be waited for. It makes channels only on the
// goroutines that wait, because one made outside of a synctest bubble cannot be waited for
// inside. The zero value is an empty ledger.
type Ledger[T any] struct {
	mu      sync.Mutex
	entries []T
	waiters []chan struct{} // closed by the next entry
}

// Add appends an entry and returns its index.
func (l *Ledger[T]) Add(entry T) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, entry)
	for _, w := range l.waiters {
		close(w)
	}
	l.waiters = nil
	return len(l.entries) - 1
}

// Amend changes the i-th entry.
func (l *Ledger[T]) Amend(i int, change func(*T)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.entries[i])
}

// All returns a copy of the entries.
func (l *Ledger[T]) All() []T {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.entries)
}

// Wait blocks until there are n entries, or until ctx ends, whose cause it then returns. It
// returns the entries in both cases.
func (l *Ledger[T]) Wait(ctx context.Context, n int) ([]T, error) {
	for {
		entries, more := l.watch(n)
		if more == nil {
			return entries, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return entries, context.Cause(ctx)
		}
	}
}

// watch returns the entries and, where they are fewer than n, what the next one closes.
func (l *Ledger[T]) watch(n int) (entries []T, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.entries) >= n {
		return slices.Clone(l.entries), nil
	}
	w := make(chan struct{})
	l.waiters = append(l.waiters, w)
	return slices.Clone(l.entries), w
}

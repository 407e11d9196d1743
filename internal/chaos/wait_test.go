package chaos_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/execguard/execguard/internal/chaos"
)

// within waits for a channel to be closed.
func within(d time.Duration, done <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// eventually waits until something holds.
func eventually(holds func() bool) bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for !holds() {
		if pause(ctx, 5*ms) != nil {
			return false
		}
	}
	return true
}

// report fails the test over the problems, and prints the figures.
func report(t *testing.T, what string, found chaos.Findings) {
	t.Helper()
	for i, problem := range found.Problems {
		if i == 10 {
			t.Errorf("%s: and %d more", what, len(found.Problems)-i)
			break
		}
		t.Errorf("%s: %s", what, problem)
	}
	t.Logf("%s: %v", what, found)
}

// errBroken is what some functions return.
var errBroken = errors.New("the work has gone wrong by itself")

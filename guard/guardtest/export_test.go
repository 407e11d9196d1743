package guardtest

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// Recorder is a testing.TB that remembers what was reported to it, so that a test can watch
// another one fail. Run it around what reports.
type Recorder struct {
	testing.TB

	mu       sync.Mutex
	errors   []string
	skipped  bool
	cleanups []func()
}

// Run calls f on a goroutine of its own, which Fatalf and Skip may end, and then what f left
// to Cleanup.
func Run(t testing.TB, f func(*Recorder)) *Recorder {
	t.Helper()
	r := &Recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(r)
	}()
	<-done
	for _, cleanup := range slices.Backward(r.cleanups) {
		cleanup()
	}
	return r
}

// Errors returns what was reported.
func (r *Recorder) Errors() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.errors)
}

// Skipped tells whether Skip was called.
func (r *Recorder) Skipped() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.skipped
}

func (r *Recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func (r *Recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *Recorder) Skip(...any) {
	r.mu.Lock()
	r.skipped = true
	r.mu.Unlock()
	runtime.Goexit()
}

func (r *Recorder) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *Recorder) Helper()                  {}
func (r *Recorder) Context() context.Context { return r.TB.Context() }

// CheckNames lists the checks of TestValidator.
func CheckNames() []string {
	var names []string
	for _, c := range checks() {
		names = append(names, c.name)
	}
	return names
}

// Try runs one check of TestValidator on a subject.
func Try(t testing.TB, name string, patience time.Duration, s Subject) *Recorder {
	t.Helper()
	return Run(t, func(r *Recorder) {
		i := slices.IndexFunc(checks(), func(c check) bool { return c.name == name })
		on := newTrial(r, s)
		on.patience = patience
		checks()[i].run(on)
	})
}

// Quiet waits until the server has no connection left. It returns false if that takes longer
// than patience.
func (s *Server) Quiet(patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	return s.host.Quiet(ctx) == nil
}

// Holds waits until the server keeps a connection from being served, and returns false if that
// takes longer than patience.
func (s *Server) Holds(patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	return s.host.Holds(ctx) == nil
}

package asynqmw_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
)

// TestNotConfigured is not parallel: the default logger is everybody's.
func TestNotConfigured(t *testing.T) {
	lines := defaultLog(t)
	sideBySide(t, map[string]func(t *testing.T){
		"every refused task is held": func(t *testing.T) { unmarkedHeld(t, lines) },
		"until its own deadline":     unmarkedDeadline,
		"also beyond WithMaxHeld":    unmarkedWithoutAPlace,
		"stopped while it is at work": func(t *testing.T) {
			s := newSite(t)
			w := working(func(ctx context.Context, _ *asynq.Task) error {
				<-ctx.Done()
				return asynq.RevokeTask
			})
			shutdown := s.startBare(t, s.config, s.around(w))
			id := s.enqueue(t, asynq.MaxRetry(3))
			w.await(t, id, 1)
			s.revoke(guard.CodeDeviceRevoked)
			s.asked(t, 2)
			s.unspent(t, id, asynq.TaskStateActive, 0)
			shutdown()
			s.unspent(t, id, asynq.TaskStatePending, 0)
		},
	})
}

// defaultLog has slog's default write into what it returns, until the test ends.
func defaultLog(t *testing.T) *lockedBuffer {
	t.Helper()
	before, b := slog.Default(), &lockedBuffer{}
	slog.SetDefault(slog.New(slog.NewTextHandler(b, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	return b
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// A server without Configure would spend a retry for each refusal: it is told once, and none is spent.
func unmarkedHeld(t *testing.T, lines *lockedBuffer) {
	const warning = "the server's Config has not passed Configure"
	before := lines.count(warning)
	s, w := newSite(t), done()
	s.Deny(device, guard.CodeDeviceRevoked)
	shutdown := s.startBare(t, s.config, s.around(w, asynqmw.WithInspector(s.inspector)))
	var ids []string
	for range 5 {
		ids = append(ids, s.enqueue(t, asynq.MaxRetry(3), asynq.Retention(time.Hour)))
	}
	s.asked(t, 3)
	held := func() bool { return counts(t, s.inspector, "default") == count{active: 5} }
	eventually(t, "all are held", held)
	throughout(t, 2*time.Second, "all are held", held)
	if n := lines.count(warning) - before; n < 1 || n > 4 { // one of each server here
		t.Errorf("warned %d times", n)
	}
	shutdown()
	for _, id := range ids {
		s.unspent(t, id, asynq.TaskStatePending, 0)
	}
	s.Allow(device)
	s.startBare(t, s.config, s.around(w))
	for _, id := range ids {
		s.unspent(t, id, asynq.TaskStateCompleted, 0)
		w.want(t, id, 1)
	}
}

// The warning says so: at its deadline asynq spends a retry whatever the task returns.
func unmarkedDeadline(t *testing.T) {
	s, w := newSite(t), done()
	s.Deny(device, guard.CodeDeviceRevoked)
	s.startBare(t, s.config, s.around(w, asynqmw.WithInspector(s.inspector)))
	id := s.enqueue(t, asynq.MaxRetry(1), asynq.Timeout(time.Second), asynq.Retention(time.Hour))
	eventually(t, "a retry is spent", func() bool { return s.info(t, id).Retried == 1 })
	info := s.await(t, id, asynq.TaskStateArchived) // and the last attempt is parked as in any server
	if !strings.HasPrefix(info.LastErr, parkedText) {
		t.Errorf("LastErr = %q", info.LastErr)
	}
	s.Allow(device)
	s.unspent(t, id, asynq.TaskStateCompleted, 1)
	w.want(t, id, 1)
}

// Nor does it where there is no place among those held: to go back would cost a retry each time.
func unmarkedWithoutAPlace(t *testing.T) {
	s, w := newSite(t), done()
	s.Deny(device, guard.CodeDeviceRevoked)
	s.startBare(t, s.config, s.around(w, asynqmw.WithInspector(s.inspector), asynqmw.WithMaxHeld(1)))
	var ids []string
	for range 3 {
		ids = append(ids, s.enqueue(t, asynq.MaxRetry(25), asynq.Retention(time.Hour)))
	}
	held := func() bool { return counts(t, s.inspector, "default") == count{active: 3} }
	eventually(t, "all are held", held)
	s.asked(t, 3)
	throughout(t, 2*interval, "all are held", held)
	s.Allow(device)
	for _, id := range ids {
		s.unspent(t, id, asynq.TaskStateCompleted, 0)
		w.want(t, id, 1)
	}
}

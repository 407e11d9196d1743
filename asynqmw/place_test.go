package asynqmw_test

import (
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
)

// A task for which there is no place among those held goes through the archive at once.
func TestWithMaxHeld(t *testing.T) {
	t.Parallel()
	sideBySide(t, map[string]func(t *testing.T){
		"at most so many":         parkedForWantOfPlace,
		"none":                    parkedAtOnce,
		"without an Inspector":    parkedAtOnceForGood,
		"a hundred, and no more":  parkedByTheHundred,
		"by a guard that is over": parkedByClosed,
		"not put back too soon":   parkedForInterval,
		"with retries left":       notParkedByClosed,
	})
}

// Two are held, and others go on: those of the other device at once, those of the same through the archive.
func parkedForWantOfPlace(t *testing.T) {
	s, w := newSite(t), done()
	s.config.Concurrency = 4
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, asynqmw.New(s.guard, asynqmw.FromHeader("device"), asynqmw.WithInspector(s.inspector), asynqmw.WithMaxHeld(2))(w))
	var denied []string
	for range 6 {
		denied = append(denied, s.enqueueFor(t, device, asynq.MaxRetry(0), asynq.Retention(time.Hour)))
	}
	eventually(t, "two are held", func() bool { c := counts(t, s.inspector, "default"); return c == count{active: 2, archived: 4} })
	for range 20 {
		s.enqueueFor(t, other, asynq.MaxRetry(0))
	}
	eventually(t, "the other device's are done", func() bool { return len(w.visits("")) == 20 })
	for _, id := range denied {
		w.want(t, id, 0)
	}
	s.Allow(device)
	for _, id := range denied {
		s.unspent(t, id, asynq.TaskStateCompleted, 0)
		w.want(t, id, 1)
	}
}

func parkedAtOnce(t *testing.T) {
	s, w := newSite(t, guard.WithInterval(time.Second)), done()
	s.config.Concurrency = 1
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(w, asynqmw.WithInspector(s.inspector), asynqmw.WithMaxHeld(0)))
	var ids []string
	for range 3 {
		ids = append(ids, s.enqueue(t, asynq.MaxRetry(0), asynq.Retention(time.Hour)))
	}
	eventually(t, "all are parked", func() bool { return counts(t, s.inspector, "default") == count{archived: 3} })
	s.Allow(device)
	for _, id := range ids {
		s.unspent(t, id, asynq.TaskStateCompleted, 0)
		w.want(t, id, 1)
	}
	if all := s.reported.get(); len(all) > 0 {
		t.Errorf("the ErrorHandler was given %v", all)
	}
}

func parkedAtOnceForGood(t *testing.T) {
	s, w := newSite(t), done()
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(w, asynqmw.WithMaxHeld(0)))
	lost, back := s.enqueue(t, asynq.MaxRetry(0)), s.enqueue(t, asynq.MaxRetry(1))
	s.unspent(t, lost, asynq.TaskStateArchived, 0)
	s.unspent(t, back, asynq.TaskStateRetry, 0)
	s.lost(t, lost)
	w.want(t, "", 0)
}

// At most a hundred are in the archive at a time; the others wait for a place there.
func parkedByTheHundred(t *testing.T) {
	const n = 130
	s, w := newSite(t, guard.WithInterval(time.Second)), done()
	s.config.Concurrency = 2 * n
	s.Deny(device, guard.CodeDeviceRevoked)
	s.start(t, s.around(w, asynqmw.WithInspector(s.inspector), asynqmw.WithMaxHeld(0)))
	for range n {
		s.enqueue(t, asynq.MaxRetry(0), asynq.Retention(time.Hour))
	}
	most := 0
	eventually(t, "a hundred are parked", func() bool {
		most = max(most, counts(t, s.inspector, "default").archived)
		return most >= 100
	})
	throughout(t, 3*time.Second, "no more than a hundred", func() bool { return counts(t, s.inspector, "default").archived <= 100 })
	w.want(t, "", 0)
	s.Allow(device)
	eventually(t, "all are done", func() bool { return counts(t, s.inspector, "default") == count{completed: n} })
	w.want(t, "", n)
}

func parkedByClosed(t *testing.T) {
	s, w := newSite(t), done()
	_ = s.guard.Close()
	outside := working(s.around(w, asynqmw.WithInspector(s.inspector), asynqmw.WithMaxHeld(0)).ProcessTask)
	shutdown := s.start(t, outside)
	id := s.enqueue(t, asynq.MaxRetry(0))
	outside.await(t, id, 3) // put back twice
	shutdown()
	w.want(t, "", 0)
	back := func() bool { return counts(t, s.inspector, "default") == count{pending: 1} }
	eventually(t, "it is put back for the next process", back)
	throughout(t, 2*time.Second, "it stays there", back) // and this one's inspector is open until it needs it no more
}

// A task that this process has parked is away for as long as it should be, also when it was the first.
func parkedForInterval(t *testing.T) {
	const long, n = 3 * time.Second, 20
	s, w := newSite(t, guard.WithInterval(long)), done()
	s.config.Concurrency = n
	s.Deny(device, guard.CodeDeviceRevoked)
	outside := working(s.around(w, asynqmw.WithInspector(s.inspector), asynqmw.WithMaxHeld(0)).ProcessTask)
	for range n {
		s.enqueue(t, asynq.MaxRetry(0), asynq.Retention(time.Hour))
	}
	s.start(t, outside)
	eventually(t, "all have been there", func() bool { return len(outside.visits("")) >= n })
	throughout(t, long*2/3, "each was there once", func() bool { return len(outside.visits("")) == n })
	s.Allow(device)
	eventually(t, "all are done", func() bool { return counts(t, s.inspector, "default") == count{completed: n} })
}

// A guard that is closed holds tasks with retries left too. Those for which there is no place need none in the archive: they go back.
func notParkedByClosed(t *testing.T) {
	const n = 130
	s := newSite(t, guard.WithInterval(time.Hour))
	s.config.Concurrency = n
	_ = s.guard.Close()
	s.start(t, s.around(done(), asynqmw.WithInspector(s.inspector), asynqmw.WithMaxHeld(1)))
	for range n {
		s.enqueue(t, asynq.MaxRetry(1))
	}
	eventually(t, "all but one go back", func() bool { return counts(t, s.inspector, "default") == count{active: 1, retry: n - 1} })
}

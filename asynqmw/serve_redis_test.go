package asynqmw_test

import (
	"testing"
	"time"

	"github.com/hibiken/asynq"
)

// A Redis that does not answer must not keep handlers from being told, and costs no task.
func TestServeIsDeniedWhileRedisIsGone(t *testing.T) {
	t.Parallel()
	server := ownRedis(t)
	opt := server.opt(0)
	opt.ReadTimeout, opt.WriteTimeout = 300*time.Millisecond, 300*time.Millisecond
	s := newServingOn(t, opt, untilStopped)
	s.config.ShutdownTimeout = 2 * time.Second
	s.start()
	last, more := serveIDs("last", 2), serveIDs("more", 2)
	s.enqueue(last, asynq.MaxRetry(0))
	s.enqueue(more, asynq.MaxRetry(3))
	s.work.atWork(t, 4)
	server.stop(t)
	s.revoke()
	s.work.atWork(t, 0) // told, and returned
	server.cont(t)
	s.become(count{pending: 4})
	s.nothingSpent(append(last, more...)...)
	s.restore()
	s.work.atWork(t, 4)
}

// Nor must it keep Serve from ending, or from serving on when it is back.
func TestServeEndsWhileRedisIsGone(t *testing.T) {
	t.Parallel()
	server := ownRedis(t)
	opt := server.opt(0)
	opt.ReadTimeout, opt.WriteTimeout = 300*time.Millisecond, 300*time.Millisecond
	s := newServingOn(t, opt, atOnce)
	s.start().enqueue([]string{"before"}, asynq.MaxRetry(0))
	s.handled(1)
	server.stop(t)
	s.asked(2)
	server.cont(t)
	s.enqueue([]string{"after"}, asynq.MaxRetry(0))
	s.handled(2)
	server.stop(t)
	s.end(errServeOver)
	if err := s.result(); err != errServeOver {
		t.Errorf("Serve returned %v", err)
	}
	server.cont(t)
}

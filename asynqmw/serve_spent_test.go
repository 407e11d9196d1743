package asynqmw_test

import (
	"errors"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// A retry that a denial costs, because the task's own Timeout is over before the server has shut down and the Config has
// not passed Configure, is told of. The test is not parallel: the default logger is everybody's.
func TestServeTellsOfARetryThatIsSpent(t *testing.T) {
	lines := defaultLog(t)
	s := newServing(t, untilStopped)
	s.config.ShutdownTimeout = time.Minute
	s.config.DelayedTaskCheckInterval = time.Minute
	s.start().enqueue([]string{"spent"}, asynq.MaxRetry(3), asynq.Timeout(time.Second))
	s.work.atWork(t, 1)
	s.revoke()
	s.become(count{retry: 1})
	if n := lines.count("asynqmw: task id=spent spends a retry on a denial"); n != 1 {
		t.Errorf("%d lines of log tell of it", n)
	}
	serveAwait(t, s.noServer)
}

// When Periodic takes a schedule out, it tells why: for the same reason not parallel.
func TestPeriodicTellsWhy(t *testing.T) {
	lines := defaultLog(t)
	g, v := newGuard(t)
	v.Always(device, guardtest.Reply(guard.Decision{}, errors.New("503")))
	for range 2 {
		if configs, err := asynqmw.Periodic(g, device, &provider{}).GetConfigs(); len(configs) != 0 || err != nil {
			t.Errorf("%v, %v", configs, err)
		}
	}
	if n := lines.count("code=SYSTEM_UNAVAILABLE"); n != 2 || lines.count(" reason=") != n || lines.count("device="+device) != n {
		t.Errorf("%d lines of log tell of it", n)
	}
}

package asynqmw_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// TestLogged is not parallel: the default logger is everybody's, and is told where a server has none of its own,
// or is not known yet.
func TestLogged(t *testing.T) {
	lines := defaultLog(t)
	tests := map[string]func(t *testing.T){
		"once when and once that again nothing is scheduled": func(t *testing.T) { loggedPeriodic(t, lines) },
		"a search that fails, once":                          func(t *testing.T) { loggedSearchOnce(t, lines) },
		"a search that fails, once an interval":              loggedSearchAgain,
	}
	for level, want := range map[asynq.LogLevel][2]int{
		0: {1, 1}, asynq.DebugLevel: {1, 1}, asynq.WarnLevel: {1, 1}, asynq.ErrorLevel: {0, 1}, asynq.FatalLevel: {0, 0},
	} {
		tests[fmt.Sprint("down to level ", int32(level))] = func(t *testing.T) { loggedDownTo(t, level, want) }
		tests[fmt.Sprint("to the default down to level ", int32(level))] = func(t *testing.T) { loggedToDefault(t, lines, level, want) }
	}
	for _, configured := range []bool{false, true} {
		tests[fmt.Sprint("a retry that Serve has to spend, configured ", configured)] = func(t *testing.T) { loggedRetry(t, lines, configured) }
	}
	sideBySide(t, tests)
}

// loggedNoDevice has a task archived for want of a device and of a place, which is one warning and one error.
func (s *site) loggedNoDevice(t *testing.T) (id string) {
	t.Helper()
	w := done()
	s.start(t, asynqmw.New(s.guard, asynqmw.FromHeader("device"), asynqmw.WithMaxHeld(0))(w))
	id = s.enqueue(t, asynq.MaxRetry(0))
	s.await(t, id, asynq.TaskStateArchived) // what there is to log was logged before
	w.want(t, "", 0)
	return id
}

func loggedDownTo(t *testing.T, level asynq.LogLevel, want [2]int) {
	s := newSite(t)
	s.config.LogLevel = level
	s.loggedNoDevice(t)
	warned, told := s.log.ours("name no device"), s.log.ours("stays in the archive")
	if len(warned) != want[0] || len(told) != want[1] {
		t.Errorf("warned %q, told %q, want %d and %d lines", warned, told, want[0], want[1])
	}
}

func loggedToDefault(t *testing.T, lines *lockedBuffer, level asynq.LogLevel, want [2]int) {
	s := newSite(t)
	s.config.Logger, s.config.LogLevel = nil, level
	id := s.loggedNoDevice(t)
	warned, told := lines.count("level=WARN msg=\"asynqmw: task id="+id), lines.count("level=ERROR msg=\"asynqmw: task id="+id)
	if warned != want[0] || told != want[1] {
		t.Errorf("%d warnings and %d errors, want %d and %d", warned, told, want[0], want[1])
	}
}

// The manager asks again and again: there is one line each time that the schedule goes.
func loggedPeriodic(t *testing.T, lines *lockedBuffer) {
	const id = "scheduler:logged:01"
	v, p := guardtest.NewValidator(id), newProvider("one")
	of := asynqmw.Periodic(v, id, p)
	asked := func(times, want int) {
		t.Helper()
		for range times {
			if _, err := of.GetConfigs(); err != nil {
				t.Error(err)
			}
		}
		if n := lines.count("nothing periodic is scheduled\" device=" + id + " code=DEVICE_REVOKED request_id=script-"); n != want {
			t.Errorf("%d lines, want %d", n, want)
		}
	}
	asked(2, 0)
	v.Deny(id, guard.CodeDeviceRevoked)
	asked(3, 1)
	v.Allow(id)
	asked(2, 1)
	v.Deny(id, guard.CodeDeviceRevoked)
	asked(3, 2)
}

// nowhere is an Inspector whose Redis cannot be reached.
func nowhere(t *testing.T) *asynq.Inspector {
	t.Helper()
	addr, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return newInspector(t, asynq.RedisClientOpt{Addr: addr})
}

const noSearch = "the archive could not be searched"

// New has tried it. An interval is an hour, and so the tasks have nothing to try.
func loggedSearchOnce(t *testing.T, lines *lockedBuffer) {
	before := lines.count(noSearch)
	s, w := newSite(t, guard.WithInterval(time.Hour)), done()
	h := s.around(w, asynqmw.WithInspector(nowhere(t)))
	eventually(t, "New's own search", func() bool { return lines.count(noSearch) > before })
	s.start(t, h)
	for range 50 {
		s.enqueue(t)
	}
	w.await(t, "", 50)
	throughout(t, time.Second, "no task searches", func() bool { return len(s.log.ours(noSearch)) == 0 })
}

// Tasks come all the time, and one an interval tries again.
func loggedSearchAgain(t *testing.T) {
	s, w := newSite(t), done()
	begin := time.Now()
	s.start(t, s.around(w, asynqmw.WithInspector(nowhere(t))))
	eventually(t, "three further searches", func() bool {
		s.enqueue(t)
		return len(s.log.ours(noSearch)) >= 3
	})
	if n, most := len(s.log.ours(noSearch)), int(time.Since(begin)/interval); n > most {
		t.Errorf("%d searches in %v, and one an interval is %d", n, time.Since(begin), most)
	}
	if n := len(w.visits("")); n < 10 {
		t.Errorf("%d tasks in all that time", n)
	}
}

// A task whose own end comes before the server has shut down spends a retry, unless the Config has passed Configure.
func loggedRetry(t *testing.T, lines *lockedBuffer, configured bool) {
	s := newServing(t, func(ctx context.Context, _ *asynq.Task) error {
		<-ctx.Done()
		return ctx.Err()
	})
	s.config.ShutdownTimeout, s.config.DelayedTaskCheckInterval = time.Minute, time.Minute
	if configured {
		s.config = asynqmw.Configure(s.config)
	}
	id := fmt.Sprint("short-", configured)
	s.start().enqueue([]string{id}, asynq.MaxRetry(3), asynq.Timeout(time.Second))
	s.work.atWork(t, 1)
	s.revoke()
	s.become(count{retry: 1})
	info, err := s.inspector.GetTaskInfo(servedQueue, id)
	if err != nil {
		t.Fatal(err)
	}
	if told := lines.count("level=WARN msg=\"asynqmw: task id=" + id + " spends a retry on a denial"); told != info.Retried || configured != (told == 0) {
		t.Errorf("%d retries were spent, and %d lines say so", info.Retried, told)
	}
	if n := s.log.said("task id=" + id + " spends a retry"); n != 0 {
		t.Errorf("the server's own logger was told %d times", n)
	}
}

package asynqmw_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
)

// kill kills a worker and starts the next one in its place.
func (s *soakRun) kill(t *testing.T, slot *soakSlot) {
	if s.change(t, slot, (*soakWorker).kill) {
		s.killed++
	}
}

// leave has a worker shut down and starts the next one in its place.
func (s *soakRun) leave(t *testing.T, slot *soakSlot) {
	if s.change(t, slot, (*soakWorker).leave) {
		s.departed++
	}
}

func (s *soakRun) change(t *testing.T, slot *soakSlot, end func(*soakWorker, testing.TB, *soakLedger)) bool {
	w := slot.claim()
	if w == nil {
		return false
	}
	s.changes.Go(func() {
		defer slot.yield()
		end(w, t, s.ledger)
		if err := slot.start(); err != nil {
			t.Error(err)
		}
	})
	return true
}

// endAll ends the workers of a test that has given up.
func (s *soakRun) endAll() {
	s.changes.Wait()
	for _, slot := range s.slots {
		if w := slot.worker; w != nil {
			_ = w.cmd.Process.Kill()
			<-w.ended
		}
	}
}

// drain waits until everything that can be done is done, now that every device is allowed: all but
// what has died with a worker, if that is not to be waited for.
func (s *soakRun) drain(t *testing.T) {
	limit := time.NewTimer(s.patience)
	defer limit.Stop()
	again := time.NewTicker(500 * time.Millisecond)
	defer again.Stop()
	var active []string
	quiet := 0
	for n := 0; quiet < 8; n++ { // for four seconds nothing has changed
		select {
		case <-again.C:
		case <-limit.C:
			t.Errorf("not done after %v: %+v", s.patience, counts(t, s.inspector, soakQueue))
			return
		}
		now, settled := s.settled(t, n)
		if quiet++; !settled || !slices.Equal(now, active) {
			quiet = 0
		}
		active = now
	}
}

// settled returns the ids of the active tasks, and whether all else is done.
func (s *soakRun) settled(t *testing.T, n int) (active []string, settled bool) {
	tasks, err := s.inspector.ListActiveTasks(soakQueue, asynq.PageSize(1000))
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range tasks {
		active = append(active, info.ID)
	}
	slices.Sort(active)
	archived, err := s.inspector.ListArchivedTasks(soakQueue, asynq.PageSize(10_000))
	if err != nil {
		t.Fatal(err)
	}
	if note(s.parked, archived) > 0 && n%4 == 0 {
		s.nudge(t, n)
	}
	c := counts(t, s.inspector, soakQueue)
	settled = c.pending+c.scheduled+c.retry+c.aggregating == 0 && note(s.parked, archived) == 0 && s.ledger.idle()
	if s.recovers {
		settled = settled && c.active == 0 && s.aggregated(t)
	}
	return active, settled
}

// nudge is one more task: what a killed worker has left in the archive is put back with the first
// task of the one in its place.
func (s *soakRun) nudge(t *testing.T, n int) {
	id := fmt.Sprintf("nudge-%05d", n)
	s.enqueue(t, &soakTask{
		id: id, job: soakJob{Key: id, Kind: soakPlain}, device: s.devices[n%len(s.devices)], retry: 25,
		opts: []asynq.Option{asynq.TaskID(id), asynq.Queue(soakQueue)},
	})
}

// aggregated tells whether no task is part of an aggregation that a killed worker has left.
func (s *soakRun) aggregated(t *testing.T) bool {
	for id, task := range s.enqueued {
		if task.job.Kind != soakGrouped {
			continue
		}
		if _, err := s.inspector.GetTaskInfo(soakQueue, id); err == nil {
			return false
		}
	}
	return true
}

// judge draws up the account.
func (s *soakRun) judge(t *testing.T) {
	for _, slot := range s.slots {
		s.changes.Go(func() { slot.claim().leave(t, s.ledger) })
	}
	s.changes.Wait()
	a := newSoakAccount(t, s.inspector, s.ledger)
	for _, task := range s.enqueued {
		a.enter(t, s.inspector, task)
		if a.tooSoon(s.ledger, task) {
			a.bad = append(a.bad, a.story(task, fateStrange, a.stored[task.id])+"\n\tgiven up too soon")
		}
	}
	found := map[string][]string{
		"has not come to its end":                          a.bad,
		"has spent a retry on a denial":                    a.spent(s.ledger),
		"ran twice at a time":                              a.copies(),
		"unique, and there were two":                       s.unlocked(a),
		"asynq was done with it while its handler went on": a.outlived(s.outage > 0),
	}
	t.Logf("%d tasks (%s) in %.0f s in %s: %v; retries spent by a denial %d, two live copies %d; seen refused %d and parked %d; "+
		"handlers %v; %d revocations, %d workers killed, %d shut down, Redis stopped %d times, twins of a unique task refused %d",
		len(s.enqueued), s.kinds(), time.Since(s.began).Seconds(), s.redis.version, a, len(found["has spent a retry on a denial"]),
		len(found["ran twice at a time"]), len(s.refused), len(s.parked), s.ledger.outcomes(), s.revocations, s.killed, s.departed,
		s.paused, s.doubles)
	for what, found := range found {
		if len(found) > 0 {
			t.Errorf("%s: %d\n%s", what, len(found), strings.Join(found[:min(len(found), 20)], "\n"))
		}
	}
	s.judgeRest(t, a)
}

// kinds counts the tasks.
func (s *soakRun) kinds() string {
	n := map[string]int{}
	for _, task := range s.enqueued {
		n[task.job.Kind]++
	}
	return strings.Trim(fmt.Sprint(n), "map[]")
}

// judgeRest looks whether what there was to be seen was there, and nothing else.
func (s *soakRun) judgeRest(t *testing.T, a *soakAccount) {
	most := s.killed * (soakWorkers + len(s.devices)*soakGroup)
	if s.recovers {
		most = 0
	}
	if waiting := a.tally[fateWaiting]; waiting != a.orphans || waiting > most {
		t.Errorf("%d tasks wait, %d of them for asynq's crash recovery: all are allowed, and at most %d died with a worker",
			waiting, a.orphans, most)
	}
	if s.ledger.outcomes()[soakDenied] == 0 || !s.serve && (len(s.refused) == 0 || len(s.parked) == 0) {
		t.Error("no denial has met a task: nothing was proven")
	}
	if t.Failed() {
		t.Logf("the middleware logged:\n%s", strings.Join(s.ledger.notes, "\n"))
	}
}

// unlocked finds unique tasks of which a second one was let in before the first was done.
func (s *soakRun) unlocked(a *soakAccount) (found []string) {
	for id, at := range s.twins {
		key := s.enqueued[id].job.Key
		if !slices.ContainsFunc(a.spans[key], func(s *soakSpan) bool {
			return s.outcome == soakOK && s.id != id && s.end <= at.UnixNano()
		}) {
			found = append(found, fmt.Sprintf("%s, let in at %v: %s", id, at, a.story(s.enqueued[id], fateStrange, nil)))
		}
	}
	return found
}

package asynqmw_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/hibiken/asynq"
)

// soakFate is what has become of a task, from the best on.
type soakFate int

const (
	fateDone    soakFate = iota
	fateFailed           // archived after failures that were meant
	fateWaiting          // in Redis, and its turn is still to come
	fateCrashed          // archived by asynq's own recovery from a crash
	fateLate             // archived at its own deadline
	fateDenied           // archived by a denial
	fateStrange          // archived for another reason
	fateLost             // gone
	fates
)

var fateNames = [fates]string{"done", "failed as meant", "waiting", "archived by crash recovery",
	"archived at the deadline", "archived by a denial", "archived otherwise", "lost"}

// soakAccount is what has become of all tasks. It is drawn up when no worker lives.
type soakAccount struct {
	stored     map[string]*asynq.TaskInfo // by id: what is in Redis
	spans      map[string][]*soakSpan     // by key
	aggregates map[string][]string        // the keys of the aggregated tasks in which a task is, by its own
	whole      map[string]*asynq.TaskInfo // the aggregated tasks in Redis, by key
	tally      [fates]int
	orphans    int // of those that wait: active, or being aggregated, with no worker that lives
	bad        []string
}

func newSoakAccount(t testing.TB, i *asynq.Inspector, l *soakLedger) *soakAccount {
	a := &soakAccount{
		stored: storedTasks(t, i), spans: l.byKey(), aggregates: map[string][]string{}, whole: map[string]*asynq.TaskInfo{},
	}
	for _, info := range a.stored {
		if j := readSoakJob(info.Payload); j.Kind == soakAggregated {
			a.whole[j.Key] = info
			a.join(j.Key, j.Members)
		}
	}
	for key, spans := range a.spans {
		a.join(key, spans[0].members)
	}
	return a
}

func (a *soakAccount) join(aggregate string, members []string) {
	for _, m := range members {
		if !slices.Contains(a.aggregates[m], aggregate) {
			a.aggregates[m] = append(a.aggregates[m], aggregate)
		}
	}
}

// storedTasks is every task in Redis that can be listed, by id.
func storedTasks(t testing.TB, i *asynq.Inspector) map[string]*asynq.TaskInfo {
	t.Helper()
	stored := map[string]*asynq.TaskInfo{}
	lists := []func(string, ...asynq.ListOption) ([]*asynq.TaskInfo, error){
		i.ListPendingTasks, i.ListActiveTasks, i.ListScheduledTasks, i.ListRetryTasks, i.ListArchivedTasks, i.ListCompletedTasks,
	}
	for _, list := range lists {
		for page := 1; ; page++ {
			tasks, err := list(soakQueue, asynq.PageSize(1000), asynq.Page(page))
			if err != nil {
				t.Fatal(err)
			}
			for _, info := range tasks {
				stored[info.ID] = info
			}
			if len(tasks) < 1000 {
				break
			}
		}
	}
	return stored
}

// find also finds tasks that are in no list, because they are being aggregated.
func (a *soakAccount) find(t testing.TB, i *asynq.Inspector, id string) *asynq.TaskInfo {
	if info := a.stored[id]; info != nil {
		return info
	}
	info, err := i.GetTaskInfo(soakQueue, id)
	switch {
	case err == nil:
		a.stored[id] = info
		return info
	case !errors.Is(err, asynq.ErrTaskNotFound):
		t.Fatal(err)
	}
	return nil
}

// enter takes one task into the account.
func (a *soakAccount) enter(t testing.TB, i *asynq.Inspector, s *soakTask) {
	info := a.find(t, i, s.id)
	fate := fateLost
	switch {
	case info != nil:
		fate = a.fateOfStored(info, s.job)
	case s.job.Kind == soakGrouped:
		for _, key := range a.aggregates[s.job.Key] {
			fate = min(fate, a.fateOfAggregate(key))
		}
	case s.job.Kind != soakKept && a.done(s.job.Key, s.id):
		fate = fateDone
	}
	a.tally[fate]++
	if fate == fateWaiting && (info == nil || info.State == asynq.TaskStateActive || info.State == asynq.TaskStateAggregating) {
		a.orphans++
	}
	if fate >= fateLate {
		a.bad = append(a.bad, a.story(s, fate, info))
	}
}

func (a *soakAccount) fateOfStored(info *asynq.TaskInfo, j soakJob) soakFate {
	switch info.State {
	case asynq.TaskStateCompleted:
		return fateDone
	case asynq.TaskStateArchived:
		return fateOfArchived(info.LastErr, j)
	default:
		return fateWaiting
	}
}

func fateOfArchived(why string, j soakJob) soakFate {
	switch {
	case strings.HasPrefix(why, "asynqmw:"):
		return fateDenied
	case why == asynq.ErrLeaseExpired.Error():
		return fateCrashed
	case why == "context deadline exceeded":
		return fateLate
	case why == errSoakFail.Error() && j.Kind == soakPoison:
		return fateFailed
	}
	return fateStrange
}

func (a *soakAccount) fateOfAggregate(key string) soakFate {
	if info := a.whole[key]; info != nil {
		return a.fateOfStored(info, readSoakJob(info.Payload))
	}
	if a.done(key, "") {
		return fateDone
	}
	return fateLost
}

// done tells whether a handler has ended well, with its permission. id may be "".
func (a *soakAccount) done(key, id string) bool {
	return slices.ContainsFunc(a.spans[key], func(s *soakSpan) bool {
		return s.outcome == soakOK && (id == "" || s.id == id)
	})
}

func (a *soakAccount) story(s *soakTask, fate soakFate, info *asynq.TaskInfo) string {
	story := []string{fmt.Sprintf("%s is %s", s.id, fateNames[fate])}
	if info != nil {
		story = append(story, fmt.Sprintf("%v, retried %d of %d, last error %q at %v", info.State, info.Retried, info.MaxRetry,
			info.LastErr, info.LastFailedAt))
	}
	for _, span := range a.spans[s.job.Key] {
		story = append(story, span.String())
	}
	return strings.Join(story, "\n\t")
}

// spent finds retries that nothing but a denial can have spent.
func (a *soakAccount) spent(l *soakLedger) (found []string) {
	for key, spans := range a.spans {
		found = append(found, overspent(spans, l.expired[key])...)
	}
	for id, info := range a.stored {
		key := readSoakJob(info.Payload).Key
		if may := mayHaveSpent(a.spans[key], l.expired[key], math.MaxInt64); info.Retried > may {
			found = append(found, fmt.Sprintf("%s, %v: %d retries spent, at most %d on its own account", id, info.State, info.Retried, may))
		}
	}
	return found
}

// copies finds two live copies of one task.
func (a *soakAccount) copies() (found []string) {
	for _, spans := range a.spans {
		found = append(found, twice(spans)...)
	}
	return found
}

// outlived finds handlers that went on when asynq was done with their attempt, but for those of a server
// that was shutting down: what is allowed just then asynq requeues as it begins. A task in a hurry may have come to its
// deadline, and in an outage leases expire.
func (a *soakAccount) outlived(outage bool) (found []string) {
	for _, spans := range a.spans {
		for _, s := range spans {
			if !s.inTime() && s.leaving == 0 && !outage && !strings.HasPrefix(s.key, soakHurried) {
				found = append(found, s.String())
			}
		}
	}
	return found
}

// tooSoon finds tasks that were given up before they had failed as often as they may.
func (a *soakAccount) tooSoon(l *soakLedger, s *soakTask) bool {
	info := a.stored[s.id]
	return info != nil && info.State == asynq.TaskStateArchived &&
		mayHaveSpent(a.spans[s.job.Key], l.expired[s.job.Key], math.MaxInt64) < s.retry
}

func (a *soakAccount) String() string {
	var parts []string
	for fate, n := range a.tally {
		parts = append(parts, fmt.Sprintf("%s %d", fateNames[fate], n))
	}
	return strings.Join(parts, ", ")
}

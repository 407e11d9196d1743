package asynqmw_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// soakSpan is one call of the handler.
type soakSpan struct {
	worker     string
	id, key    string
	members    []string
	begin, end int64
	outcome    string // "": it goes on
	retried    int    // as asynq had it when it began
	leaving    int64  // when its worker was told to shut down; 0: it was not
}

func (s *soakSpan) String() string {
	text := fmt.Sprintf("%s by %s: retried %d, %s, %v to %v", s.id, s.worker, s.retried, s.outcome, clock(s.begin), clock(s.end))
	if s.leaving != 0 {
		text += " (told to shut down at " + clock(s.leaving) + ")"
	}
	return text
}

func clock(at int64) string { return time.Unix(0, at).Format("05.000") }

// inTime tells whether the handler had ended, or died, when asynq was done with the attempt. A server that shuts
// down is so with all of them after its ShutdownTimeout, also with those that it has let begin since.
func (s *soakSpan) inTime() bool {
	late := s.leaving != 0 && s.end >= s.leaving+soakShutdown.Nanoseconds()
	return !late && s.outcome != soakEnded && s.outcome != soakLeft
}

// soakLedger is what all workers have reported.
type soakLedger struct {
	mu      sync.Mutex
	spans   []*soakSpan
	open    map[string]map[int64]*soakSpan // by worker and run
	expired map[string][]int64             // when asynq found the lease of a task expired, by key
	left    map[string]int64               // when workers were told to shut down
	notes   []string
}

func newSoakLedger() *soakLedger {
	return &soakLedger{open: map[string]map[int64]*soakSpan{}, expired: map[string][]int64{}, left: map[string]int64{}}
}

func (l *soakLedger) note(worker string, e soakEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch e.Kind {
	case soakBegin:
		s := &soakSpan{worker: worker, id: e.ID, key: e.Key, members: e.Members, begin: e.At, retried: e.Retried}
		l.spans = append(l.spans, s)
		if l.open[worker] == nil {
			l.open[worker] = map[int64]*soakSpan{}
		}
		l.open[worker][e.Run] = s
	case soakEnd:
		s := l.open[worker][e.Run]
		s.end, s.outcome = e.At, e.Outcome
		delete(l.open[worker], e.Run)
	case soakExpired:
		l.expired[e.Key] = append(l.expired[e.Key], e.At)
	default:
		text, _, _ := strings.Cut(e.Text, "\n") // and no stack
		l.notes = append(l.notes, worker+": "+text)
	}
}

func (l *soakLedger) leaving(worker string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left[worker] = time.Now().UnixNano()
}

// bury ends what a worker was at when it died.
func (l *soakLedger) bury(worker string, killed time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, outcome := killed.UnixNano(), soakKilled
	if killed.IsZero() {
		at, outcome = time.Now().UnixNano(), soakLeft
	}
	for _, s := range l.open[worker] {
		s.end, s.outcome = max(s.begin, at), outcome
	}
	delete(l.open, worker)
}

// idle tells whether no handler is at work.
func (l *soakLedger) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, spans := range l.open {
		if len(spans) > 0 {
			return false
		}
	}
	return true
}

// byKey is the spans of each task in the order in which they began; of all workers, none of which lives.
func (l *soakLedger) byKey() map[string][]*soakSpan {
	spans := map[string][]*soakSpan{}
	for _, s := range l.spans {
		s.leaving = l.left[s.worker]
		spans[s.key] = append(spans[s.key], s)
	}
	for _, of := range spans {
		slices.SortFunc(of, func(a, b *soakSpan) int { return cmp.Compare(a.begin, b.begin) })
	}
	return spans
}

// outcomes counts how handlers have ended.
func (l *soakLedger) outcomes() map[string]int {
	n := map[string]int{}
	for _, s := range l.spans {
		n[s.outcome]++
	}
	return n
}

// twice finds two live copies of one task. A handler that went on when asynq had done with its attempt
// (at the task's deadline, or the end of a shutdown's patience) has not ended in time.
func twice(spans []*soakSpan) (found []string) {
	var last *soakSpan // of those in time, the one that ended last
	for _, s := range spans {
		if last != nil && s.begin < last.end {
			found = append(found, fmt.Sprintf("%v, beside %v", s, last))
		}
		if s.inTime() && (last == nil || s.end > last.end) {
			last = s
		}
	}
	return found
}

// mayHaveSpent is the most retries that a task can have spent before an instant: one for each failure
// of its handler, and one for each of its leases that asynq has found expired.
func mayHaveSpent(spans []*soakSpan, expired []int64, before int64) (n int) {
	for _, s := range spans {
		if s.end <= before && (s.outcome == soakFailed || s.outcome == soakEnded) {
			n++
		}
	}
	for _, at := range expired {
		if at <= before {
			n++
		}
	}
	return n
}

// overspent finds attempts at which a task had spent more retries than that.
func overspent(spans []*soakSpan, expired []int64) (found []string) {
	for _, s := range spans {
		if may := mayHaveSpent(spans, expired, s.begin); s.retried > may {
			found = append(found, fmt.Sprintf("%v: %d retries spent, at most %d on its own account", s, s.retried, may))
		}
	}
	return found
}

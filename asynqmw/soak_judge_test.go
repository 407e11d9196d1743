package asynqmw_test

import (
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
)

// span is a call of a handler from begin to end.
func span(begin, end int64, outcome string, retried int) *soakSpan {
	return &soakSpan{worker: "Ab", id: "x", key: "x", begin: begin, end: end, outcome: outcome, retried: retried}
}

func leaving(s *soakSpan, at int64) *soakSpan {
	s.leaving = at
	return s
}

// What the soak test concludes it must conclude also where there is something to find.
func TestSoakFindsTwoLiveCopies(t *testing.T) {
	for name, test := range map[string]struct {
		spans []*soakSpan
		found int
	}{
		"one after the other":                 {[]*soakSpan{span(1, 2, soakOK, 0), span(2, 4, soakOK, 0)}, 0},
		"beside one that ends well":           {[]*soakSpan{span(1, 5, soakOK, 0), span(2, 3, soakOK, 0)}, 1},
		"beside one that was stopped":         {[]*soakSpan{span(1, 5, soakDenied, 0), span(2, 3, soakOK, 0)}, 1},
		"beside the first of three":           {[]*soakSpan{span(1, 9, soakDenied, 0), span(2, 3, soakOK, 0), span(4, 5, soakOK, 0)}, 2},
		"after its worker was killed":         {[]*soakSpan{span(1, 2, soakKilled, 0), span(3, 4, soakOK, 0)}, 0},
		"before its worker was killed":        {[]*soakSpan{span(1, 4, soakKilled, 0), span(3, 4, soakOK, 0)}, 1},
		"beside one that asynq had given up":  {[]*soakSpan{span(1, 5, soakEnded, 0), span(2, 3, soakOK, 0)}, 0},
		"in time, while its server shut down": {[]*soakSpan{leaving(span(1, 5, soakDenied, 0), 2), span(3, 4, soakOK, 0)}, 1},
		"too late for its server's shutdown":  {[]*soakSpan{leaving(span(1, int64(5*time.Second), soakDenied, 0), 2), span(4, 5, soakOK, 0)}, 0},
	} {
		if found := twice(test.spans); len(found) != test.found {
			t.Errorf("%s: found %q", name, found)
		}
	}
}

func TestSoakFindsSpentRetries(t *testing.T) {
	for name, test := range map[string]struct {
		spans   []*soakSpan
		expired []int64
		found   int
	}{
		"nothing spent":                      {[]*soakSpan{span(1, 2, soakDenied, 0), span(3, 4, soakOK, 0)}, nil, 0},
		"after a failure":                    {[]*soakSpan{span(1, 2, soakFailed, 0), span(3, 4, soakOK, 1)}, nil, 0},
		"after a denial":                     {[]*soakSpan{span(1, 2, soakDenied, 0), span(3, 4, soakOK, 1)}, nil, 1},
		"after a refusal":                    {[]*soakSpan{span(3, 4, soakOK, 1)}, nil, 1},
		"after a crash":                      {[]*soakSpan{span(1, 2, soakKilled, 0), span(9, 10, soakOK, 1)}, []int64{8}, 0},
		"before asynq has noticed the crash": {[]*soakSpan{span(1, 2, soakKilled, 0), span(3, 4, soakOK, 1)}, []int64{8}, 1},
		"twice for one failure":              {[]*soakSpan{span(1, 2, soakFailed, 0), span(3, 4, soakOK, 2)}, nil, 1},
	} {
		if found := overspent(test.spans, test.expired); len(found) != test.found {
			t.Errorf("%s: found %q", name, found)
		}
	}
}

func TestSoakTellsFates(t *testing.T) {
	for why, test := range map[string]struct {
		kind string
		fate soakFate
	}{
		"asynqmw: guard: device \"soak-0\" refused": {soakOnce, fateDenied},
		asynq.ErrLeaseExpired.Error():               {soakOnce, fateCrashed},
		"context deadline exceeded":                 {soakHurried, fateLate},
		errSoakFail.Error():                         {soakPoison, fateFailed},
		errSoakPanic.Error():                        {soakPoison, fateStrange},
		"skip retry for the task":                   {soakOnce, fateStrange},
	} {
		if got := fateOfArchived(why, soakJob{Kind: test.kind}); got != test.fate {
			t.Errorf("%s: %s, want %s", why, fateNames[got], fateNames[test.fate])
		}
	}
	if got := fateOfArchived(errSoakFail.Error(), soakJob{Kind: soakLast}); got != fateStrange {
		t.Errorf("a task that was to be done at last: %s", fateNames[got])
	}
}

// A task that is nowhere is lost, unless its handler has ended well under its permission.
func TestSoakFindsLostTasks(t *testing.T) {
	opt := newRedis(t)
	i := newInspector(t, opt)
	if _, err := newClient(t, opt).Enqueue(asynq.NewTask("another", nil)); err != nil { // so that there is a queue
		t.Fatal(err)
	}
	task := &soakTask{id: "x", job: soakJob{Key: "x", Kind: soakOnce}}
	kept := &soakTask{id: "x", job: soakJob{Key: "x", Kind: soakKept}}
	for name, test := range map[string]struct {
		task  *soakTask
		spans []*soakSpan
		fate  soakFate
	}{
		"never begun":             {task, nil, fateLost},
		"done":                    {task, []*soakSpan{span(1, 2, soakOK, 0)}, fateDone},
		"stopped":                 {task, []*soakSpan{span(1, 2, soakDenied, 0)}, fateLost},
		"killed":                  {task, []*soakSpan{span(1, 2, soakKilled, 0)}, fateLost},
		"done after it failed":    {task, []*soakSpan{span(1, 2, soakFailed, 0), span(3, 4, soakOK, 1)}, fateDone},
		"done, but to be kept":    {kept, []*soakSpan{span(1, 2, soakOK, 0)}, fateLost},
		"done, in nobody's group": {&soakTask{id: "x", job: soakJob{Key: "x", Kind: soakGrouped}}, nil, fateLost},
	} {
		a := &soakAccount{stored: map[string]*asynq.TaskInfo{}, spans: map[string][]*soakSpan{"x": test.spans}}
		a.enter(t, i, test.task)
		if a.tally[test.fate] != 1 {
			t.Errorf("%s: %v", name, a)
		}
	}
}

// A worker's death ends what it was at.
func TestSoakLedgerBuriesTheDead(t *testing.T) {
	l, at := newSoakLedger(), time.Unix(0, 50)
	for run := range int64(2) {
		l.note("Ab", soakEvent{Kind: soakBegin, Run: run, Key: "x", At: 10 + run})
	}
	l.note("Ab", soakEvent{Kind: soakEnd, Run: 0, Key: "x", At: 20, Outcome: soakOK})
	if l.idle() {
		t.Error("idle while a handler is at work")
	}
	l.bury("Ab", at)
	if spans := l.byKey()["x"]; !l.idle() || spans[0].outcome != soakOK || spans[1].outcome != soakKilled || spans[1].end != 50 {
		t.Errorf("got %v", spans)
	}
	if a := (&soakAccount{spans: l.byKey()}); len(a.copies()) != 1 || !strings.Contains(a.copies()[0], "killed") {
		t.Errorf("copies: %q", a.copies())
	}
}

package guard_test

import (
	"flag"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/execguard/execguard/guard"
)

// TestModel plays random schedules against a guard and holds what it does to the contract. They are
// the same ones each time, so that it is a change that is judged, and not luck. Others, more of
// them, or those of another seed again:
//
//	go test ./guard -run 'TestModel$' -rapid.checks 100000
//	go test ./guard -run 'TestModel$' -rapid.seed 4711
//
// What fails is shortened for up to half a minute (-rapid.shrinktime), and printed with its seed. A
// schedule does not decide in which order things happen within one instant, nor at which random
// point a watch begins, so that a seed may have to be tried a few times.
func TestModel(t *testing.T) {
	modelFlags(t, modelChecks)
	f := &modelFinder{t: t, open: func(g *guard.Guard) modelGuard { return g }, known: map[string][]string{}}
	rapid.Check(t, f.check)
}

// modelFlags sets rapid's flags, where the command line has not: how many schedules there are, and
// that none of them is written to testdata, so that a clean tree stays clean.
func modelFlags(t *testing.T, checks string) {
	given := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for name, value := range map[string]string{"rapid.checks": checks, "rapid.nofailfile": "true", "rapid.seed": "20261122"} {
		if given[name] || name == "rapid.seed" && given["rapid.checks"] {
			continue
		}
		before := flag.Lookup(name).Value.String()
		if err := flag.Set(name, value); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = flag.Set(name, before) })
	}
}

// modelFinder looks for a schedule that breaks the contract.
type modelFinder struct {
	t        *testing.T
	open     func(g *guard.Guard) modelGuard
	known    map[string][]string // what was said of schedules that have failed
	sentence string              // that the first of them broke: it is shortened for that
	played   int
}

// modelTries is how often a schedule is played while one that failed is shortened: it may take
// several goes until things come in the order that matters.
const modelTries = 10

func (f *modelFinder) check(t *rapid.T) {
	s := modelSchedules().Draw(t, "schedule")
	said := f.known[s.String()]
	for range modelTries {
		if said != nil {
			break
		}
		said = f.play(s)
		if f.sentence == "" {
			break
		}
	}
	if said != nil {
		t.Logf("%s", strings.Join(said, "\n"))
		t.Fatalf("the contract is broken") // always in the same words: a failure is shortened to its like
	}
}

// play plays a schedule, and returns what it broke, if it is what was broken first.
func (f *modelFinder) play(s modelSchedule) []string {
	ended := false
	defer func() {
		if !ended { // a data race ends the bubble's test, and with it this goroutine
			f.t.Logf("while playing %v", s)
		}
	}()
	f.played++
	said := judgeModel(playModel(f.t, s, f.open))
	ended = true
	if len(said) == 0 || f.sentence != "" && modelSentence(said[0]) != f.sentence {
		return nil
	}
	f.sentence = modelSentence(said[0])
	f.known[s.String()] = said
	return said
}

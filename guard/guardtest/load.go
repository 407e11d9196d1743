package guardtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"time"
)

// answersSideBySide asks from several goroutines about devices in different states, while the
// state of one of them changes. That one is only asked about: whether the answer should be yes
// or no nobody can say, but a contradiction is always wrong.
func answersSideBySide(t *trial) {
	var workers sync.WaitGroup
	for i := range 8 {
		workers.Go(func() {
			for range 25 {
				if t.Failed() {
					return // one line says it, hundreds of them hide the rest
				}
				if i%2 == 0 {
					t.allowed(t.Device, "asked side by side")
				} else {
					t.denied(t.Stranger, "asked side by side")
				}
				t.ask(t.Context(), t.Other)
			}
		})
	}
	for range 10 {
		if t.Failed() {
			break
		}
		restore := t.Revoke(t.Other)
		t.denied(t.Other, "revoked while others ask")
		restore()
		t.allowed(t.Other, "restored while others ask")
	}
	workers.Wait()
}

// leavesAnswersAlone looks for an error that later calls write to. A decision has nothing that
// could be shared, but an error is handed on by the guard and may be read much later.
func leavesAnswersAlone(t *trial) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	errs := make(map[error]string)
	for _, id := range []string{t.Device, "", t.Other} {
		if r := t.ask(over, id); r.err != nil && reflect.TypeOf(r.err).Comparable() {
			errs[r.err] = r.err.Error()
		}
	}
	for _, id := range []string{t.Stranger, t.Device, t.Other} {
		t.ask(over, id)
		t.ask(t.Context(), id)
	}
	for err, before := range errs {
		if after := err.Error(); after != before {
			t.Errorf("the error of an earlier call now reads %q, and read %q", after, before)
		}
	}
}

// keepsSecrets prints whatever the validator gives away, in every state that it can be put in
// (S8). A secret is looked for as it is: one that was cut, quoted or encoded is not found.
func keepsSecrets(t *trial) {
	if len(t.Secrets) == 0 {
		t.Skip("Subject.Secrets is empty")
	}
	// The validator itself before it is asked anything: fmt reads fields without their locks.
	t.silent("the validator", t.Validator)
	if v := reflect.ValueOf(t.Validator); v.Kind() == reflect.Pointer {
		t.silent("the validator, dereferenced,", v.Elem().Interface())
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	t.discreet("an answer", t.ask(t.Context(), t.Device))
	t.discreet("a denial", t.ask(t.Context(), t.Stranger))
	t.discreet("a refusal", t.ask(t.Context(), ""))
	t.discreet("an abandoned call", t.ask(over, t.Device))
	if t.Outage != nil {
		mend := t.Outage()
		t.discreet("an outage", t.ask(t.Context(), t.Device))
		mend()
	}
}

// discreet looks into an answer and every error inside its error.
func (t *trial) discreet(what string, r reply) {
	t.Helper()
	t.silent(what, r.Decision)
	for _, err := range tree(r.err) {
		t.silent(what+"'s error", err)
	}
}

// tree is err and everything that it wraps. Each is printed by itself, because an error that
// keeps a secret to itself may wrap one that does not.
func tree(err error) []error {
	switch wrapper := err.(type) { //nolint:errorlint // each layer is looked at by itself
	case nil:
		return nil
	case interface{ Unwrap() []error }:
		all := []error{err}
		for _, inner := range wrapper.Unwrap() {
			all = append(all, tree(inner)...)
		}
		return all
	default:
		return append([]error{err}, tree(errors.Unwrap(err))...)
	}
}

// silent looks for the secrets in every form that a value is printed in.
func (t *trial) silent(what string, value any) {
	t.Helper()
	var forms []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		forms = append(forms, fmt.Sprintf(verb, value))
	}
	if text, err := json.Marshal(value); err == nil { // what cannot be marshalled says nothing
		forms = append(forms, string(text))
	}
	for _, secret := range t.Secrets {
		if strings.Contains(strings.Join(forms, "\n"), secret) {
			t.Errorf("%s gives a secret away", what)
		}
	}
}

// labelKey is the profiler label that the calls of a trial run under. Goroutines inherit it
// from the one that starts them, so those of a subject can be told from those of other tests.
const labelKey = "guardtest"

// leavesNothingRunning makes many calls, most of them abandoned. A client may keep connections
// and their goroutines for later, so it is the number of them that must not follow the number
// of calls.
func leavesNothingRunning(t *trial) {
	const calls = 40
	for range calls {
		ctx, cancel := context.WithCancel(t.Context())
		defer time.AfterFunc(time.Millisecond, cancel).Stop()
		t.ask(ctx, t.Device)
		cancel()
		t.ask(ctx, t.Device)
	}
	if left := t.settle(calls / 4); left > calls/4 {
		t.Errorf("%d goroutines are left of %d calls", left, 2*calls)
	}
}

// settle gives goroutines time to end: a client may return before its transport has cleaned up
// behind a call that was given up. It waits until no more than enough goroutines are left, or
// for the trial's patience, and returns how many there are.
func (t *trial) settle(enough int) (left int) {
	patience, tick := time.NewTimer(t.patience), time.NewTicker(10*time.Millisecond)
	defer patience.Stop()
	defer tick.Stop()
	for {
		if left = t.running(); left <= enough {
			return left
		}
		select {
		case <-tick.C:
		case <-patience.C:
			return left
		}
	}
}

// running counts the goroutines that bear the trial's label, in the profile's text form: a
// line «3 @ 0x…» for three goroutines on one stack, and a line for their labels after it.
func (t *trial) running() int {
	var text bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&text, 1); err != nil {
		t.Fatalf("guardtest: goroutine profile: %v", err)
	}
	count, total := 0, 0
	for line := range strings.Lines(text.String()) {
		if number, _, ok := strings.Cut(line, " @ "); ok {
			count, _ = strconv.Atoi(number)
		}
		if strings.HasPrefix(line, "# labels:") && strings.Contains(line, t.label) {
			total += count
		}
	}
	return total
}

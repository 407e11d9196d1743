package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/execguard/execguard/guard"
)

// report prints what happens, one line an event. It is used from several goroutines: by the
// story, by the job and by the guard.
type report struct {
	began time.Time

	mu     sync.Mutex
	out    io.Writer // nil after close
	silent int       // answers of the authority that were none
}

func newReport(out io.Writer) *report { return &report{began: time.Now(), out: out} }

// close lets nothing more be printed: a question to the authority may outlive the story a little.
func (r *report) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.out = nil
}

func (r *report) printf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.out != nil {
		fmt.Fprintf(r.out, format, args...)
	}
}

// headline begins a chapter.
func (r *report) headline(text string) { r.printf("\n--- %s\n", text) }

// sayf tells of something that is no decision.
func (r *report) sayf(what, format string, args ...any) {
	text := strings.TrimSpace(fmt.Sprintf(format, args...))
	r.printf("%6.2fs  %-11s%s\n", time.Since(r.began).Seconds(), what, text)
}

// decided tells of a decision.
func (r *report) decided(what string, d guard.Decision, note string) {
	r.sayf(what, "%-19s %-37s%s", d.Code, cmp.Or(d.RequestID, "(no request id)"), note)
}

// observe tells of what happened to a run. It is given to the guard as its observer.
func (r *report) observe(_ context.Context, e guard.Event) {
	switch e.Kind {
	case guard.EventStarted, guard.EventRefused, guard.EventFinished:
		r.decided(string(e.Kind), e.Decision, "")
	case guard.EventStopped:
		r.decided(string(e.Kind), e.Decision, fmt.Sprintf("the job ended %v after it was told", e.After.Round(time.Microsecond)))
	case guard.EventOverran:
		r.decided(string(e.Kind), e.Decision, "the job goes on although it was told to stop")
	case guard.EventValidated, guard.EventHinted: // overhear tells of the answers, in their order
	}
}

// overhear returns an authority that answers as v does, and tells of each answer.
func (r *report) overhear(v guard.Validator) guard.Validator {
	return guard.ValidatorFunc(func(ctx context.Context, deviceID string) (guard.Decision, error) {
		d, err := v.Validate(ctx, deviceID)
		if ctx.Err() != nil {
			return d, err // nobody waits for this answer any more
		}
		if err != nil {
			r.mu.Lock()
			r.silent++
			r.mu.Unlock()
		}
		r.decided("answered", d, d.Reason)
		return d, err
	})
}

// unanswered is how often the authority could not be asked.
func (r *report) unanswered() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.silent
}

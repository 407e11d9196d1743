package chaos

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/execguard/execguard/guard"
)

// Recorder writes a history. It is made by NewRecorder; its methods are safe for concurrent use.
type Recorder struct {
	mu       sync.Mutex
	guards   map[string]Terms
	calls    []*Call
	runs     []*Run
	verdicts []Verdict
	changes  []Change
	hints    []Hint
	pulse    *Pulse
	flying   int        // calls
	landed   *sync.Cond // one of them has
	live     map[*Run]bool
	latest   map[string]time.Time // by lane: when a function was last called
}

// NewRecorder makes a recorder. How late the machine is, p measures.
func NewRecorder(p *Pulse) *Recorder {
	r := &Recorder{guards: map[string]Terms{}, pulse: p, live: map[*Run]bool{}, latest: map[string]time.Time{}}
	r.landed = sync.NewCond(&r.mu)
	return r
}

// Wait returns when no question is in flight. The guards must be closed by then.
func (r *Recorder) Wait() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.flying > 0 {
		r.landed.Wait()
	}
}

// Idle returns those of the lanes in which no run has started since then, and none is live.
func (r *Recorder) Idle(lanes []string, since time.Time) (idle []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	busy := map[string]bool{}
	for w := range r.live {
		busy[w.Lane] = true
	}
	for _, lane := range lanes {
		if !busy[lane] && !r.latest[lane].After(since) {
			idle = append(idle, lane)
		}
	}
	return idle
}

// Unseen returns those of the lanes in which since then no run was refused or stopped with a code.
func (r *Recorder) Unseen(lanes []string, code guard.Code, since time.Time) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	unseen := slices.Clone(lanes)
	for _, w := range r.runs {
		if w.Told.After(since) && w.Cause.Code == code || w.Back.After(since) && w.Result.Code == code {
			unseen = slices.DeleteFunc(unseen, func(lane string) bool { return lane == w.Lane })
		}
	}
	return unseen
}

// History returns what was recorded so far, as a copy.
func (r *Recorder) History(tolerance time.Duration, secrets ...string) History {
	machine := r.pulse.Machine()
	r.mu.Lock()
	defer r.mu.Unlock()
	h := History{
		Guards: maps.Clone(r.guards), Verdicts: slices.Clone(r.verdicts), Changes: slices.Clone(r.changes), Hints: slices.Clone(r.hints),
		Machine: machine, Secrets: secrets, Tolerance: tolerance,
	}
	for _, c := range r.calls {
		h.Calls = append(h.Calls, *c)
	}
	for _, w := range r.runs {
		h.Runs = append(h.Runs, *w)
	}
	return h
}

// Validator records what passes between a guard of that name and v. It must be the outermost
// validator, so that it sees what the guard sees; a panic passes through.
func (r *Recorder) Validator(name string, terms Terms, v guard.Validator) guard.Validator {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.guards[name] = terms
	return guard.ValidatorFunc(func(ctx context.Context, device string) (d guard.Decision, err error) {
		c := r.ask(ctx, name, device)
		returned := false
		defer func() { r.answer(ctx, c, terms, d, err, !returned) }()
		d, err = v.Validate(ctx, device)
		returned = true
		return d, err
	})
}

func (r *Recorder) ask(ctx context.Context, name, device string) *Call {
	c := &Call{Guard: name, Device: device}
	c.Deadline, _ = ctx.Deadline()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flying++
	r.calls = append(r.calls, c)
	c.Sent = time.Now()
	return c
}

func (r *Recorder) answer(ctx context.Context, c *Call, terms Terms, d guard.Decision, err error, panicked bool) {
	text := ""
	if err != nil {
		text = texts(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flying--
	r.landed.Broadcast()
	c.Returned, c.GivenUp = time.Now(), ctx.Err() != nil
	c.TimedOut = c.GivenUp && errors.Is(context.Cause(ctx), context.DeadlineExceeded)
	c.Decision, c.Failed, c.Text = d, err != nil || panicked, text
	if c.allows() {
		time.AfterFunc(time.Until(terms.Line(*c)), func() { r.rang(c) })
	}
}

func (r *Recorder) rang(c *Call) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	c.LineRang = now
}

// Hint records that the guards are about to be given a hint.
func (r *Recorder) Hint(device string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hints = append(r.hints, Hint{device, time.Now()})
}

// Change makes a change of what the authority allows, and records it. change returns an error
// where nothing was changed.
func (r *Recorder) Change(device string, allowed bool, change func() error) error {
	from := time.Now()
	err := change()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes = append(r.changes, Change{Device: device, Allowed: allowed, From: from, To: time.Now()})
	return nil
}

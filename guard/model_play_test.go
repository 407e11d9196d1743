package guard_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// modelGuard is what is put to the test: a guard, or something that is broken on purpose.
type modelGuard interface {
	guard.Runner
	Keep(ctx context.Context, deviceID string, fn func(ctx context.Context) error) error
	Validate(ctx context.Context, deviceID string) (guard.Decision, error)
	Hint(deviceID string)
	Shutdown(ctx context.Context) error
	Close() error
}

// modelPlayer plays a schedule against a guard, in a bubble, and keeps the record.
type modelPlayer struct {
	*modelRecord
	g       modelGuard
	working sync.WaitGroup // callers and shutdowns
	longest time.Duration  // that a deaf call takes
}

type modelCallerKey struct{}

// playModel plays a schedule. Whatever goes wrong is in the record: a bubble's t must not fail,
// because that would end the search for a shorter schedule.
func playModel(t *testing.T, s modelSchedule, open func(g *guard.Guard) modelGuard) *modelRecord {
	r := &modelRecord{modelSettings: s.modelSettings}
	defer func() {
		if p := recover(); p != nil {
			r.stuck = fmt.Sprintf("the bubble: %v", p)
		}
	}()
	// Fake time stands still for a guard that goes round in a circle, and so does the test.
	watchdog := time.AfterFunc(time.Minute, func() { panic(fmt.Sprintf("no end within a minute: %v", s)) })
	defer watchdog.Stop()
	synctest.Test(t, func(*testing.T) {
		r.began = time.Now()
		p := &modelPlayer{modelRecord: r}
		g, err := guard.New(p, p.options()...)
		if err != nil {
			r.stuck = err.Error()
			return
		}
		guard.SetWall(g, r.wall)
		p.g = open(g)
		for _, step := range s.steps {
			time.Sleep(step.after)
			p.do(step)
		}
		time.Sleep(s.rest)
		p.finish()
	})
	return r
}

func (p *modelPlayer) options() []guard.Option {
	opts := []guard.Option{
		guard.WithInterval(p.interval), guard.WithTimeout(p.timeout), guard.WithMaxRequests(p.requests),
	}
	if p.maxAge != 0 {
		opts = append(opts, guard.WithReuse(p.maxAge))
	}
	if p.observed {
		opts = append(opts, guard.WithObserver(p.observe))
	}
	switch {
	case p.budget != 0 && p.pause != 0:
		opts = append(opts, guard.WithRetry(func() guard.BackOff { return modelBackOff(p.pause) }, p.budget))
	case p.budget != 0:
		opts = append(opts, guard.WithRetry(nil, p.budget))
	}
	return opts
}

type modelBackOff time.Duration

func (b modelBackOff) NextBackOff() time.Duration { return time.Duration(b) }
func (modelBackOff) Reset()                       {}

// observe keeps what is told on the caller's goroutine.
func (p *modelPlayer) observe(ctx context.Context, e guard.Event) {
	switch e.Kind {
	case guard.EventStarted, guard.EventStopped, guard.EventFinished, guard.EventRefused:
		if k, ok := ctx.Value(modelCallerKey{}).(*modelCaller); ok {
			k.events = append(k.events, e.Kind)
		}
	}
}

func (p *modelPlayer) do(s modelStep) {
	switch s.do {
	case doRun, doKeep, doValidate:
		p.launch(s)
	case doAuthority:
		p.turn(modelDevice(s.device), s.answer)
		if s.answer.deaf {
			p.longest = max(p.longest, s.answer.takes)
		}
	case doHint:
		p.hint(modelDevice(s.device))
	case doCancel:
		p.cancel(s.pick)
	case doJump:
		time.Sleep(grain/2 + 1) // in an instant of its own
		p.jump(s.by)
		time.Sleep(grain/2 - 1)
	case doShutdown:
		p.working.Go(func() { p.shutdown(s.by) })
	case doClose:
		p.close()
	}
}

// finish brings everything to its end, and notes what does not come to it. Time goes on as long
// as the guard has a timer, so that no deadlock would show.
func (p *modelPlayer) finish() {
	p.close()
	done := make(chan struct{})
	go func() {
		p.working.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(72 * time.Hour):
		p.stuck = "callers have not returned three days after Close"
	}
	time.Sleep(p.longest)
}

func (p *modelPlayer) launch(s modelStep) {
	k := &modelCaller{do: s.do, device: modelDevice(s.device)}
	ctx, cancel := context.WithCancelCause(context.Background())
	k.cancel = cancel
	p.mu.Lock()
	p.callers = append(p.callers, k)
	p.mu.Unlock()
	p.working.Go(func() {
		defer cancel(nil)
		p.call(ctx, k, s.work)
	})
}

// call calls Run, Keep or Validate, and survives what the function does to it.
func (p *modelPlayer) call(ctx context.Context, k *modelCaller, w modelWork) {
	ctx = context.WithValue(ctx, modelCallerKey{}, k)
	came := false
	p.mark(&k.called)
	defer func() {
		k.panicked = recover()
		k.exited = !came && k.panicked == nil
		p.returned(k)
	}()
	switch k.do {
	case doRun:
		k.err = p.g.Run(ctx, k.device, p.function(k, w))
	case doKeep:
		k.err = p.g.Keep(ctx, k.device, p.function(k, w))
	case doValidate:
		k.decision, k.err = p.g.Validate(ctx, k.device)
	}
	came = true
}

func (p *modelPlayer) returned(k *modelCaller) {
	p.mark(&k.returned)
	for _, x := range k.runs {
		x.after, x.checked = x.ctx.Err(), guard.Checkpoint(x.ctx)
	}
}

func (p *modelPlayer) cancel(pick int) {
	if k := p.toCancel(pick); k != nil {
		k.cancel(k.reason)
	}
}

// toCancel picks a caller that has not returned, the latest first.
func (p *modelPlayer) toCancel(pick int) *modelCaller {
	var there []*modelCaller
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.callers {
		if k.cancel != nil && !k.cancelled.came() && !k.returned.came() {
			there = append(there, k)
		}
	}
	if len(there) == 0 {
		return nil
	}
	k := there[len(there)-1-pick%len(there)]
	k.cancelled, k.reason = p.now(), fmt.Errorf("%w, %s %s", errModelCancel, k.do, k.device)
	return k
}

func (p *modelPlayer) hint(device string) {
	h := &modelHint{device: device}
	p.mark(&h.begun)
	p.g.Hint(device)
	p.mark(&h.done)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hints = append(p.hints, h)
}

func (p *modelPlayer) end(do string, limit time.Duration) *modelEnd {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := &modelEnd{do: do, limit: limit, begun: p.now()}
	p.ends = append(p.ends, e)
	return e
}

func (p *modelPlayer) close() {
	e := p.end(doClose, 0)
	e.err = p.g.Close()
	p.mark(&e.done)
}

func (p *modelPlayer) shutdown(limit time.Duration) {
	ctx := context.Background()
	if limit != 0 {
		limited, cancel := context.WithTimeoutCause(ctx, limit, errModelLimit)
		defer cancel()
		ctx = limited
	}
	e := p.end(doShutdown, limit)
	e.err = p.g.Shutdown(ctx)
	p.mark(&e.done)
}

// function is what the guard is given to run.
func (p *modelPlayer) function(k *modelCaller, w modelWork) func(context.Context) error {
	return func(ctx context.Context) error {
		x := p.enter(ctx, k, w)
		if !w.quiet {
			stop := p.watch(ctx, &x.ended, &x.why)
			defer stop()
		}
		defer p.leave(x)
		if w.inner != nil {
			inner := &modelCaller{do: doRun, device: modelDevice(w.about), outer: x}
			p.mu.Lock()
			p.callers = append(p.callers, inner)
			p.mu.Unlock()
			p.call(ctx, inner, *w.inner)
		}
		p.work(x)
		x.own = x.result()
		return x.own
	}
}

func (p *modelPlayer) enter(ctx context.Context, k *modelCaller, w modelWork) *modelRun {
	x := &modelRun{caller: k, device: k.device, work: w, ctx: ctx}
	x.decision, _ = guard.DecisionFrom(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	x.started = p.now()
	k.runs = append(k.runs, x)
	p.runs = append(p.runs, x)
	return x
}

func (p *modelPlayer) leave(x *modelRun) {
	x.left = context.Cause(x.ctx)
	p.mark(&x.returned)
}

// work lasts until the function's time is over, or a lag after it has seen its context end.
func (p *modelPlayer) work(x *modelRun) {
	end, tick, done := p.timers(x)
	for {
		select {
		case <-end:
			return
		case <-tick:
			if seen := p.poll(x); seen && x.work.quiet {
				return
			}
		case <-done:
			done = nil
			if x.work.lag == 0 {
				return
			}
			end = time.After(x.work.lag)
		}
	}
}

func (p *modelPlayer) timers(x *modelRun) (end, tick <-chan time.Time, done <-chan struct{}) {
	if x.work.lasts != 0 {
		end = time.After(x.work.lasts)
	}
	if x.work.checks != 0 {
		tick = time.Tick(x.work.checks)
		p.poll(x)
	}
	if !x.work.quiet {
		done = x.ctx.Done()
	}
	return end, tick, done
}

// poll looks at the context, every other time at one that is detached from it.
func (p *modelPlayer) poll(x *modelRun) (seen bool) {
	look := modelPoll{err: x.ctx.Err()}
	p.mark(&look.moment)
	ctx := x.ctx
	if len(x.polls)%2 == 1 {
		ctx = context.WithoutCancel(ctx)
	}
	look.checked = guard.Checkpoint(ctx)
	x.polls = append(x.polls, look)
	return look.err != nil || look.checked != nil
}

// result ends the function.
func (x *modelRun) result() error {
	switch x.work.ends {
	case endsError:
		return &modelOwnError{x}
	case endsErr:
		return x.ctx.Err()
	case endsCause:
		return context.Cause(x.ctx)
	case endsPanic:
		panic(x)
	case endsGoexit:
		runtime.Goexit()
	}
	return nil
}

// Validate is the authority.
func (p *modelPlayer) Validate(ctx context.Context, device string) (guard.Decision, error) {
	c := p.visit(ctx, device)
	if c == nil {
		<-ctx.Done()
		return guard.Decision{}, ctx.Err()
	}
	stop := p.watch(ctx, &c.ended, &c.why)
	defer p.mark(&c.returned)
	defer stop()
	if c.cut = !c.answer.waits(ctx); c.cut {
		return guard.Decision{}, context.Cause(ctx)
	}
	return c.reply(device)
}

// mostAtOnce is how many calls are answered in no time at all in one instant. Timers of a bubble fire
// when nothing else can go on, so that a guard that tries again at once would not see its own.
const mostAtOnce = 50

// mostCalls is more than any schedule can cost. A guard that asks in a circle would never come to an
// end.
const mostCalls = 10000

func (p *modelPlayer) visit(ctx context.Context, device string) *modelCall {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.calls) == mostCalls {
		p.stuck = fmt.Sprintf("%d requests, the last at %v", mostCalls, time.Since(p.began))
		return nil
	}
	c := &modelCall{device: device, id: fmt.Sprintf("r%d", len(p.calls)+1), sent: p.now(), answer: p.answerAt(device)}
	c.expires = p.began.Round(0).Add(c.sent.wall + c.answer.expires)
	if deadline, ok := ctx.Deadline(); ok {
		c.deadline = deadline.Sub(p.began)
	}
	p.calls = append(p.calls, c)
	if n := len(p.calls) - mostAtOnce; n >= 0 && p.calls[n].sent.at == c.sent.at && c.answer.takes == 0 {
		c.answer.takes = 1
	}
	return c
}

// answerAt is how the authority treats a device now. The caller holds mu.
func (r *modelRecord) answerAt(device string) modelAnswer {
	for _, t := range slices.Backward(r.turns) {
		if t.device == device || t.device == "" {
			return t.answer
		}
	}
	return modelAnswer{allowed: true, code: guard.CodeAllow}
}

// waits takes the answer's time, and tells whether it was not cut short.
func (a modelAnswer) waits(ctx context.Context) bool {
	var over <-chan time.Time
	switch {
	case a.takes == 0:
		return true
	case a.takes > 0:
		over = time.After(a.takes)
	}
	if a.deaf {
		<-over
		return true
	}
	select {
	case <-over:
		return true
	case <-ctx.Done():
		return false
	}
}

// reply is what the validator returns.
func (c *modelCall) reply(device string) (d guard.Decision, err error) {
	a := c.answer
	switch a.fault {
	case endsPanic:
		panic(c)
	case endsGoexit:
		runtime.Goexit()
	}
	d = guard.Decision{Allowed: a.allowed, Code: a.code, RequestID: c.id, DeviceID: device, RetryAfter: a.retryAfter}
	if a.other {
		d.DeviceID = "another"
	}
	if a.expires != 0 {
		d.ExpiresAt = c.expires
	}
	if a.failed {
		err = errors.New("the authority's own")
	}
	return d, err
}

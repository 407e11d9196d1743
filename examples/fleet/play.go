package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// patience is how long a fleet may take to start besides its intervals.
const patience = 30 * time.Second

// player plays one fleet, from the first start to the last stop.
type player struct {
	settings
	wanted  int // runs in flight when all is well
	service *service
	http    *http.Client
	sent    *meter // by the workers
	arrived *meter // at the authority
	gauge   *gauge
	ledger  *ledger
	workers []*worker
	zero    time.Time // when normal running begins: the times of the settings count from it
	result  *result
}

// play plays a fleet of that size and returns what it has shown.
func play(ctx context.Context, s settings, size int, over network, hire hireFunc) (*result, error) {
	// A worker in a process of its own has a connection of its own. Here they share some, as many as the machine can
	// use at once, for the fleet is to be as large as memory allows and not as the number of open files.
	shared := &http.Transport{DialContext: over.dial, MaxConnsPerHost: 64, MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute}
	defer shared.CloseIdleConnections()
	p := &player{
		settings: s, wanted: size * s.runs, http: &http.Client{Transport: shared}, sent: &meter{}, arrived: &meter{},
		ledger: &ledger{}, result: &result{settings: s, size: size},
	}
	var err error
	if p.service, err = startService(ctx, over, size, p.arrived.add); err != nil {
		return nil, err
	}
	defer func() { p.service.takeAway() }()
	begun := time.Now()
	p.sent.begun, p.arrived.begun, p.gauge = begun, begun, &gauge{begun: begun}
	if err := p.scenes(ctx, hire); err != nil {
		return nil, err
	}
	return p.result, nil
}

// scenes has one scene follow the other, and everybody go home.
func (p *player) scenes(ctx context.Context, hire hireFunc) error {
	ctx, leave := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer p.dismiss()
	defer leave()
	running.Go(func() { p.gauge.run(ctx) })
	before := held()
	var err error
	hc := &http.Client{Transport: metered{p.http.Transport, p.sent}}
	if p.workers, err = hireAll(p.settings, p.service, hc, hire, p.ledger); err != nil {
		return err
	}
	if err := p.start(ctx, &running); err != nil {
		return err
	}
	p.result.held = max(0, int64(held())-int64(before)) / int64(p.result.size) //nolint:gosec // no memory is that large
	// An interval to settle: to count what is in use stops the process for a while, and who was refused comes again.
	p.result.zero = int((time.Since(p.gauge.begun)+p.interval)/second) + 1
	p.zero = p.gauge.begun.Add(time.Duration(p.result.zero) * second)
	for _, scene := range []func(context.Context) error{p.outages, p.revocation} {
		if err := scene(ctx); err != nil {
			return err
		}
	}
	p.count()
	_, _, broken := p.ledger.now()
	return broken
}

func (p *player) dismiss() {
	for _, w := range p.workers {
		_ = w.guard.Close() // always nil
	}
}

// start starts every run at the same moment, the worst that can happen to an authority, and waits for all of them.
func (p *player) start(ctx context.Context, running *sync.WaitGroup) error {
	all, began := p.ledger.until(p.wanted), time.Now()
	for _, w := range p.workers {
		w.begin(ctx, p.runs, running)
	}
	limit := patience + 3*p.interval // who was refused comes again after an interval
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not all runs had started after %v", limit))
	defer cancel()
	select {
	case <-all:
		p.result.started = time.Since(began)
		return nil
	case <-ctx.Done():
		working, _, broken := p.ledger.now()
		return errors.Join(fmt.Errorf("%d of %d runs: %w", working, p.wanted, context.Cause(ctx)), broken)
	}
}

// outages takes the authority away and brings it back.
func (p *player) outages(ctx context.Context) error {
	if p.outage() == 0 {
		return nil
	}
	if err := wait(ctx, p.zero.Add(p.downFrom)); err != nil {
		return err
	}
	down := time.Now()
	p.service.takeAway()
	if err := wait(ctx, p.zero.Add(p.downTo)); err != nil {
		return err
	}
	p.result.worked, _, _ = p.ledger.now()
	back := time.Now()
	p.result.lost = p.ledger.stopped(func(int) time.Time { return down }, back)
	return p.service.bringBack(ctx)
}

// revocation revokes every device, and waits for the last run to stop, or for some time longer than it may take.
func (p *player) revocation(ctx context.Context) error {
	if err := wait(ctx, p.zero.Add(p.revokeAt())); err != nil {
		return err
	}
	flight, before, _ := p.ledger.now()
	sent, err := p.service.revokeAll(ctx, p.http)
	if err != nil {
		return fmt.Errorf("revoking all: %w", err)
	}
	none := p.ledger.until(0)
	timer := time.NewTimer(p.bound() + p.interval)
	defer timer.Stop()
	select {
	case <-none:
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	p.result.flight = flight
	p.result.revoked = p.ledger.stopped(func(tenant int) time.Time { return sent[tenant] }, time.Now())
	left, after, _ := p.ledger.now()
	// Those that were not in flight may have been about to start.
	p.result.left, p.result.restarted = left, max(0, after-before-(p.wanted-flight))
	return nil
}

// count takes down what was counted up to now.
func (p *player) count() {
	r := p.result
	r.samples, r.late = p.gauge.taken()
	r.sent, r.arrived = p.sent.until(len(r.samples)), p.arrived.until(len(r.samples))
	down, up := r.zero+int(p.downFrom/second), r.zero+int(p.downTo/second)
	r.normal = window{r.zero, down}.trim(p.interval, true)
	r.steady = r.normal.measure(r.arrived, r.late)
	r.restored = window{up, r.zero + int(p.revokeAt()/second)}.trim(p.interval, false)
	r.after = r.restored.measure(r.arrived, r.late)
}

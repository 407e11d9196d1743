package main

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/execguard/execguard/guard"
)

// keeper is what a worker needs of its guard.
type keeper interface {
	Keep(ctx context.Context, deviceID string, fn func(ctx context.Context) error) error
	Close() error
}

// hireFunc makes a worker's guard.
type hireFunc func(v guard.Validator, opts ...guard.Option) (keeper, error)

// worker is one machine of the fleet: a device, a client and a guard of its own.
type worker struct {
	device string
	tenant int
	guard  keeper
	ledger *ledger
}

// hireAll makes a worker for each device of the service.
func hireAll(s settings, of *service, hc *http.Client, hire hireFunc, l *ledger) ([]*worker, error) {
	opts := []guard.Option{guard.WithInterval(s.interval), guard.WithTimeout(s.timeout)}
	if s.retries {
		opts = append(opts, guard.WithRetry(nil, s.budget()))
	}
	var all []*worker
	for i, t := range of.tenants {
		for _, device := range t.devices {
			// A client for each, though those of one tenant could share it: it is a part of what a worker costs.
			client, err := of.client(t, hc)
			if err != nil {
				return all, err
			}
			g, err := hire(client, opts...)
			if err != nil {
				return all, err
			}
			all = append(all, &worker{device: device, tenant: i, guard: g, ledger: l})
		}
	}
	return all, nil
}

// begin keeps that many runs in flight until ctx ends.
func (w *worker) begin(ctx context.Context, runs int, wg *sync.WaitGroup) {
	for range runs {
		wg.Go(func() {
			if err := w.guard.Keep(ctx, w.device, w.work); ctx.Err() == nil {
				w.ledger.breakOff(err)
			}
		})
	}
}

// work works until it is told to stop. It wants no processor, so that what is measured is the guarding.
func (w *worker) work(ctx context.Context) error {
	w.ledger.start()
	<-ctx.Done()
	w.ledger.stop(stop{tenant: w.tenant, at: time.Now()})
	return ctx.Err()
}

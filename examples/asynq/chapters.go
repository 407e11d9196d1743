package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/execguard/execguard/guard"
)

// oneIsRevoked: the tasks of the revoked device go back to the queue, and those on their last attempt are
// held; the other device's are handled meanwhile.
func (s *story) oneIsRevoked(ctx context.Context, g guard.Runner) (err error) {
	const pages = 18
	q := newQueue(s.redis, "shared")
	defer func() { err = errors.Join(err, q.remove()) }()
	for page := 1; page <= pages; page++ {
		if err := errors.Join(q.enqueue(press, page), q.enqueue(mailer, page)); err != nil {
			return err
		}
	}
	s.sayf("(enqueued)", "%d tasks, %d of them with MaxRetry(0)", 2*pages, 2*pages/3)
	server, err := startWorker(s.redis, configOf(q, 8), g, q.inspector, s.desk.handle)
	if err != nil {
		return err
	}
	defer server.Shutdown()

	if err := s.desk.until(ctx, press, 5); err != nil {
		return err
	}
	if err := s.revoke(ctx, press); err != nil {
		return err
	}
	if err := s.otherGoesOn(ctx, q, 2*pages); err != nil {
		return err
	}
	if err := s.restore(ctx, press); err != nil {
		return err
	}
	now, err := s.until(ctx, q, func(now state) bool { return now.handled+now.lost == 2*pages })
	if err != nil {
		return err
	}
	s.sayf("(done)", "%d handled", now.handled)
	s.settle(2*pages, now)
	return nil
}

// otherGoesOn waits until the other device's tasks are handled and nothing moves for a moment, and
// compares what has been done in the queue.
func (s *story) otherGoesOn(ctx context.Context, q *queue, all int) error {
	moved := time.Now()
	now, err := s.until(ctx, q, func(now state) bool {
		if s.desk.begunOf(mailer) < all/2 || !s.desk.idle() || now.pending > 0 {
			moved = time.Now()
		}
		return time.Since(moved) > pageTime
	})
	if err != nil {
		return err
	}
	s.sayf("meanwhile", "all %d of %s are handled; of %s %d are, %d are held and %d have gone back", all/2, mailer, press,
		now.handled-all/2, now.held, now.back)
	if now.held == 0 || now.back == 0 || now.held+now.back+now.handled != all {
		return fmt.Errorf("one device should be done and the other not: %+v", now)
	}
	s.total.refused += now.held + now.back - s.desk.cutsSoFar()
	return nil
}

var errEnough = errors.New("the process has nothing to do any more")

// processIsRevoked: nothing is fetched while the process may not execute, and so MaxRetry(0) needs
// nobody who holds it.
func (s *story) processIsRevoked(ctx context.Context, g *guard.Guard) (err error) {
	const pages = 12
	q := newQueue(s.redis, "own")
	defer func() { err = errors.Join(err, q.remove()) }()
	for page := range pages {
		if err := q.enqueue(scanner, 3*page); err != nil {
			return err
		}
	}
	s.sayf("(enqueued)", "%d tasks, all of them with MaxRetry(0)", pages)
	serving, enough := context.WithCancelCause(ctx)
	ended := make(chan error, 1)
	go func() { ended <- serve(serving, s.redis, configOf(q, 2), g, s.desk.handle) }()
	defer func() {
		enough(errEnough)
		if served := <-ended; !errors.Is(served, errEnough) && ctx.Err() == nil {
			err = errors.Join(err, fmt.Errorf("serve ended with: %w", served))
		}
	}()
	return s.revokeWhileServing(ctx, q, pages)
}

func (s *story) revokeWhileServing(ctx context.Context, q *queue, pages int) error {
	if err := s.desk.until(ctx, scanner, 5); err != nil {
		return err
	}
	if err := s.revoke(ctx, scanner); err != nil {
		return err
	}
	now, err := s.until(ctx, q, func(now state) bool { return now.held == 0 })
	if err != nil {
		return err
	}
	s.sayf("meanwhile", "%d are handled, %d wait in the queue, and none is fetched", now.handled, now.pending)
	if now.pending == 0 || now.pending+now.handled != pages {
		return fmt.Errorf("%d tasks should be handled or wait: %+v", pages, now)
	}
	if err := s.restore(ctx, scanner); err != nil {
		return err
	}
	now, err = s.until(ctx, q, func(now state) bool { return now.handled+now.lost == pages })
	if err != nil {
		return err
	}
	s.sayf("(done)", "%d handled", now.handled)
	s.settle(pages, now)
	return nil
}

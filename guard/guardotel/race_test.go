package guardotel_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardotel"
	"github.com/execguard/execguard/guard/guardtest"
)

// Everything at once: runs that finish, are refused and are stopped, hints, collections, Bind and Close. Nothing is
// counted twice or lost.
func TestEverythingAtOnce(t *testing.T) {
	const workers, each = 8, 200
	s := newSDK()
	authority := guardtest.NewValidator("a", "b")
	tel := s.telemetry(t, guardotel.WithName("n"))
	g, err := guard.New(authority, guard.WithObserver(tel.Observe))
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	var others, all sync.WaitGroup
	others.Go(func() { until(over, func() { _ = points(s.collect(t)) }) })
	others.Go(func() {
		until(over, func() {
			other, err := guardotel.New(s.options(guardotel.WithName("other"))...)
			if err != nil {
				t.Error(err)
				return
			}
			var twice sync.WaitGroup
			for range 2 {
				twice.Go(func() { _ = other.Bind(g) })
				twice.Go(func() { _ = other.Close() })
			}
			twice.Wait()
			_ = other.Close()
		})
	})
	others.Go(func() {
		until(over, func() {
			authority.Deny("b", guard.CodeDeviceRevoked)
			g.Hint("b")
			_, _ = g.Validate(t.Context(), "b")
			authority.Allow("b")
		})
	})
	if err := tel.Bind(g); err != nil {
		t.Fatal(err)
	}
	for w := range workers {
		all.Go(func() {
			for i := range each {
				_ = g.Run(t.Context(), []string{"a", "b", "nobody"}[(w+i)%3], func(ctx context.Context) error { return ctx.Err() })
			}
		})
	}
	all.Wait()
	close(over)
	others.Wait()
	g.Close()
	if got := counted(t, s, "execguard.runs"); got != workers*each {
		t.Errorf("%d runs, want %d", got, workers*each)
	}
	started, ended := 0, 0 // those of validates may still be told
	for _, span := range s.spans.Started() {
		started += oneIf(span.Name() == "execguard.run")
	}
	for _, span := range s.spans.Ended() {
		ended += oneIf(span.Name() == "execguard.run")
	}
	if started != workers*each || ended != workers*each {
		t.Errorf("%d spans of runs, %d have ended, want %d", started, ended, workers*each)
	}
}

func oneIf(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// until calls f until over is closed, and once at least.
func until(over <-chan struct{}, f func()) {
	for {
		f()
		select {
		case <-over:
			return
		default:
		}
	}
}

// counted adds up the points of a counter.
func counted(t *testing.T, s *sdk, name string) (sum int) {
	t.Helper()
	for _, p := range points(s.collect(t), name) {
		n := 0
		if _, err := fmt.Sscan(p[strings.LastIndex(p, " ")+1:], &n); err != nil {
			t.Error(err)
		}
		sum += n
	}
	return sum
}

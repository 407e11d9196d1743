package guardotel_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// A span has the times of what it tells of, and not those at which a queue or another observer let it be told.
func TestSpansHaveTheirOwnTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, began := newSDK(), time.Now()
		tel := s.telemetry(t)
		slow := func(_ context.Context, e guard.Event) {
			if e.Kind != guard.EventStarted {
				time.Sleep(2 * time.Second)
			}
		}
		g, err := guard.New(guardtest.NewValidator("d"), guard.WithObserver(slow), guard.WithObserver(tel.Observe))
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		for range 3 {
			if _, err := g.Validate(t.Context(), "d"); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.Run(t.Context(), "d", func(context.Context) error { return nil }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		for _, span := range s.spans.Ended() {
			if from, to := span.StartTime().Sub(began), span.EndTime().Sub(began); from != 0 || to != 0 {
				t.Errorf("%s: %v to %v, and it began and ended at 0s", span.Name(), from, to)
			}
		}
	})
}

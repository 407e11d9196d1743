package guard_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// L2: a start that could not ask does not move the watch. Where the watch's turn came while the
// start's question was in flight, its own question is the next already, and no other is planned.
func TestL2_AStartThatCouldNotAskDoesNotMoveTheWatch(t *testing.T) {
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a, guard.WithInterval(10*time.Second), guard.WithTimeout(3*time.Second))
			launch(t.Context(), g, "d")
			synctest.Wait()
			a.hang()
			refused := launch(t.Context(), g, "d")
			synctest.Wait()
			a.allow()
			_ = refused.finish()
			synctest.Wait()
			if a.count() < 3 {
				return // the watch's turn has not come yet
			}
			time.Sleep(6999 * time.Millisecond) // an interval after the earliest turn there was
			if n := a.count(); n != 3 {
				t.Fatalf("%d requests, want the start's two and one of the watch in its first interval", n)
			}
		})
	}
}

// L2, with reuse: a run that starts on an older permission, after a question that failed while nothing
// ran, is asked about within an interval of that permission's request, not of the last. It is not
// stopped at its line while the authority is well.
func TestL2_AWatchIsPlannedBeforeTheLineOfAPermissionThatIsReused(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a, guard.WithInterval(10*time.Second), guard.WithTimeout(3*time.Second), guard.WithReuse(10*time.Second))
			if err := g.Run(t.Context(), "d", func(context.Context) error { return nil }); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Second)
			a.fail(errors.New("once"))
			_, _ = g.Validate(t.Context(), "d")
			a.allow()
			r := launch(t.Context(), g, "d")
			synctest.Wait()
			asked := a.count()
			time.Sleep(20 * time.Second)
			if r.cancelled() {
				t.Fatalf("stopped at the line, %d requests since its start: %v", a.count()-asked, context.Cause(r.ctx))
			}
		})
	}
}

// Many guards, each with one device, are started at the same moment, and the authority takes most of a timeout to answer
// that many starts. From then on it answers at once. What is asked a second must even out over the interval (L4); were the
// phase drawn from what is left of the interval after the answer, nobody's would lie in what the answer took.
func TestL4_SlowStartsDoNotLeaveAGap(t *testing.T) {
	const fleet, interval, slow = 2000, 10 * time.Second, 2900 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		began, asked := time.Now(), make([]int, 60)
		ctx, cancel := context.WithCancel(t.Context())
		var runs sync.WaitGroup
		for i := range fleet {
			first := true
			g, err := guard.New(guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) {
				mu.Lock()
				asked[int(time.Since(began)/time.Second)]++
				mu.Unlock()
				if first {
					first = false
					time.Sleep(slow)
				}
				return guard.Decision{Allowed: true, Code: guard.CodeAllow}, nil
			}), guard.WithInterval(interval))
			if err != nil {
				t.Fatal(err)
			}
			runs.Go(func() {
				_ = g.Run(ctx, fmt.Sprint("device", i), func(ctx context.Context) error { <-ctx.Done(); return nil })
			})
		}
		time.Sleep(50 * time.Second)
		cancel()
		runs.Wait()
		normal := asked[20:40]
		mean := float64(fleet) / interval.Seconds()
		if ratio := float64(slices.Max(normal)) / mean; ratio > 1.3 {
			t.Errorf("peak / mean is %.2f, want at most 1.3: %v", ratio, normal)
		}
	})
}

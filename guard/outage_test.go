package guard_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// persistent is how a device goes on when it is denied: what it does for the length of ctx.
type persistent func(ctx context.Context, g *guard.Guard, device string)

func untilDone(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// restarts is a supervisor that waits an interval before it restarts what was denied.
func restarts(pause time.Duration) persistent {
	return func(ctx context.Context, g *guard.Guard, device string) {
		for ctx.Err() == nil {
			_ = g.Run(ctx, device, untilDone)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		}
	}
}

func keeps(ctx context.Context, g *guard.Guard, device string) { _ = g.Keep(ctx, device, untilDone) }

// perSecond counts the calls that were sent in each second from start on.
func perSecond(a *authority, start, end time.Time) []int {
	bins := make([]int, int(end.Sub(start)/time.Second))
	for _, c := range a.asked() {
		if i := int(c.sent.Sub(start) / time.Second); !c.sent.Before(start) && i < len(bins) {
			bins[i]++
		}
	}
	return bins
}

// In normal running 500 devices ask fifty times a second. When an outage is over, all have to
// start again and each start is a request: spread over an interval, that is as many again. Fifty
// more are five times the standard deviation of what is random about it.
//
// A silent authority fills the slots, and starts wait for one. Those are their callers' own and are
// not held back when it answers again (CONTRACT.md, how L5 is read): each is asked about once.
func TestL5_TheLoadAfterAnOutageIsNoHigherThanNormalAndTheStarts(t *testing.T) {
	const (
		devices  = 500
		interval = 10 * time.Second
		normal   = devices / 10
		noise    = 50
	)
	up := after(10*time.Millisecond, allows)
	for kind, persist := range map[string]persistent{"runs restarted": restarts(interval), "Keeps": keeps} {
		for name, tc := range map[string]struct {
			down behaviour
			long time.Duration
		}{
			"failing at once":               {fails(errors.New("down")), time.Minute},
			"failing at once, shortly":      {fails(errors.New("down")), 11 * time.Second},
			"failing late":                  {after(time.Second, fails(errors.New("down"))), time.Minute},
			"silent":                        {hangs, time.Minute},
			"silent, and clients are stuck": {deaf(20*time.Second, fails(errors.New("down"))), time.Minute},
			"busy, and says for how long": {
				answers(guard.Decision{Code: guard.CodeSystemUnavailable, RetryAfter: 30 * time.Second}, nil), time.Minute,
			},
		} {
			t.Run(kind+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a := newAuthority()
					a.set(up)
					g := newGuard(t, a)
					for i := range devices {
						// They come one by one, as they do over a day.
						go func() {
							time.Sleep(interval * time.Duration(i) / devices)
							persist(t.Context(), g, fmt.Sprint("d", i))
						}()
					}
					time.Sleep(3 * interval)
					steady := perSecond(a, time.Now().Add(-interval), time.Now())
					if most := slices.Max(steady); most > normal+noise {
						t.Errorf("%d requests a second in normal running: %v", most, steady)
					}
					a.set(tc.down)
					time.Sleep(tc.long)
					a.set(up)
					back := time.Now()
					time.Sleep(4 * interval)
					after := perSecond(a, back, time.Now())
					bound, later := 2*normal+noise, normal+noise
					if kind == "runs restarted" && strings.HasPrefix(name, "silent") {
						bound, later = devices+noise, devices // they go on in the step that they came back in
					}
					if most := slices.Max(after); most > bound {
						t.Errorf("up to %d requests a second after the outage, %d in normal running: %v", most, normal, after)
					}
					// All is as before: nobody was forgotten, and nobody asks twice.
					last := perSecond(a, time.Now().Add(-interval), time.Now())
					sum := 0
					for _, n := range last {
						sum += n
					}
					if sum < devices*9/10 || sum > devices*11/10 || slices.Max(last) > later {
						t.Errorf("%d requests in the last interval, want %d: %v", sum, devices, last)
					}
				})
			})
		}
	}
}

// While the authority is down, it is asked no more often than when it is up.
func TestL5_TheLoadDuringAnOutageIsNoHigherEither(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const devices = 500
		a := newAuthority()
		g := newGuard(t, a)
		for i := range devices {
			go keeps(t.Context(), g, fmt.Sprint("d", i))
		}
		time.Sleep(20 * time.Second)
		a.fail(errors.New("down"))
		began := time.Now()
		time.Sleep(2 * time.Minute)
		bins := perSecond(a, began, time.Now())
		if most := slices.Max(bins); most > devices/10+50 {
			t.Errorf("%d requests a second: %v", most, bins)
		}
	})
}

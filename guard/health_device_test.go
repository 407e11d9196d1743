package guard_test

import (
	"context"
	"encoding/json"
	"errors"
	"expvar"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/execguard/execguard/guard"
)

// known returns what the guard knows, by id.
func known(g *guard.Guard) []guard.DeviceHealth {
	synctest.Wait()
	return slices.SortedFunc(g.Devices(), func(a, b guard.DeviceHealth) int { return strings.Compare(a.DeviceID, b.DeviceID) })
}

func wantDevices(t *testing.T, g *guard.Guard, want ...guard.DeviceHealth) {
	t.Helper()
	if diff := cmp.Diff(want, known(g)); diff != "" {
		t.Errorf("Devices (-want +got):\n%s", diff)
	}
}

func TestDevices_EachTellsWhatIsKnownAboutIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithInterval(undisturbed), guard.WithMaxRequests(4)) // three of them for starts
		began := time.Now()
		launch(t.Context(), g, "runs") // r1
		launch(t.Context(), g, "runs")
		synctest.Wait() // shares no question with what comes later
		id := a.last(t, "runs").id()
		time.Sleep(100 * time.Millisecond)
		a.answer(guard.Decision{Code: guard.CodeDeviceRevoked, RequestID: "no", Reason: "stolen"}, nil, "waits")
		keep(t.Context(), g, "waits")
		keep(t.Context(), g, "waits")
		a.answer(guard.Decision{Code: "STRANGE"}, nil, "strange")
		keep(t.Context(), g, "strange")
		synctest.Wait()
		a.hang("asks1", "asks2", "asks3", "queues")
		for _, device := range []string{"asks1", "asks2", "asks3"} {
			launch(t.Context(), g, device)
			synctest.Wait()
		}
		launch(t.Context(), g, "queues")
		line := began.Add(g.StopBound()).Round(0)
		wantDevices(t, g,
			guard.DeviceHealth{DeviceID: "asks1", Waiting: 1, InFlight: true},
			guard.DeviceHealth{DeviceID: "asks2", Waiting: 1, InFlight: true},
			guard.DeviceHealth{DeviceID: "asks3", Waiting: 1, InFlight: true},
			guard.DeviceHealth{DeviceID: "queues", Waiting: 1, Queued: true},
			guard.DeviceHealth{DeviceID: "runs", Runs: 2, PermissionAge: 100 * time.Millisecond, StopLine: line, RequestID: id},
			guard.DeviceHealth{DeviceID: "strange", Waiting: 1, DenialCode: "STRANGE"},
			guard.DeviceHealth{
				DeviceID: "waits", Waiting: 2,
				DenialCode: guard.CodeDeviceRevoked, DenialRequestID: "no", DenialReason: "stolen",
			},
		)
	})
}

// From a stop to the return of its function, and on to the next ALLOW, the denial is there to be read.
func TestDevices_TheDenialStandsUntilTheDeviceIsAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		free := make(chan struct{})
		launchFunc(t.Context(), g, "d", func(context.Context) error { <-free; return nil })
		synctest.Wait()
		a.deny(guard.CodeDeviceRevoked)
		g.Hint("d")
		synctest.Wait()
		denied := guard.DeviceHealth{DeviceID: "d", Stopping: 1, DenialCode: guard.CodeDeviceRevoked, DenialRequestID: a.last(t).id()}
		wantDevices(t, g, denied)
		a.fail(errors.New("connection refused"))
		_ = g.Run(t.Context(), "d", mustNotRun(t))
		denied.DenialCode, denied.DenialRequestID, denied.DenialReason = guard.CodeSystemUnavailable, "", "connection refused"
		wantDevices(t, g, denied)

		a.stick(t, fails(errors.New("never")))
		ctx, cancel := context.WithCancel(t.Context())
		asks := launch(ctx, g, "d")
		synctest.Wait()
		time.Sleep(4 * time.Second) // it was given up, and hangs
		_ = asks.finish()
		denied.Hung, denied.DenialReason = 1, "no answer within 3s"
		wantDevices(t, g, denied)

		a.allow()
		launch(ctx, g, "d")
		synctest.Wait()
		runs := guard.DeviceHealth{
			DeviceID: "d", Runs: 1, Stopping: 1, Hung: 1, PermissionAge: 1, // just now is no age, and 0 would say that there is none
			StopLine: time.Now().Add(g.StopBound()).Round(0), RequestID: a.last(t).id(),
		}
		wantDevices(t, g, runs)
		cancel()
		close(free)
	})
}

// Whoever looks may call the guard meanwhile, and stop when he has seen enough.
func TestDevices_NoLockIsHeldAndWhoStopsIsNotToldMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, newAuthority())
		const devices = 500
		for i := range devices {
			launch(t.Context(), g, fmt.Sprint(i))
		}
		synctest.Wait()
		seen := map[string]int{}
		for d := range g.Devices() {
			seen[d.DeviceID]++
			g.Hint(d.DeviceID)
			if len(seen) == 3 {
				if h := g.Health(); h.Runs != devices {
					t.Errorf("%+v", h)
				}
			}
		}
		for id, n := range seen {
			if n != 1 {
				t.Errorf("%s: %d times", id, n)
			}
		}
		if len(seen) != devices {
			t.Errorf("%d devices", len(seen))
		}
		n := 0
		for range g.Devices() {
			if n++; n == 70 {
				break
			}
		}
		if n != 70 {
			t.Errorf("told of %d", n)
		}
	})
}

// What is taken while everything comes and goes makes sense, and is no data race.
func TestHealth_WhileEverythingComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(inTurn(after(time.Millisecond, allows), denies(guard.CodeDeviceRevoked), fails(errors.New("no")), denies(guard.CodePlanFrozen), allows, allows))
		g := newGuard(t, a, guard.WithReuse(time.Millisecond), guard.WithInterval(10*time.Millisecond), guard.WithTimeout(2*time.Millisecond))
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		for i := range 40 {
			work.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					switch id := fmt.Sprint(i % 9); n % 3 {
					case 0:
						_ = g.Run(ctx, id, func(ctx context.Context) error { return ctx.Err() })
					case 1:
						g.Hint(id)
						_, _ = g.Validate(ctx, id)
					default:
						some, stop := context.WithTimeout(ctx, time.Duration(i)*time.Millisecond)
						_ = g.Keep(some, id, untilDone)
						stop()
					}
					time.Sleep(time.Duration(n%5) * time.Millisecond)
				}
			})
		}
		for range 2000 {
			time.Sleep(100 * time.Microsecond)
			h := g.Health()
			refused := 0
			for code, n := range h.Refused {
				if refused += n; code == guard.CodeAllow || n < 1 {
					t.Errorf("refused: %v", h.Refused)
				}
			}
			if h.Devices > 9 || h.Watched > h.Devices || refused > h.Devices || h.Runs > 40 || h.Stopping > 40 || h.OldestPermission < 0 || h.OldestPermission > g.StopBound() {
				t.Errorf("%+v", h)
			}
			for d := range g.Devices() {
				if (d.Runs > 0) != (d.Runs > 0 && d.PermissionAge > 0) || d.Waiting > 40 || d.InFlight && d.Queued {
					t.Errorf("%+v", d)
				}
			}
		}
		cancel()
		work.Wait()
		synctest.Wait()
		time.Sleep(time.Minute)
		if h := g.Health(); h.Devices+h.Runs+h.Stopping+len(h.Refused)+h.Authority.InFlight+h.Authority.Waiting+h.Authority.Hung != 0 {
			t.Errorf("after all: %+v", h)
		}
	})
}

func TestS8_HealthTellsNoSecret(t *testing.T) {
	for name := range clients(allows) {
		bubble(t, name, func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, clients(func(ctx context.Context, c *asked) (guard.Decision, error) { return a.Validate(ctx, c.device) })[name])
			launch(t.Context(), g, "runs")
			synctest.Wait()
			a.deny(guard.CodeOrgDisabled)
			keep(t.Context(), g, "waits")
			synctest.Wait()
			a.fail(secretError{secret})
			time.Sleep(g.Interval())
			keep(t.Context(), g, "too")
			wantNoSecret(t, "Health", g.Health())
			if devices := known(g); len(devices) != 2 {
				t.Errorf("knows %v", devices)
			}
			for d := range g.Devices() {
				wantNoSecret(t, "the health of "+d.DeviceID, d)
			}
			wantNoSecret(t, "the iterator", g.Devices())
		})
	}
}

func ExampleGuard_Health() {
	g, err := guard.New(guard.ValidatorFunc(allowAll))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()

	_ = g.Run(context.Background(), "worker:prod:mailer:01", func(context.Context) error {
		h := g.Health()
		fmt.Println("ready:", h.Ready() == nil, "- answering:", h.Authority.Answering, "- runs:", h.Runs)
		return nil
	})
	// Output:
	// ready: true - answering: true - runs: 1
}

// A page of /debug/vars with every device that the guard knows. It is not for strangers.
func ExampleGuard_Devices() {
	g, err := guard.New(guard.ValidatorFunc(allowAll))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()

	devices := expvar.Func(func() any { return slices.Collect(g.Devices()) }) // and expvar.Publish("devices", devices)

	_ = g.Run(context.Background(), "worker:prod:mailer:01", func(context.Context) error {
		var seen []map[string]any
		_ = json.Unmarshal([]byte(devices.String()), &seen)
		fmt.Println(seen[0]["device"], "runs:", seen[0]["runs"], "by:", seen[0]["request_id"])
		return nil
	})
	// Output:
	// worker:prod:mailer:01 runs: 1 by: req-1
}

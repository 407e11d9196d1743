package cronwrap_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// faults are what only a validator can do wrong: none of it is an ALLOW (S2).
func faults(release <-chan struct{}) map[string]guard.ValidatorFunc {
	const secret = "internal-host-17"
	allow := guard.Decision{Allowed: true, Code: guard.CodeAllow}
	return map[string]guard.ValidatorFunc{
		"hangs":                     guardtest.Hang(),
		"ignores its context":       guardtest.Hold(release, guardtest.Reply(allow, nil)),
		"panics":                    guardtest.Panic(secret),
		"ends its goroutine":        guardtest.Goexit(),
		"an error beside an ALLOW":  guardtest.Reply(allow, errors.New("dial tcp")),
		"ALLOW for another device":  guardtest.Reply(guard.Decision{Allowed: true, Code: guard.CodeAllow, DeviceID: "other"}, nil),
		"allowed without a code":    guardtest.Reply(guard.Decision{Allowed: true}, nil),
		"allowed with a deny code":  guardtest.Reply(guard.Decision{Allowed: true, Code: guard.CodeDeviceRevoked}, nil),
		"ALLOW that is not allowed": guardtest.Reply(guard.Decision{Code: guard.CodeAllow}, nil),
		"the caller's own Canceled": guardtest.Reply(guard.Decision{}, context.Canceled),
		"nothing at all":            guardtest.Reply(guard.Decision{}, nil),
		"answers late":              guardtest.Delay(time.Hour, guardtest.Reply(allow, nil)),
	}
}

// eachFault runs a test in a bubble under each fault, for both kinds of Runner.
func eachFault(t *testing.T, test func(t *testing.T, k kind, f fixture, fault guard.ValidatorFunc)) {
	t.Helper()
	for name := range faults(nil) {
		t.Run(name, func(t *testing.T) {
			eachKind(t, func(t *testing.T, k kind) {
				release := make(chan struct{})
				defer close(release)
				f := newFixture(t)
				test(t, k, f, faults(release)[name])
				if text := fmt.Sprint(f.log.find("")); strings.Contains(text, "internal-host") {
					t.Errorf("the panic's value, which may be a secret, is logged: %s", text)
				}
			})
		})
	}
}

// S1: no tick begins. And when the fault is over, all is as before.
func TestFaultAtTheStart(t *testing.T) {
	eachFault(t, func(t *testing.T, k kind, f fixture, fault guard.ValidatorFunc) {
		c, seen := newCron(t), &runs{}
		f.script.Always(device, fault)
		add(t, c, "0 0 * * * *", k.job(f, seen.do))
		c.Start()
		pass(3*time.Hour + time.Minute)
		if seen.count() != 0 {
			t.Error("the job has run, and nobody has allowed it")
		}
		refused := f.log.find("denied: skipped")
		if len(refused) != 3 {
			t.Fatalf("logged: %v", f.log.find(""))
		}
		for _, r := range refused {
			if r.level != slog.LevelWarn || r.attrs["code"] != "SYSTEM_UNAVAILABLE" || r.attrs["error"] == "" {
				t.Errorf("logged: %v", r)
			}
		}
		stop(t, c)
	})
}

// B2, S4: in mid-run no fault lets a job live past the stop line, interval + timeout after the request of the last ALLOW
// was sent; and what was cut is caught up when the fault is over.
func TestFaultWhileItRuns(t *testing.T) {
	eachFault(t, func(t *testing.T, k kind, f fixture, fault guard.ValidatorFunc) {
		c, seen := newCron(t), &runs{}
		ends := make(chan time.Time, 2)
		add(t, c, "0 0 12 * * *", k.job(f, func(ctx context.Context) error {
			seen.note(ctx)
			if seen.count() == 1 {
				<-ctx.Done()
				ends <- time.Now()
			}
			return nil
		}, cronwrap.WithCatchUp()))
		c.Start()
		pass(12*time.Hour + 10*time.Minute)
		f.script.Always(device, fault)
		pass(f.StopBound() + time.Second)
		var last time.Time
		for _, call := range f.script.Calls() {
			if call.Decision.Allowed && call.Err == nil && call.Decision.DeviceID == device {
				last = call.Sent
			}
		}
		select {
		case ended := <-ends:
			if ended.After(last.Add(f.StopBound())) {
				t.Errorf("the last ALLOW was asked for at %v, the job was stopped at %v", last, ended)
			}
		default:
			t.Fatal("the job goes on past the stop line")
		}
		f.log.want(t, slog.LevelWarn, "denied while it ran: stopped, to be caught up", "code", "SYSTEM_UNAVAILABLE")
		pass(time.Hour)
		if seen.count() != 1 {
			t.Errorf("%d runs, and nobody has allowed the second", seen.count())
		}
		f.allow()
		pass(time.Minute)
		if want := 2; seen.count() != want && !strings.Contains(t.Name(), "ignores") { // whose calls keep the device's slots
			t.Errorf("%d runs, want %d", seen.count(), want)
		}
		stop(t, c)
	})
}

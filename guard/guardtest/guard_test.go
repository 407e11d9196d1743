package guardtest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
	"github.com/execguard/execguard/guard/machineid"
)

func newGuard(t *testing.T, v guard.Validator, opts ...guard.Option) *guard.Guard {
	t.Helper()
	g, err := guard.New(v, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

// TestNoFaultStartsWork runs the whole chain under every fault: the guard, MachineID's client,
// real sockets.
func TestNoFaultStartsWork(t *testing.T) {
	for _, fault := range guardtest.Faults() {
		t.Run(fault.String(), func(t *testing.T) {
			t.Parallel()
			srv := newServer(t)
			client := newClient(t, srv, machineid.WithTimeout(aWhile))
			g := newGuard(t, client, guard.WithTimeout(patience(fault)))
			srv.Inject(fault)
			err := g.Run(t.Context(), device, func(context.Context) error {
				t.Error("the function was called")
				return nil
			})
			denial := (*guard.DeniedError)(nil)
			if !errors.As(err, &denial) {
				t.Fatalf("Run returned %v", err)
			}
			if err := fault.Check(denial.Decision, nil); err != nil {
				t.Error(err)
			}
			if want := fault.Code() == guard.CodeSystemUnavailable; errors.Is(err, guard.ErrUnavailable) != want {
				t.Errorf("%v matches ErrUnavailable: %t, want %t", err, !want, want)
			}
			srv.Heal()
			ran := false
			if err := newGuard(t, client, guard.WithTimeout(aWhile)).Run(t.Context(), device, func(context.Context) error { ran = true; return nil }); err != nil || !ran {
				t.Errorf("after it: %v, ran %t", err, ran)
			}
		})
	}
}

// TestEveryFaultStopsWork injects the fault under a run. What is honest now and then is left
// out: the run may live as long as it is honest.
func TestEveryFaultStopsWork(t *testing.T) {
	for _, fault := range guardtest.Faults() {
		t.Run(fault.String(), func(t *testing.T) {
			t.Parallel()
			srv := newServer(t)
			client := newClient(t, srv)
			wantAllow(t, srv) // a connection is there: the first question needs no more than one way and back
			g := newGuard(t, client, guard.WithTimeout(max(time.Second, patience(fault))), guard.WithInterval(200*time.Millisecond))
			err := g.Run(t.Context(), device, func(ctx context.Context) error {
				srv.Inject(fault)
				select {
				case <-ctx.Done():
				case <-time.After(aWhile):
					t.Error("still running")
				}
				return ctx.Err()
			})
			denial := (*guard.DeniedError)(nil)
			if !errors.As(err, &denial) || !denial.InFlight || denial.Decision.Code != fault.Code() {
				t.Errorf("Run returned %v, want a denial in flight with %s", err, fault.Code())
			}
		})
	}
}

// TestGuardConforms puts the guard itself on trial, which is a validator too.
func TestGuardConforms(t *testing.T) {
	guardtest.TestValidator(t, func(t *testing.T) guardtest.Subject {
		s := scripted()
		s.Validator = newGuard(t, s.Validator)
		return s
	})
}

func TestGuardOverHTTPConforms(t *testing.T) {
	guardtest.TestValidator(t, func(t *testing.T) guardtest.Subject {
		srv := guardtest.NewServer(t)
		return srv.Subject(newGuard(t, newClient(t, srv)))
	})
}

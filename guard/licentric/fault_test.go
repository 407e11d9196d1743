package licentric_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/licentric"
	"github.com/execguard/execguard/internal/licentricserver"
)

// patience is how long a client waits that meets a service which never answers.
const patience = 150 * time.Millisecond

// Each fault of the contract's list, and those of this dialect: what the validator says under it,
// that nobody is asked at the host that redirects lead to, and that the next answer is believed.
func TestFaults(t *testing.T) {
	for _, name := range []string{"bare", "enveloped"} {
		t.Run(name, func(t *testing.T) {
			srv, license, unhurried := local(t, variants[name]...)
			for _, fault := range srv.Faults() {
				t.Run(fault.Name, func(t *testing.T) {
					client := patient(t, srv)
					v := client.Validator(license.Key)
					inject(t, srv, fault.Name)
					d, err := v.Validate(t.Context(), device)
					if err := fault.Check(d, err); err != nil {
						t.Error(err)
					}
					if fault.Code == guard.CodeSystemUnavailable {
						checkUndecided(t, d, err)
					} else if err != nil || d.Reason == "" && d.Code != "QUOTA_EXHAUSTED" {
						t.Errorf("%+v, %v", d, err)
					}
					if fault.Endless && !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("%v, want the end of the time", err)
					}
					heal(t, srv)
					if d, err := unhurried.Validator(license.Key).Validate(t.Context(), device); err != nil || !d.Allowed {
						t.Errorf("healed: %+v, %v", d, err)
					}
				})
			}
			if strays := srv.Strays(); len(strays) > 0 {
				t.Errorf("%d requests followed a redirect", len(strays))
			}
		})
	}
}

// patient makes a client that gives up soon, so that no connection of one fault serves the next.
func patient(t *testing.T, srv *licentricserver.Server) *licentric.Client {
	t.Helper()
	client, err := licentric.New(srv.APIKey(),
		licentric.WithBaseURL(srv.URL()), licentric.WithHTTPClient(srv.Client()), licentric.WithTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { checkClosed(t, client) })
	return client
}

func inject(t *testing.T, srv *licentricserver.Server, fault string) {
	t.Helper()
	if err := srv.Inject(fault); err != nil {
		t.Fatal(err)
	}
}

func heal(t *testing.T, srv *licentricserver.Server) {
	t.Helper()
	if err := srv.Heal(); err != nil {
		t.Error(err)
	}
}

// No call succeeds under a fault that leaves no answer, and each says so with one type. Faults of
// validate's answer are left out, which are rubbish to the others, and those that are honest now
// and then. Whom a page and a file are about the client does not know.
func TestCallsUnderFaults(t *testing.T) {
	srv, license, _ := local(t)
	others := []string{"flapping", "answers out of order", "ALLOW with 201", "ALLOW with 403", "two answers in one"}
	for _, fault := range srv.Faults() {
		if fault.Code != guard.CodeSystemUnavailable || slices.Contains(others, fault.Name) {
			continue
		}
		m, err := srv.AddMachine(license.ID, "fp:"+fault.Name)
		if err != nil {
			t.Fatal(err)
		}
		client := patient(t, srv)
		inject(t, srv, fault.Name)
		ctx := t.Context()
		failed := map[string]error{
			"activate":  second(client.Activate(ctx, license.Key, licentric.Activation{Fingerprint: "fp:third-machine"})),
			"heartbeat": second(client.Heartbeat(ctx, license.Key, m.ID)),
			"machine":   second(client.Machine(ctx, m.ID)),
		}
		if fault.Name != "answer for another device" {
			failed["checkout"] = second(client.Checkout(ctx, license.ID, licentric.CheckoutParams{Fingerprint: device}))
			failed["machines"] = second(collect(client, ctx, licentric.MachinesParams{}))
		}
		if !strings.Contains(fault.Name, "valid") && !strings.Contains(fault.Name, "code") {
			failed["deactivate"] = client.Deactivate(ctx, license.Key, m.ID)
		}
		for op, err := range failed {
			if err == nil {
				t.Errorf("%s under %s: no error", op, fault)
			} else if e := typedError(t, err); e.Op != op || !errors.Is(err, guard.ErrUnavailable) {
				t.Errorf("%s under %s: %v", op, fault, err)
			}
			checkSecret(t, err)
		}
		heal(t, srv)
	}
}

package licentric_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/licentric"
	"github.com/google/go-cmp/cmp"
)

// S2: each name that decides something, or is shown, makes an answer invalid in another case, wherever
// it stands, and nothing is then taken from such an answer.
func TestNamesInAnotherCase(t *testing.T) {
	beside := func(body, where, name string) string {
		return strings.Replace(body, where, where+`"`+strings.ToUpper(name)+`":null,`, 1)
	}
	yes := strings.Replace(valid, `{`, `{"requestId":"r-1",`, 1)
	for _, name := range []string{"valid", "code", "license", "machine", "entitlements", "data", "pagination", "error", "details", "requestId"} {
		d, err := ask(t, 200, beside(yes, `{`, name))
		if checkUndecided(t, d, err); d.RequestID != "" {
			t.Errorf("%s: %+v", name, d)
		}
	}
	for _, name := range []string{"valid", "code", "license", "machine", "entitlements"} {
		d, err := ask(t, 200, beside(`{"data":`+valid+`}`, `"data":{`, name))
		checkUndecided(t, d, err)
	}
	for _, name := range []string{"id", "status", "expiresAt", "entitlements", "machineCount"} {
		d, err := ask(t, 200, beside(valid, `"license":{`, name))
		checkUndecided(t, d, err)
	}
	for _, name := range []string{"id", "licenseId", "fingerprint", "heartbeatStatus", "lastHeartbeatAt"} {
		d, err := ask(t, 200, beside(valid, `"machine":{`, name))
		checkUndecided(t, d, err)
		_, err = offsocket(t, apiKey, canned(200, []byte(beside(`{"data":`+machineJSON+`}`, `"data":{`, name)))).Machine(t.Context(), machineID)
		if !errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("%s of a machine: %v", name, err)
		}
		_, err = collect(offsocket(t, apiKey, canned(200, []byte(beside(`{"data":[`+machineJSON+`]}`, `"data":[{`, name)))), t.Context(), licentric.MachinesParams{})
		if !errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("%s in a list: %v", name, err)
		}
	}
	d, err := ask(t, 200, `{"valid":true,"code":"VALID","entitlements":[{"code":"pro","Code":"x"}]}`)
	checkUndecided(t, d, err)
}

// A status that is neither a success nor a refusal is no answer, whatever stands in the body: 300 is a
// redirect too, and transports of others pass on what is below 200.
func TestStatusThatIsNone(t *testing.T) {
	for _, status := range []int{0, 101, 199, 300, 399, 599} {
		for name, body := range map[string]string{
			"validate": valid, "activate": `{"data":` + machineJSON + `}`, "heartbeat": `{"data":` + machineJSON + `}`, "deactivate": `{}`,
			"machine": `{"data":` + machineJSON + `}`, "machines": `{"data":[]}`, "checkout": `{"data":{"certificate":"x"}}`,
		} {
			_, err := calls[name](t.Context(), offsocket(t, apiKey, canned(status, []byte(body))))
			if e := typedError(t, err); e.Status != status || !errors.Is(err, guard.ErrUnavailable) {
				t.Errorf("%s %d: %v", name, status, err)
			}
		}
	}
}

// A no that shows a machine without a fingerprint, or none, stands: it decides, and no file may be used
// in its place. A yes that shows such a machine is none.
func TestDenialOfAMachineWithoutAFingerprint(t *testing.T) {
	for _, machine := range []string{`{"id":"m-1"}`, `{"id":"m-1","fingerprint":null}`, `null`, `{}`} {
		d, err := ask(t, 200, `{"valid":false,"code":"SUSPENDED","machine":`+machine+`}`)
		if diff := cmp.Diff(guard.Decision{Code: guard.CodePlanFrozen, Reason: "SUSPENDED"}, d); err != nil || diff != "" {
			t.Errorf("%s: %v, %s", machine, err, diff)
		}
		if d, err := ask(t, 200, `{"valid":true,"code":"VALID","machine":`+machine+`}`); machine != "null" {
			checkUndecided(t, d, err)
		}
	}
}

// What just fits is read: 1 MiB, and 8 MiB of a page of machines, but not a byte more.
func TestBodyBound(t *testing.T) {
	for over := range 2 {
		d, err := ask(t, 200, valid+strings.Repeat(" ", 1<<20+over-len(valid)))
		if fits := over == 0; d.Allowed != fits || (err == nil) != fits {
			t.Errorf("1 MiB and %d: %+v, %v", over, d, err)
		}
		list := `{"data":[` + machineJSON + `]}`
		list += strings.Repeat(" ", 8<<20+over-len(list))
		all, err := collect(offsocket(t, apiKey, canned(200, []byte(list))), t.Context(), licentric.MachinesParams{})
		if fits := over == 0; len(all) != 1-over || (err == nil) != fits {
			t.Errorf("8 MiB and %d: %d machines, %v", over, len(all), err)
		}
	}
}

// What just fits is taken.
func TestBoundsAreTaken(t *testing.T) {
	var call context.Context
	client := offsocket(t, apiKey, transport(func(r *http.Request) (*http.Response, error) {
		call = r.Context()
		return response(r, 200, []byte(`{"data":{"certificate":"x"}}`)), nil
	}), licentric.WithTimeout(10*time.Minute), licentric.WithPaths(licentric.Paths{Machines: "/azAZ09-._~/-"}))
	for _, ttl := range []time.Duration{time.Hour, 90 * 24 * time.Hour} {
		if _, err := client.Checkout(t.Context(), licenseID, licentric.CheckoutParams{Fingerprint: device, TTL: ttl}); err != nil {
			t.Errorf("%v: %v", ttl, err)
		}
	}
	if call.Err() == nil {
		t.Error("the call's own context, with its timer, goes on")
	}
	if _, err := licentric.New("", licentric.WithTimeout(1)); err != nil {
		t.Error(err)
	}
	for _, period := range []time.Duration{time.Second, 24 * time.Hour} {
		d, err := ask(t, 200, valid, licentric.WithHeartbeats(period))
		if err != nil || !d.Allowed {
			t.Errorf("%v: %+v, %v", period, d, err)
		}
	}
}

// What the service said stands beside the error.
func TestCheckoutWithoutAFile(t *testing.T) {
	const body = `{"data":{"id":"x"},"requestId":"r-1"}`
	got, err := offsocket(t, apiKey, canned(200, []byte(body))).Checkout(t.Context(), licenseID, licentric.CheckoutParams{Fingerprint: device})
	if !errors.Is(err, guard.ErrUnavailable) || got.Certificate != nil || got.RequestID != "r-1" || string(got.Raw) != body {
		t.Errorf("%+v, %v", got, err)
	}
}

// A denial for want of a heartbeat that cannot be sent says why, and is not asked about once more; so
// does one that came as an error of the API.
func TestHeartbeatThatCannotBeSent(t *testing.T) {
	const why = "HEARTBEAT_REQUIRED; the heartbeat failed: invalid_request: the answer names no machine, and the list of machines needs an API key (New)"
	for status, body := range map[int]string{
		200: `{"valid":false,"code":"HEARTBEAT_REQUIRED","license":{"id":"` + licenseID + `"}}`,
		422: `{"error":"text","code":"HEARTBEAT_REQUIRED"}`,
	} {
		asked := 0
		client := offsocket(t, "", transport(func(r *http.Request) (*http.Response, error) {
			asked++
			return response(r, status, []byte(body)), nil
		}))
		d, err := client.Validator(licenseKey).Validate(t.Context(), device)
		if err != nil || d.Allowed || d.Code != guard.CodeDeviceNotFound || d.Reason != why || asked != 1 {
			t.Errorf("%d: %+v, %v after %d requests", status, d, err, asked)
		}
	}
}

// L1: who waits for another's heartbeat is told that it failed, and sends none of its own.
func TestWaitersShareAFailedHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		v := b.validator(t)
		hold := make(chan struct{})
		b.set(func(call string, _ *http.Request) error {
			if call != "heartbeat" {
				return nil
			}
			<-hold
			return errors.New("no route")
		})
		var group sync.WaitGroup
		for range 3 {
			group.Go(func() {
				d, err := v.Validate(t.Context(), device)
				if err != nil || d.Allowed || d.Reason != "HEARTBEAT_REQUIRED; the heartbeat failed: no route" {
					t.Errorf("%+v, %v", d, err)
				}
			})
			synctest.Wait()
		}
		close(hold)
		group.Wait()
		if got := b.asked(); got != "VHVV" {
			t.Errorf("asked %s", got)
		}
	})
}

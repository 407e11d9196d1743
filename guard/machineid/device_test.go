package machineid_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/machineid"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const registered = `{"status":"ok","handler":"devices/register","deviceId":"` + device + `","planTier":"free",
	"planState":"active","accessUntil":null,"limit":3,"devicesUsed":1,"remaining":2,"overLimit":false,"softGraceWindow":false}`

// sameError compares what an *Error says.
func sameError(t *testing.T, err error, want *machineid.Error) {
	t.Helper()
	if want == nil {
		if err != nil {
			t.Errorf("error %v", err)
		}
		return
	}
	if diff := cmp.Diff(want, typedError(t, err), cmpopts.IgnoreUnexported(machineid.Error{})); diff != "" {
		t.Errorf("error: %s", diff)
	}
}

// Register, row by row of the wire's table.
func TestRegister(t *testing.T) {
	failed := func(status int, code, reason string) *machineid.Error {
		return &machineid.Error{Op: "devices/register", Status: status, Code: code, Reason: reason}
	}
	for name, c := range map[string]struct {
		status  int
		body    string
		want    machineid.Registration
		err     *machineid.Error
		decided bool // the error is the service's no
	}{
		"new": {200, registered, machineid.Registration{Status: "ok", DeviceID: device, Usage: machineid.Usage{
			PlanTier: "free", PlanState: "active", Limit: 3, DevicesUsed: 1, Remaining: 2,
		}}, nil, false},
		"there already": {200, `{"status":"exists","request_id":"r-1"}`, machineid.Registration{
			Status: "exists", Usage: machineid.Usage{Answer: machineid.Answer{RequestID: "r-1"}},
		}, nil, false},
		"all members": {
			200, `{"status":"ok","accessUntil":"2027-01-02T03:04:05.678Z","overLimit":true,"softGraceWindow":true,"limit":1000,"remaining":-1}`,
			machineid.Registration{Status: "ok", Usage: machineid.Usage{
				AccessUntil: time.Date(2027, 1, 2, 3, 4, 5, 678e6, time.UTC), OverLimit: true, SoftGraceWindow: true, Limit: 1000, Remaining: -1,
			}}, nil, false,
		},
		"members of other kinds": {
			200, `{"status":"ok","limit":"3","devicesUsed":null,"remaining":1.5,"overLimit":"no","planTier":7,"accessUntil":"soon"}`,
			machineid.Registration{Status: "ok"}, nil, false,
		},
		"limit reached": {
			403, `{"status":"blocked","error":"device_limit_reached","limit":3,"devicesUsed":3}`,
			machineid.Registration{Status: "blocked", Usage: machineid.Usage{Limit: 3, DevicesUsed: 3}},
			failed(403, "device_limit_reached", ""), true,
		},
		"limit reached with 200": {
			200, `{"status":"blocked","error":"device_limit_reached"}`,
			machineid.Registration{Status: "blocked"}, failed(200, "device_limit_reached", ""), true,
		},
		"revoked":          {403, `{"status":"revoked"}`, machineid.Registration{Status: "revoked"}, failed(403, "revoked", ""), true},
		"revoked with 200": {200, `{"status":"revoked"}`, machineid.Registration{Status: "revoked"}, failed(200, "revoked", "not registered"), true},
		"restored":         {200, `{"status":"restored"}`, machineid.Registration{Status: "restored"}, failed(200, "restored", "not registered"), true},
		"no status":        {200, `{}`, machineid.Registration{}, failed(200, "", "not registered"), true},
		"missing id":       {400, `{"error":"missing_params","message":"deviceId?"}`, machineid.Registration{}, failed(400, "missing_params", "deviceId?"), true},
		"bad key":          {401, `{"error":"invalid_org_key"}`, machineid.Registration{}, failed(401, "invalid_org_key", ""), true},
		"another device": {
			200, `{"status":"ok","deviceId":"another"}`, machineid.Registration{Status: "ok", DeviceID: "another"},
			failed(200, "ok", "the answer is about another device"), false,
		},
		"ok with 500": {500, `{"status":"ok"}`, machineid.Registration{Status: "ok"}, failed(500, "ok", ""), false},
	} {
		t.Run(name, func(t *testing.T) {
			client := newClient(t, serve(t, answer(c.status, c.body)))
			got, err := client.Register(t.Context(), device)
			sameError(t, err, c.err)
			if errors.Is(err, guard.ErrUnavailable) == c.decided && err != nil {
				t.Errorf("%v: matches ErrUnavailable: %v", err, !c.decided)
			}
			if string(got.Raw) != c.body {
				t.Errorf("raw %s", got.Raw)
			}
			got.Raw = nil
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestChange(t *testing.T) {
	for name, do := range map[string]func(*machineid.Client, context.Context, string) (machineid.Change, error){
		"devices/revoke":   (*machineid.Client).Revoke,
		"devices/unrevoke": (*machineid.Client).Unrevoke,
		"devices/remove":   (*machineid.Client).Remove,
	} {
		for body, code := range map[string]string{
			`{"status":"ok","deviceId":"` + device + `","request_id":"r-5"}`: "",
			`{"ok":true}`:             "",
			`{"status":"revoked"}`:    "",
			`{"status":"unrevoked"}`:  "",
			`{"status":"not_found"}`:  "not_found",
			`{"status":"NOT_FOUND"}`:  "NOT_FOUND",
			`{"status":"error"}`:      "error",
			`{"status":"failed"}`:     "failed",
			`{"status":"invalid"}`:    "invalid",
			`{"error":"no"}`:          "no",
			`{"error":"","code":"x"}`: "",
			`{"status":"blocked","error":"device_limit_reached"}`: "device_limit_reached",
		} {
			t.Run(name+" "+body, func(t *testing.T) {
				got, err := do(newClient(t, serve(t, answer(200, body))), t.Context(), " "+device)
				var want *machineid.Error
				if code != "" {
					want = &machineid.Error{Op: name, Status: 200, Code: code}
				}
				sameError(t, err, want)
				if string(got.Raw) != body {
					t.Errorf("raw %s", got.Raw)
				}
			})
		}
		got, err := do(newClient(t, serve(t, answer(404, `{"error":"device_not_found","request_id":"r-6"}`))), t.Context(), device)
		sameError(t, err, &machineid.Error{Op: name, Status: 404, Code: "device_not_found", RequestID: "r-6"})
		if got.RequestID != "r-6" {
			t.Errorf("%+v", got)
		}
	}
}

// Ids against the rule are refused by the calls that name one, unasked and with a typed error.
func TestManageInvalidDeviceID(t *testing.T) {
	client := offline(t, transport(func(*http.Request) (*http.Response, error) {
		t.Error("the service was asked")
		return nil, errors.New("asked")
	}))
	for _, call := range []string{"register", "revoke", "unrevoke", "remove"} {
		for _, id := range []string{"", "a b", key} {
			err := byID(t.Context(), client, call, id)
			typed := typedError(t, err)
			if typed.Status != 0 || typed.Code != "invalid_device_id" || errors.Is(err, guard.ErrUnavailable) {
				t.Errorf("%s: %v", call, err)
			}
			checkSecret(t, err)
		}
	}
}

func byID(ctx context.Context, client *machineid.Client, call, id string) error {
	var err error
	switch call {
	case "register":
		_, err = client.Register(ctx, id)
	case "revoke":
		_, err = client.Revoke(ctx, id)
	case "unrevoke":
		_, err = client.Unrevoke(ctx, id)
	case "remove":
		_, err = client.Remove(ctx, id)
	}
	return err
}

func TestList(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		want []machineid.Device
		err  string
	}{
		"devices": {
			`{"devices":[{"deviceId":"a","status":"active","registeredAt":"2026-01-01T00:00:00Z"},{"deviceId":"b","status":"revoked"}]}`,
			[]machineid.Device{{"a", "active"}, {"b", "revoked"}}, "",
		},
		"older members":   {`{"devices":[{"id":"a","revoked":false},{"id":"b","revoked":true},{}]}`, []machineid.Device{{"a", "active"}, {"b", "revoked"}, {}}, ""},
		"none":            {`{"devices":[]}`, nil, ""},
		"no list":         {`{"items":[]}`, nil, "no list of devices in the answer"},
		"null":            {`{"devices":null}`, nil, "no list of devices in the answer"},
		"list of texts":   {`{"devices":["a"]}`, nil, "no list of devices in the answer"},
		"id in two cases": {`{"devices":[{"deviceId":"a","DeviceId":"b"}]}`, nil, "no list of devices in the answer"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := newClient(t, serve(t, answer(200, c.body))).List(t.Context())
			var want *machineid.Error
			if c.err != "" {
				want = &machineid.Error{Op: "devices/list", Status: 200, Reason: c.err}
			}
			sameError(t, err, want)
			if diff := cmp.Diff(c.want, got.Devices); diff != "" || string(got.Raw) != c.body {
				t.Errorf("%s, raw %s", diff, got.Raw)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	const body = `{"planTier":"scale","limit":250,"devicesUsed":17,"request_id":"r-7"}`
	got, err := newClient(t, serve(t, answer(200, body))).Usage(t.Context())
	want := machineid.Usage{PlanTier: "scale", Limit: 250, DevicesUsed: 17, Answer: machineid.Answer{RequestID: "r-7", Raw: []byte(body)}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
}

func TestCheckout(t *testing.T) {
	for body, page := range map[string]string{
		`{"url":"https://checkout.stripe.com/c/pay/cs_1#x"}`:                  "https://checkout.stripe.com/c/pay/cs_1#x",
		`{"checkoutUrl":"https://checkout.stripe.com/c/pay/cs_2"}`:            "https://checkout.stripe.com/c/pay/cs_2",
		`{"url":"https://one.example/","checkoutUrl":"https://two.example/"}`: "https://one.example/",
		`{"url":"http://checkout.stripe.com/"}`:                               "",
		`{"url":"javascript:alert(1)"}`:                                       "",
		`{"url":"https:///nowhere"}`:                                          "",
		`{"url":"//checkout.stripe.com/"}`:                                    "",
		`{"url":""}`:                                                          "",
		`{"url":"://"}`:                                                       "",
		`{"url":7}`:                                                           "",
		`{}`:                                                                  "",
		`{"url":"https://checkout.stripe.com/` + key + `"}`:                   "",
		`{"url":"http://one.example/","checkoutUrl":"https://two.example/pay"}`: "",
	} {
		got, err := newClient(t, serve(t, answer(200, body))).Checkout(t.Context(), " pro ")
		if got.URL != page || (err == nil) != (page != "") {
			t.Errorf("%s: %q, %v", body, got.URL, err)
		}
		checkSecret(t, got, err)
	}
	_, err := newClient(t, serve(t, answer(400, `{"error":"invalid_plan"}`))).Checkout(t.Context(), "gold")
	sameError(t, err, &machineid.Error{Op: "billing/checkout", Status: 400, Code: "invalid_plan"})
	_, err = offline(t, canned(200, []byte(`{}`))).Checkout(t.Context(), " ")
	sameError(t, err, &machineid.Error{Op: "billing/checkout", Code: "missing_params", Reason: "the plan is blank"})
}

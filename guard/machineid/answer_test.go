package machineid_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/machineid"
	"github.com/google/go-cmp/cmp"
)

// What the service said stands beside the error too, whichever call it was: whoever looks into a
// refusal has nothing else.
func TestAnswerBesideTheError(t *testing.T) {
	const refused = `{"error":"no","request_id":"r-1"}`
	client := newClient(t, serve(t, answer(409, refused)))
	for _, name := range []string{"register", "revoke", "list", "usage", "checkout"} {
		result, err := calls[name](t.Context(), client)
		want := []machineid.Answer{{RequestID: "r-1", Raw: []byte(refused)}}
		if diff := cmp.Diff(want, answers(result)); err == nil || diff != "" {
			t.Errorf("%s: %v, %s", name, err, diff)
		}
	}
	const elsewhere = `{"url":"http://pay.example/","request_id":"r-2"}`
	got, err := newClient(t, serve(t, answer(200, elsewhere))).Checkout(t.Context(), "pro")
	if got.URL != "" || got.RequestID != "r-2" || string(got.Raw) != elsewhere {
		t.Errorf("%+v", got)
	}
	sameError(t, err, &machineid.Error{Op: "billing/checkout", Status: 200, RequestID: "r-2", Reason: "no https address in the answer"})
	const paid = `{"url":"https://pay.example/","request_id":"r-3"}`
	if got, err := newClient(t, serve(t, answer(200, paid))).Checkout(t.Context(), "pro"); err != nil || got.RequestID != "r-3" || string(got.Raw) != paid {
		t.Errorf("%+v, %v", got, err)
	}
}

// Change repeats the service's words, in a success and beside an error.
func TestChangeRepeatsTheAnswer(t *testing.T) {
	body := `{"status":"blocked","error":"device_limit_reached","deviceId":"` + device + `","request_id":"r-1"}`
	want := machineid.Change{Status: "blocked", DeviceID: device, Answer: machineid.Answer{RequestID: "r-1", Raw: []byte(body)}}
	got, err := newClient(t, serve(t, answer(403, body))).Unrevoke(t.Context(), device)
	if diff := cmp.Diff(want, got); err == nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
	got, err = newClient(t, serve(t, answer(200, `{"status":"unrevoked"}`))).Unrevoke(t.Context(), device)
	if err != nil || got.Status != "unrevoked" {
		t.Errorf("%+v, %v", got, err)
	}
}

// A refusal is found by its status alone, by the first of 4xx too, and by its word alone.
func TestRefusalsOfOneSign(t *testing.T) {
	for status, body := range map[int]string{400: `{}`, 499: `{}`, 200: `{"status":"blocked"}`} {
		_, err := newClient(t, serve(t, answer(status, body))).Revoke(t.Context(), device)
		if typed := typedError(t, err); typed.Status != status || errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("%d %s: %v", status, body, err)
		}
	}
	_, err := newClient(t, serve(t, answer(400, `{"code":"limit"}`))).Revoke(t.Context(), device)
	sameError(t, err, &machineid.Error{Op: "devices/revoke", Status: 400, Code: "limit"})
	_, err = newClient(t, serve(t, answer(503, `{"reason":"maintenance"}`))).Revoke(t.Context(), device)
	sameError(t, err, &machineid.Error{Op: "devices/revoke", Status: 503, Reason: "maintenance"})
}

// A refusal stays one whatever device it names, and a success may name none.
func TestAnswersThatNameNobody(t *testing.T) {
	client := newClient(t, serve(t, answer(409, `{"error":"no","reason":"because","deviceId":"another"}`)))
	_, err := client.Revoke(t.Context(), device)
	sameError(t, err, &machineid.Error{Op: "devices/revoke", Status: 409, Code: "no", Reason: "because"})
	if errors.Is(err, guard.ErrUnavailable) {
		t.Error(err)
	}
	if got, err := newClient(t, serve(t, answer(200, `{"status":"ok","deviceId":null}`))).Revoke(t.Context(), device); err != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// A status below 200 is no answer. net/http passes on 101, and transports of others pass on anything.
func TestStatusBelow200(t *testing.T) {
	for _, status := range []int{0, 101, 199} {
		_, err := offline(t, canned(status, []byte(registered))).Register(t.Context(), device)
		if !errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// S2: the error for an unknown key is the answer to no question where a decision stands beside it, a
// part of one too: INVALID_ORG_KEY would end the work of every device.
func TestBadKeyBesideADecision(t *testing.T) {
	for _, beside := range []string{`"code":"DEVICE_REVOKED"`, `"code":null`, `"allowed":false`} {
		client := newClient(t, serve(t, answer(401, `{"error":"invalid_org_key",`+beside+`}`)))
		d, err := client.Validate(t.Context(), device)
		checkUndecided(t, d, err)
	}
}

// S2: each name that decides something or is shown makes an answer invalid in another case, and
// nothing is then taken from such an answer.
func TestNamesInAnotherCase(t *testing.T) {
	for _, name := range []string{"Allowed", "Code", "Request_Id", "DeviceID", "Status", "ERROR", "Reason", "resultS"} {
		body := `{"allowed":true,"code":"ALLOW","request_id":"r-1","` + name + `":"x"}`
		d, err := newClient(t, serve(t, answer(200, body))).Validate(t.Context(), device)
		checkUndecided(t, d, err)
		if typed := typedError(t, err); d.RequestID != "" || typed.Code != "" {
			t.Errorf("%s: %+v, %#v", name, d, typed)
		}
		usage, err := newClient(t, serve(t, answer(200, body))).Usage(t.Context())
		if err == nil || usage.RequestID != "" || usage.Raw != nil {
			t.Errorf("%s: %+v, %v", name, usage, err)
		}
	}
	for _, name := range []string{"DeviceId", "Status", "Error"} {
		got, err := newClient(t, serve(t, answer(200, `{"results":[{"`+name+`":"x"}]}`))).RevokeBatch(t.Context(), []string{"a"})
		if err == nil || got.Items != nil {
			t.Errorf("%s of a result: %+v, %v", name, got, err)
		}
	}
	for _, name := range []string{"DeviceID", "Status"} {
		got, err := newClient(t, serve(t, answer(200, `{"devices":[{"`+name+`":"x"}]}`))).List(t.Context())
		if err == nil || got.Devices != nil {
			t.Errorf("%s of a device: %+v, %v", name, got, err)
		}
	}
}

// Where a device has a status, the older boolean says nothing.
func TestStatusBeforeTheOlderBoolean(t *testing.T) {
	client := newClient(t, serve(t, answer(200, `{"devices":[{"deviceId":"a","revoked":true,"status":"active"}]}`)))
	got, err := client.List(t.Context())
	if diff := cmp.Diff([]machineid.Device{{DeviceID: "a", Status: "active"}}, got.Devices); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
}

// An answer without a list of results ends a batch like an error: what is done is told beside it.
func TestBatchWithoutResultsHalfWay(t *testing.T) {
	for name, do := range bothBatches {
		service := &batches{}
		client := newClient(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
			if len(service.asked) == 1 {
				answer(200, `{"status":"ok"}`)(w, r)
				return
			}
			service.ServeHTTP(w, r)
		}))
		got, err := do(client, t.Context(), ids(1200))
		if !errors.Is(err, guard.ErrUnavailable) || len(got.Items) != 500 || len(got.Answers) != 1 {
			t.Errorf("%s: %d items, %d answers, %v", name, len(got.Items), len(got.Answers), err)
		}
	}
}

// The default rule, sign by sign.
func TestSignsOfDeviceIDs(t *testing.T) {
	first := "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	later := first + "._:-"
	client := offline(t, canned(200, []byte(allow)))
	for sign := range 128 {
		c := string(rune(sign))
		for id, good := range map[string]bool{
			c + "a": strings.Contains(first, c), "a" + c + "a": strings.Contains(later, c),
		} {
			if strings.TrimSpace(id) != id {
				continue
			}
			d, err := client.Validate(t.Context(), id)
			if d.Allowed != good || err != nil {
				t.Errorf("%q: %+v, %v", id, d, err)
			}
		}
	}
}

// The error names the status of what came only in part, and none where nothing came.
func TestStatusOfHalfAnAnswer(t *testing.T) {
	_, err := newClient(t, serve(t, answer(502, "half", "Content-Length", "10"))).Usage(t.Context())
	if typed := typedError(t, err); typed.Status != 502 || !strings.HasPrefix(err.Error(), "machineid: usage: HTTP 502: ") {
		t.Errorf("%v", err)
	}
	_, err = offline(t, transport(func(*http.Request) (*http.Response, error) { return nil, io.ErrNoProgress })).Usage(t.Context())
	if typed := typedError(t, err); typed.Status != 0 || err.Error() != "machineid: usage: "+io.ErrNoProgress.Error() {
		t.Errorf("%v", err)
	}
	_, err = newClient(t, "http://127.0.0.1:1").Revoke(t.Context(), "a b")
	sameError(t, err, &machineid.Error{
		Op: "devices/revoke", Code: "invalid_device_id",
		Reason: "the device id must consist of A-Za-z0-9._:- and begin with a letter or digit",
	})
}

// A request without a body has none, not an empty one: transports of others may tell them apart. And
// its context, with the timer, ends with the call.
func TestNoBodyIsNoBody(t *testing.T) {
	var call context.Context
	client := offline(t, transport(func(r *http.Request) (*http.Response, error) {
		call = r.Context()
		if r.Body != nil || r.GetBody != nil || r.ContentLength != 0 {
			t.Errorf("%s: a body of %d bytes", r.URL.Path, r.ContentLength)
		}
		return canned(200, []byte(`{"devices":[]}`)).RoundTrip(r)
	}), machineid.WithTimeout(10*time.Minute)) // the most that is taken
	for _, name := range []string{"list", "usage"} {
		if _, err := calls[name](t.Context(), client); err != nil || call.Err() == nil {
			t.Errorf("%s: %v; its context: %v", name, err, call.Err())
		}
	}
	if _, err := machineid.New(key, machineid.WithTimeout(1)); err != nil { // and the least
		t.Error(err)
	}
}

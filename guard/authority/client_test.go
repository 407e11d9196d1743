package authority_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/execguard/execguard/guard/authority"
)

// pythonic sends what the vendor's published Python client sends: the header it names, JSON
// with its field, ids and key without the white space around them, a base URL without a slash
// at its end, the requests library's own headers, and {} where there is nothing to say. It
// raises only on an answer that is not JSON, so a status is no error to it.
type pythonic struct {
	t      *testing.T
	client *http.Client
	base   string
	key    string
}

func (p pythonic) call(method, path string, payload map[string]string) (int, map[string]any) {
	p.t.Helper()
	var body io.Reader
	if method == http.MethodPost {
		text, err := json.Marshal(payload)
		if err != nil {
			p.t.Fatal(err)
		}
		body = strings.NewReader(string(text))
	}
	req, err := http.NewRequestWithContext(p.t.Context(), method, strings.TrimRight(p.base, "/")+path, body)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header = http.Header{
		"User-Agent": {"python-requests/2.32.3"}, "Accept-Encoding": {"gzip, deflate"}, "Accept": {"*/*"},
		"Connection": {"keep-alive"}, "x-org-key": {strings.TrimSpace(p.key)},
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := p.client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	var out map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		p.t.Fatalf("%s %s: the client would raise: %v", method, path, err)
	}
	return resp.StatusCode, out
}

func (p pythonic) device(call, id string) (int, map[string]any) {
	p.t.Helper()
	return p.call("POST", "/api/v1/devices/"+call, map[string]string{"deviceId": strings.TrimSpace(id)})
}

// expect compares the fields that it names, in the types that JSON gives them.
func expect(t *testing.T, what string, got, want map[string]any) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		value, there := got[name]
		if !there || fmt.Sprint(value) != fmt.Sprint(want[name]) {
			t.Errorf("%s: %s is %v, want %v", what, name, value, want[name])
		}
	}
}

// The life of a device and of an organisation's last free place, as the vendor's client and
// its starter programs go through it.
func TestThePublishedPythonClientWorks(t *testing.T) {
	a, org := newOrganisation(t, authority.PlanFree)
	c := serve(t, a)
	p := pythonic{t: t, client: c.client, base: c.base + "/", key: " " + testKey + "\n"}

	status, got := p.device("register", " agent-01 ")
	if status != 200 {
		t.Errorf("register: %d", status)
	}
	expect(t, "register", got, map[string]any{
		"status": "ok", "handler": "devices/register", "deviceId": "agent-01", "planTier": "free", "planState": "active",
		"accessUntil": nil, "limit": 3, "devicesUsed": 1, "remaining": 2, "overLimit": false, "softGraceWindow": false,
	})
	_, got = p.device("register", "agent-01")
	expect(t, "register again", got, map[string]any{"status": "exists", "deviceId": "agent-01", "devicesUsed": 1, "limit": 3})

	status, got = p.device("validate", "agent-01")
	expect(t, "validate", got, map[string]any{"allowed": true, "code": "ALLOW", "deviceId": "agent-01"})
	if id, _ := got["request_id"].(string); status != 200 || len(id) != 36 {
		t.Errorf("validate: %d, request id %v", status, got["request_id"])
	}
	status, got = p.device("validate", "agent-02")
	expect(t, "validate of a stranger", got, map[string]any{"allowed": false, "code": "DEVICE_NOT_FOUND"})
	if status != 200 {
		t.Errorf("a denial came with %d", status)
	}

	p.device("register", "agent-02")
	p.device("register", "agent-03")
	status, got = p.device("register", "agent-04")
	expect(t, "register at the cap", got, map[string]any{
		"status": "blocked", "error": "device_limit_reached", "limit": 3, "devicesUsed": 3, "remaining": 0,
	})
	if status != 403 {
		t.Errorf("register at the cap: %d", status)
	}

	_, got = p.device("revoke", "agent-01")
	expect(t, "revoke", got, map[string]any{"status": "ok", "handler": "devices/revoke", "deviceId": "agent-01", "devicesUsed": 2})
	_, got = p.device("validate", "agent-01")
	expect(t, "validate when revoked", got, map[string]any{"allowed": false, "code": "DEVICE_REVOKED"})
	status, got = p.device("register", "agent-01")
	expect(t, "register when revoked", got, map[string]any{"status": "revoked", "error": "device_revoked"})
	if status != 403 {
		t.Errorf("register when revoked: %d", status)
	}

	_, got = p.call("GET", "/api/v1/devices/list", nil)
	expect(t, "list", got, map[string]any{"status": "ok", "handler": "devices/list", "limit": 3, "devicesUsed": 2})
	devices, _ := got["devices"].([]any)
	if len(devices) != 3 {
		t.Fatalf("list: %v", got)
	}
	first, _ := devices[0].(map[string]any)
	expect(t, "the first device", first, map[string]any{"deviceId": "agent-01", "status": "revoked"})

	_, got = p.device("unrevoke", "agent-01")
	expect(t, "unrevoke", got, map[string]any{"status": "ok", "handler": "devices/unrevoke", "devicesUsed": 3})
	_, got = p.device("remove", "agent-01")
	expect(t, "remove", got, map[string]any{"status": "ok", "handler": "devices/remove", "devicesUsed": 2})
	_, got = p.call("GET", "/api/v1/usage", nil)
	expect(t, "usage", got, map[string]any{
		"status": "ok", "handler": "usage", "planTier": "free", "planState": "active", "limit": 3, "devicesUsed": 2, "remaining": 1,
	})

	if err := org.SetState(t.Context(), authority.StateFrozen); err != nil {
		t.Fatal(err)
	}
	_, got = p.device("validate", "agent-02")
	expect(t, "validate when frozen", got, map[string]any{"allowed": false, "code": "PLAN_FROZEN"})
}

// Errors come back as JSON at their status: the client hands them to its caller unread.
func TestThePublishedPythonClientGetsItsErrors(t *testing.T) {
	a, _ := newOrganisation(t, authority.PlanFree)
	c := serve(t, a)
	good := pythonic{t: t, client: c.client, base: c.base, key: testKey}
	bad := pythonic{t: t, client: c.client, base: c.base, key: "org_somebody_elses"}

	status, got := bad.device("register", "agent-01")
	expect(t, "a bad key", got, map[string]any{"status": "error", "error": "invalid_org_key"})
	if status != 401 {
		t.Errorf("a bad key: %d", status)
	}
	_, got = bad.device("validate", "agent-01")
	expect(t, "a bad key, validate", got, map[string]any{"allowed": false, "code": "INVALID_ORG_KEY"})
	for _, path := range []string{"/api/v1/devices/list", "/api/v1/usage"} {
		if status, got = bad.call("GET", path, nil); status != 401 || got["error"] != "invalid_org_key" {
			t.Errorf("%s with a bad key: %d %v", path, status, got)
		}
	}
	status, got = good.device("register", "")
	expect(t, "a blank id", got, map[string]any{"status": "error", "error": "missing_params"})
	if status != 400 {
		t.Errorf("a blank id: %d", status)
	}
	// The older generation's validate is not ours; what reads it must not find «allowed».
	status, got = good.call("GET", "/api/v1/devices/validate?deviceId=agent-01", nil)
	expect(t, "the older validate", got, map[string]any{"allowed": false})
	if status != 405 {
		t.Errorf("the older validate: %d", status)
	}
}

// The whole of each answer, letter by letter but for what differs from time to time.
func TestAnswersAreTheseAndNoOthers(t *testing.T) {
	a, org := newOrganisation(t, authority.PlanFree)
	c := serve(t, a)
	world{calls: org}.register(t, "a", "b", "c")
	const usage = `"planTier":"free","planState":"active","accessUntil":null,"limit":3,"devicesUsed":%d,"remaining":%d,` +
		`"overLimit":false,"softGraceWindow":false}`
	used := func(n int) string { return fmt.Sprintf(usage, n, 3-n) }
	for _, tc := range []struct{ method, path, body, want string }{
		{"POST", "devices/validate", `{"deviceId":"a"}`, `{"allowed":true,"code":"ALLOW","request_id":"ID","deviceId":"a"}`},
		{"POST", "devices/validate", `{"deviceId":"?"}`, `{"allowed":false,"code":"INVALID_DEVICE_ID","request_id":"ID"}`},
		{"POST", "devices/validate", `[]`, `{"allowed":false,"code":"INVALID_DEVICE_ID","request_id":"ID","error":"invalid_json"}`},
		{"POST", "devices/register", `[]`, `{"status":"error","error":"invalid_json","handler":"devices/register","request_id":"ID"}`},
		{"POST", "devices/register", `{"deviceId":"d"}`, `{"status":"blocked","error":"device_limit_reached",` +
			`"handler":"devices/register","deviceId":"d",` + used(3)},
		{"POST", "devices/revoke", `{"deviceId":"a"}`, `{"status":"ok","handler":"devices/revoke","deviceId":"a",` + used(2)},
		{"POST", "devices/revoke_batch", `{"deviceIds":["a","b"]}`, `{"status":"ok","handler":"devices/revoke_batch","results":[` +
			`{"deviceId":"a","status":"already_revoked"},{"deviceId":"b","status":"revoked"}],"revokedCount":1,` + used(1)},
		{"POST", "devices/revoke_batch", `{"scope":"all_active"}`,
			`{"status":"ok","handler":"devices/revoke_batch","scope":"all_active","revokedCount":1,` + used(0)},
		{"POST", "devices/unrevoke_batch", `{"deviceIds":["a"]}`, `{"status":"ok","handler":"devices/unrevoke_batch","results":[` +
			`{"deviceId":"a","status":"unrevoked"}],"unrevokedCount":1,` + used(1)},
		{"POST", "devices/unrevoke_batch", `{"scope":"all_revoked"}`, `{"status":"ok","handler":"devices/unrevoke_batch",` +
			`"scope":"all_revoked","unrevokedCount":2,"unrevokedSample":["c","b"],` + used(3)},
		{"POST", "devices/unrevoke_batch", `{"scope":"all_revoked"}`, `{"status":"ok","handler":"devices/unrevoke_batch",` +
			`"scope":"all_revoked","unrevokedCount":0,"unrevokedSample":[],"reason":"none_revoked",` + used(3)},
		{"POST", "devices/remove", `{"deviceId":"c"}`, `{"status":"ok","handler":"devices/remove","deviceId":"c",` + used(2)},
		{"POST", "devices/remove", `{"deviceId":"c"}`, `{"status":"not_found","error":"device_not_found",` +
			`"handler":"devices/remove","deviceId":"c",` + used(2)},
		{"POST", "devices/revoke", `{"deviceId":"b"}`, `{"status":"ok","handler":"devices/revoke","deviceId":"b",` + used(1)},
		{"GET", "devices/list", ``, `{"status":"ok","handler":"devices/list","devices":[` +
			`{"deviceId":"a","status":"active","registeredAt":"TIME"},` +
			`{"deviceId":"b","status":"revoked","registeredAt":"TIME","revokedAt":"TIME","revocation":4}],` + used(1)},
		{"GET", "usage", ``, `{"status":"ok","handler":"usage",` + used(1)},
		{"POST", "billing/checkout", `{"plan":"scale"}`, `{"status":"ok","handler":"billing/checkout","plan":"scale",` +
			`"url":"https://checkout.invalid/not-a-payment-page?plan=scale",` +
			`"notice":"not a payment page: this authority sells nothing; its operator sets the plan"}`},
	} {
		_, _, text, err := c.send(context.Background(), tc.method, "/api/v1/"+tc.path, "application/json", tc.body)
		if err != nil {
			t.Fatal(err)
		}
		if got := settle(string(text)); got != tc.want+"\n" {
			t.Errorf("%s %s\n got %swant %s", tc.path, tc.body, got, tc.want)
		}
	}
}

var (
	uuidField = regexp.MustCompile(`"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"`)
	timeField = regexp.MustCompile(`"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"`)
)

func settle(s string) string {
	return timeField.ReplaceAllString(uuidField.ReplaceAllString(s, `"ID"`), `"TIME"`)
}

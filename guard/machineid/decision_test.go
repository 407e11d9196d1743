package machineid_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/machineid"
	"github.com/google/go-cmp/cmp"
)

// S2: the one shape of a yes, and what may stand beside it.
func TestValidateAllows(t *testing.T) {
	for name, body := range map[string]string{
		"least":             `{"allowed":true,"code":"ALLOW"}`,
		"with request id":   allow,
		"same device":       `{"allowed":true,"code":"ALLOW","deviceId":"` + device + `"}`,
		"white space":       "\r\n\t {\"allowed\" : true ,\n\"code\":\t\"ALLOW\" } \n",
		"other members":     `{"allowed":true,"code":"ALLOW","x":[1,{"allowed":false}],"y":null,"z":-1.5e3,"status":"ok","reason":"active"}`,
		"escaped":           `{"\u0061llowed":true,"code":"\u0041LLOW","deviceId":"worker\u003atest:queue-consumer:07"}`,
		"no text as id":     `{"allowed":true,"code":"ALLOW","request_id":7}`,
		"retry-after aside": `{"allowed":true,"code":"ALLOW","retryAfter":"never"}`,
	} {
		t.Run(name, func(t *testing.T) {
			client := newClient(t, serve(t, answer(http.StatusOK, body)))
			d, err := client.Validate(t.Context(), device)
			if err != nil || !d.Allowed || d.Code != guard.CodeAllow {
				t.Errorf("%+v, %v", d, err)
			}
		})
	}
}

// Everything that the service sends along comes out again, and nothing else.
func TestValidateDecision(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   guard.Decision
	}{
		"allow": {200, allow, guard.Decision{Allowed: true, Code: guard.CodeAllow, RequestID: "r-1"}},
		"allow, all members": {
			200, `{"allowed":true,"code":"ALLOW","request_id":"r-1","deviceId":"` + device + `","reason":"active"}`,
			guard.Decision{Allowed: true, Code: guard.CodeAllow, RequestID: "r-1", DeviceID: device, Reason: "active"},
		},
		"documented denial": {
			200, `{"allowed":false,"code":"DEVICE_REVOKED","request_id":"fbf77ff5-06ed-42eb-8e07-024c32ef1e68"}`,
			guard.Decision{Code: guard.CodeDeviceRevoked, RequestID: "fbf77ff5-06ed-42eb-8e07-024c32ef1e68"},
		},
		"denial with 403": {
			403, `{"allowed":false,"code":"ORG_DISABLED","status":"disabled"}`,
			guard.Decision{Code: guard.CodeOrgDisabled, Reason: "disabled"},
		},
		"denial with 404, device null": {
			404, `{"allowed":false,"code":"DEVICE_NOT_FOUND","deviceId":null,"error":"no such device"}`,
			guard.Decision{Code: guard.CodeDeviceNotFound, Reason: "no such device"},
		},
		"reason before error before status": {
			200, `{"allowed":false,"code":"PLAN_FROZEN","status":"c","error":"b","reason":"a"}`,
			guard.Decision{Code: guard.CodePlanFrozen, Reason: "a"},
		},
		"reason that repeats the code": {
			200, `{"allowed":false,"code":"PLAN_FROZEN","reason":"PLAN_FROZEN"}`,
			guard.Decision{Code: guard.CodePlanFrozen},
		},
		"unknown code": {
			200, `{"allowed":false,"code":"TOO_MANY_MOONS"}`,
			guard.Decision{Code: "TOO_MANY_MOONS"},
		},
		"the service itself could not decide": {
			200, `{"allowed":false,"code":"SYSTEM_UNAVAILABLE","request_id":"r-2"}`,
			guard.Decision{Code: guard.CodeSystemUnavailable, RequestID: "r-2"},
		},
		"bad key": {
			401, `{"error":"invalid_org_key","request_id":"r-3"}`,
			guard.Decision{Code: guard.CodeInvalidOrgKey, RequestID: "r-3", Reason: "invalid_org_key"},
		},
		"bad key as a decision": {
			401, `{"allowed":false,"code":"INVALID_ORG_KEY"}`,
			guard.Decision{Code: guard.CodeInvalidOrgKey},
		},
	} {
		t.Run(name, func(t *testing.T) {
			client := newClient(t, serve(t, answer(c.status, c.body)))
			got, err := client.Validate(t.Context(), device)
			if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
				t.Errorf("error %v, difference %s", err, diff)
			}
		})
	}
}

// Every code that the wire knows denies with allowed:false, at 200 and at 4xx, and is passed on.
func TestValidateCodes(t *testing.T) {
	for _, code := range []guard.Code{
		guard.CodeOrgDisabled, guard.CodeSystemUnavailable, guard.CodePlanFrozen, guard.CodePlanNotActive,
		guard.CodeEntitlementExpired, guard.CodeDeviceRevoked, guard.CodeDeviceNotFound, guard.CodeOrgNotFound,
		guard.CodeInvalidOrgKey, guard.CodeInvalidDeviceID, "DENY", "allow", "SYSTEM_UNAVAILABLE_ALLOW",
	} {
		for _, status := range []int{200, 400, 401, 403, 404, 409, 422} {
			client := offline(t, canned(status, []byte(`{"allowed":false,"code":"`+string(code)+`"}`)))
			d, err := client.Validate(t.Context(), device)
			if err != nil || d.Allowed || d.Code != code {
				t.Errorf("%s with %d: %+v, %v", code, status, d, err)
			}
		}
		client := offline(t, canned(200, []byte(`{"allowed":true,"code":"`+string(code)+`"}`)))
		d, err := client.Validate(t.Context(), device)
		checkUndecided(t, d, err)
	}
}

// What is neither a yes nor a no.
func TestValidateUndecided(t *testing.T) {
	long := strings.Repeat("N", 257)
	for name, c := range map[string]struct {
		status int
		body   string
	}{
		"empty":                            {200, ""},
		"white space":                      {200, " \n"},
		"HTML":                             {200, "<!doctype html><title>ALLOW</title>"},
		"array":                            {200, `[` + allow + `]`},
		"number":                           {200, "1"},
		"null":                             {200, "null"},
		"true":                             {200, "true"},
		"text":                             {200, `"ALLOW"`},
		"empty object":                     {200, "{}"},
		"half a body":                      {200, `{"allowed":true,"code":"ALL`},
		"broken":                           {200, `{"allowed":true,"code":"ALLOW",}`},
		"comment":                          {200, `{"allowed":true,"code":"ALLOW"/**/}`},
		"byte order mark":                  {200, "\uFEFF" + allow},
		"broken UTF-8":                     {200, "{\"allowed\":true,\"code\":\"ALLOW\",\"x\":\"\xff\"}"},
		"allowed twice":                    {200, `{"allowed":false,"allowed":true,"code":"ALLOW"}`},
		"allowed twice the same":           {200, `{"allowed":true,"allowed":true,"code":"ALLOW"}`},
		"allowed twice, one escaped":       {200, `{"allowed":false,"allowe\u0064":true,"code":"ALLOW"}`},
		"code twice":                       {200, `{"allowed":true,"code":"DEVICE_REVOKED","code":"ALLOW"}`},
		"another name twice":               {200, `{"allowed":true,"code":"ALLOW","x":1,"x":1}`},
		"a name twice below":               {200, `{"allowed":true,"code":"ALLOW","x":[{"y":1,"y":2}]}`},
		"other case":                       {200, `{"Allowed":true,"Code":"ALLOW"}`},
		"other case beside":                {200, `{"allowed":true,"ALLOWED":false,"code":"ALLOW"}`},
		"code in other case beside":        {200, `{"allowed":true,"code":"ALLOW","Code":"DEVICE_REVOKED"}`},
		"device in other case":             {200, `{"allowed":true,"code":"ALLOW","DeviceID":"another"}`},
		"folded sign":                      {200, `{"allowed":true,"code":"ALLOW","rea\u017fon":"x"}`},
		"denial in other case":             {200, `{"Allowed":false,"code":"DEVICE_REVOKED"}`},
		"second document":                  {200, allow + `{"allowed":false}`},
		"second document on its own line":  {200, allow + "\n" + allow},
		"rubbish behind":                   {200, allow + "x"},
		"zero byte behind":                 {200, allow + "\x00"},
		"too deep":                         {200, `{"allowed":true,"code":"ALLOW","x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`},
		"allowed as text":                  {200, `{"allowed":"true","code":"ALLOW"}`},
		"allowed as number":                {200, `{"allowed":1,"code":"ALLOW"}`},
		"allowed null":                     {200, `{"allowed":null,"code":"ALLOW"}`},
		"allowed as object":                {200, `{"allowed":{},"code":"ALLOW"}`},
		"allowed missing":                  {200, `{"code":"ALLOW"}`},
		"allowed missing, deny code":       {200, `{"code":"DEVICE_REVOKED"}`},
		"allowed only below":               {200, `{"data":{"allowed":true,"code":"ALLOW"}}`},
		"code missing":                     {200, `{"allowed":true}`},
		"code missing, denied":             {200, `{"allowed":false}`},
		"code empty":                       {200, `{"allowed":false,"code":""}`},
		"code null":                        {200, `{"allowed":true,"code":null}`},
		"code as array":                    {200, `{"allowed":true,"code":["ALLOW"]}`},
		"code in other case":               {200, `{"allowed":true,"code":"allow"}`},
		"code with space":                  {200, `{"allowed":true,"code":"ALLOW "}`},
		"code of two lines":                {200, `{"allowed":false,"code":"A\nB"}`},
		"code too long":                    {200, `{"allowed":false,"code":"` + long + `"}`},
		"allowed with a deny code":         {200, `{"allowed":true,"code":"DEVICE_REVOKED"}`},
		"allowed with an unknown code":     {200, `{"allowed":true,"code":"ALLOWED"}`},
		"denied with ALLOW":                {200, `{"allowed":false,"code":"ALLOW"}`},
		"another device":                   {200, `{"allowed":true,"code":"ALLOW","deviceId":"another"}`},
		"another device's denial":          {200, `{"allowed":false,"code":"DEVICE_REVOKED","deviceId":"another"}`},
		"device as number":                 {200, `{"allowed":true,"code":"ALLOW","deviceId":7}`},
		"device empty":                     {200, `{"allowed":true,"code":"ALLOW","deviceId":""}`},
		"device null":                      {200, `{"allowed":true,"code":"ALLOW","deviceId":null}`},
		"device in another case":           {200, `{"allowed":true,"code":"ALLOW","deviceId":"` + strings.ToUpper(device) + `"}`},
		"ALLOW with 201":                   {201, allow},
		"ALLOW with 202":                   {202, allow},
		"denial with 202":                  {202, `{"allowed":false,"code":"DEVICE_REVOKED"}`},
		"ALLOW with 400":                   {400, allow},
		"ALLOW with 401":                   {401, allow},
		"ALLOW with 403":                   {403, allow},
		"ALLOW with 404":                   {404, allow},
		"ALLOW with 429":                   {429, allow},
		"ALLOW with 500":                   {500, allow},
		"ALLOW with 503":                   {503, allow},
		"ALLOW with 301":                   {301, allow},
		"denial with 429":                  {429, `{"allowed":false,"code":"DEVICE_REVOKED"}`},
		"denial with 500":                  {500, `{"allowed":false,"code":"DEVICE_REVOKED"}`},
		"500":                              {500, "oops"},
		"502":                              {502, "<html>bad gateway</html>"},
		"503":                              {503, ""},
		"404 of something else":            {404, "404 page not found\n"},
		"401 with HTML":                    {401, "<html>"},
		"401 with another error":           {401, `{"error":"token_expired"}`},
		"403 with the bad key's error":     {403, `{"error":"invalid_org_key"}`},
		"bad key, yet allowed":             {401, `{"error":"invalid_org_key","allowed":true,"code":"ALLOW"}`},
		"bad key, allowed as text":         {401, `{"error":"invalid_org_key","allowed":"true"}`},
		"400 missing params":               {400, `{"error":"missing_params"}`},
		"two hundred names, one twice":     {200, `{"allowed":true,"code":"ALLOW"` + strings.Repeat(`,"x":0`, 200) + `}`},
		"allowed behind two hundred names": {200, `{` + numbered(200) + `"allowed":true,"code":"ALLOW","n7":0}`},
	} {
		t.Run(name, func(t *testing.T) {
			client := newClient(t, serve(t, answer(c.status, c.body)))
			d, err := client.Validate(t.Context(), device)
			checkUndecided(t, d, err)
			if status := typedError(t, err).Status; status != c.status {
				t.Errorf("status %d, want %d", status, c.status)
			}
		})
	}
}

func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`"n` + strings.Repeat("7", i+1) + `":0,`)
	}
	return b.String()
}

// What could be read of an answer that is none is told, for the person who looks into it.
func TestValidateKeepsWhatItFound(t *testing.T) {
	client := newClient(t, serve(t, answer(503, `{"error":"maintenance","message":"back at noon","request_id":"r-9"}`, "Retry-After", "120")))
	d, err := client.Validate(t.Context(), device)
	checkUndecided(t, d, err)
	typed := typedError(t, err)
	if typed.Code != "maintenance" || typed.RequestID != "r-9" || typed.RetryAfter != 2*time.Minute {
		t.Errorf("%#v", typed)
	}
	if want := "HTTP 503: maintenance: back at noon"; d.Reason != want {
		t.Errorf("reason %q, want %q", d.Reason, want)
	}
	if want := "machineid: devices/validate: HTTP 503: maintenance: back at noon (request r-9)"; err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
}

// What is kept is one line of bounded length.
func TestValidateKeepsOneLine(t *testing.T) {
	for _, reason := range []string{`a\nb\r\u0000\u001b[31m\u2028c`, strings.Repeat("long ", 100), strings.Repeat("ü", 1000), strings.Repeat("x", 255) + "ü"} {
		for _, body := range []string{
			`{"allowed":false,"code":"PLAN_FROZEN","reason":"` + reason + `","request_id":"` + reason + `"}`,
			`{"allowed":true,"code":"PLAN_FROZEN","error":"` + reason + `","request_id":"` + reason + `"}`,
		} {
			d, err := newClient(t, serve(t, answer(200, body))).Validate(t.Context(), device)
			for _, text := range []string{d.Reason, d.RequestID, fmt.Sprint(err)} {
				if strings.ContainsAny(text, "\n\r\x00\x1b\u2028") || len(text) > 800 || !utf8.ValidString(text) || text == "" {
					t.Errorf("%q", text)
				}
			}
		}
	}
}

// Retry-After counts also where the body does not come to its end.
func TestRetryAfterOfHalfABody(t *testing.T) {
	client := newClient(t, serve(t, answer(503, "half", "Retry-After", "60", "Content-Length", "10")))
	d, err := client.Validate(t.Context(), device)
	checkUndecided(t, d, err)
	if d.RetryAfter != time.Minute || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v, %v", d.RetryAfter, err)
	}
}

func TestRetryAfter(t *testing.T) {
	date := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
	for _, c := range []struct {
		header   string
		min, max time.Duration
	}{
		{"", 0, 0},
		{"0", 0, 0},
		{"30", 30 * time.Second, 30 * time.Second},
		{"-1", 0, 0},
		{"1.5", 0, 0},
		{"soon", 0, 0},
		{"86401", 24 * time.Hour, 24 * time.Hour},
		{"99999999999999999999999999", 24 * time.Hour, 24 * time.Hour},
		{date(time.Minute), 30 * time.Second, time.Minute},
		{date(-time.Hour), 0, 0},
		{date(24 * 365 * time.Hour), 24 * time.Hour, 24 * time.Hour},
	} {
		client := newClient(t, serve(t, answer(429, `{}`, "Retry-After", c.header)))
		d, err := client.Validate(t.Context(), device)
		checkUndecided(t, d, err)
		if d.RetryAfter < c.min || d.RetryAfter > c.max {
			t.Errorf("Retry-After %q: %v, want %v to %v", c.header, d.RetryAfter, c.min, c.max)
		}
	}
	client := newClient(t, serve(t, answer(403, `{"allowed":false,"code":"PLAN_FROZEN"}`, "Retry-After", "7")))
	if d, err := client.Validate(t.Context(), device); err != nil || d.RetryAfter != 7*time.Second {
		t.Errorf("on a denial: %+v, %v", d, err)
	}
}

// Ids are trimmed before they are sent, and the decision bears the id that was given.
func TestValidateDeviceIDAsGiven(t *testing.T) {
	var sent string
	client := newClient(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		body := new(strings.Builder)
		_, _ = io.Copy(body, r.Body)
		sent = body.String()
		answer(200, `{"allowed":true,"code":"ALLOW","deviceId":"agent-01"}`)(w, r)
	}))
	d, err := client.Validate(t.Context(), " agent-01\n")
	if err != nil || !d.Allowed || d.DeviceID != " agent-01\n" {
		t.Errorf("%+v, %v", d, err)
	}
	if want := `{"deviceId":"agent-01"}`; sent != want {
		t.Errorf("sent %s, want %s", sent, want)
	}
}

// The rule for ids is asked before the service.
func TestValidateInvalidDeviceID(t *testing.T) {
	asked := transport(func(*http.Request) (*http.Response, error) {
		t.Error("the service was asked")
		return nil, errors.New("asked")
	})
	refuseX := machineid.WithDeviceIDCheck(func(id string) error {
		if strings.Contains(id, "x") {
			return errors.New("no x, said " + key)
		}
		return nil
	})
	for _, c := range []struct {
		id   string
		opts []machineid.Option
	}{
		{"", nil},
		{" \t\n", nil},
		{strings.Repeat("a", 129), nil},
		{".hidden", nil},
		{"-flag", nil},
		{"a b", nil},
		{"a/b", nil},
		{"a\x00b", nil},
		{"größe", nil},
		{"a\xff", nil},
		{"x" + key, nil},
		{" ", []machineid.Option{refuseX}},
		{"a\xff", []machineid.Option{refuseX}},
		{"a" + key, []machineid.Option{refuseX}},
		{"axe", []machineid.Option{refuseX}},
	} {
		d, err := offline(t, asked, c.opts...).Validate(t.Context(), c.id)
		if err != nil || d.Allowed || d.Code != guard.CodeInvalidDeviceID || d.Reason == "" || d.DeviceID != "" {
			t.Errorf("%q: %+v, %v", c.id, d, err)
		}
		checkSecret(t, d)
	}
}

func TestValidateValidDeviceID(t *testing.T) {
	anything := machineid.WithDeviceIDCheck(func(string) error { return nil })
	for _, c := range []struct {
		id, sent string
		opts     []machineid.Option
	}{
		{"agent-01", `"agent-01"`, nil},
		{"python-starter:01", `"python-starter:01"`, nil},
		{"worker:prod:queue-consumer:07", `"worker:prod:queue-consumer:07"`, nil},
		{"0_a.B", `"0_a.B"`, nil},
		{strings.Repeat("z", 128), `"` + strings.Repeat("z", 128) + `"`, nil},
		{`größe "7" \ <x>`, `"größe \"7\" \\ \u003cx\u003e"`, []machineid.Option{anything}},
		{"a\nb", `"a\nb"`, []machineid.Option{anything}},
	} {
		var sent strings.Builder
		client := offline(t, transport(func(r *http.Request) (*http.Response, error) {
			_, _ = io.Copy(&sent, r.Body)
			return canned(200, []byte(allow)).RoundTrip(r)
		}), c.opts...)
		if d, err := client.Validate(t.Context(), c.id); err != nil || !d.Allowed {
			t.Errorf("%q: %+v, %v", c.id, d, err)
		}
		if want := `{"deviceId":` + c.sent + `}`; sent.String() != want {
			t.Errorf("%q: sent %s, want %s", c.id, &sent, want)
		}
	}
}

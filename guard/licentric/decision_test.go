package licentric_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
	"github.com/execguard/execguard/guard/licentric"
	"github.com/google/go-cmp/cmp"
)

// codes is every documented code and the guard's word for it.
var codes = map[licentric.Code]guard.Code{
	licentric.CodeValid:                guard.CodeAllow,
	licentric.CodeExpired:              guard.CodeEntitlementExpired,
	licentric.CodeUsesExceeded:         guard.CodeEntitlementExpired,
	licentric.CodeEntitlementsMissing:  guard.CodeEntitlementExpired,
	licentric.CodeSuspended:            guard.CodePlanFrozen,
	licentric.CodeRevoked:              guard.CodePlanNotActive,
	licentric.CodeBanned:               guard.CodePlanNotActive,
	licentric.CodeFingerprintNotFound:  guard.CodeDeviceNotFound,
	licentric.CodeMachineLimitExceeded: guard.CodeDeviceNotFound,
	licentric.CodeHeartbeatRequired:    guard.CodeDeviceNotFound,
	licentric.CodeNotFound:             guard.CodeInvalidOrgKey,
}

// ask asks a validator whose service always gives the same answer, heartbeats included.
func ask(t testing.TB, status int, body string, opts ...licentric.ValidatorOption) (guard.Decision, error) {
	t.Helper()
	return offsocket(t, apiKey, canned(status, []byte(body))).Validator(licenseKey, opts...).Validate(t.Context(), device)
}

// Each code denies, at 200 and at 4xx, bare and in an envelope, and is kept as the Reason; so does
// an error of the API with such a code.
func TestCodes(t *testing.T) {
	for code, want := range codes {
		if got := code.Guard(); got != want {
			t.Errorf("%s: %s, want %s", code, got, want)
		}
		if code == licentric.CodeValid {
			continue
		}
		for _, status := range []int{200, 400, 401, 403, 404, 409, 422} {
			no := fmt.Sprintf(`{"valid":false,"code":%q,"license":null,"machine":null,"entitlements":[]}`, code)
			for _, body := range []string{no, `{"data":` + no + `}`, fmt.Sprintf(`{"error":"text","code":%q}`, code)} {
				if status == 200 && strings.Contains(body, "error") {
					continue // no status says that this is one
				}
				d, err := ask(t, status, body)
				if code == licentric.CodeHeartbeatRequired {
					d.Reason, _, _ = strings.Cut(d.Reason, ";") // that no heartbeat could be sent
				}
				if diff := cmp.Diff(guard.Decision{Code: want, Reason: string(code)}, d); err != nil || diff != "" {
					t.Errorf("%d %s: error %v, difference %s", status, body, err, diff)
				}
			}
		}
	}
}

// A code that nobody documented denies beside "valid":false as it is, and nothing makes it a yes.
func TestUnknownCodes(t *testing.T) {
	for _, code := range []string{"TOO_MANY_MOONS", "valid", "VALIDATION_SCOPE", "PLAN_FROZEN", "SYSTEM_UNAVAILABLE"} {
		d, err := ask(t, 200, `{"valid":false,"code":"`+code+`"}`)
		if diff := cmp.Diff(guard.Decision{Code: guard.Code(code)}, d); err != nil || diff != "" {
			t.Errorf("%s: error %v, difference %s", code, err, diff)
		}
		d, err = ask(t, 200, `{"valid":true,"code":"`+code+`"}`)
		checkUndecided(t, d, err)
	}
}

// S2: the one shape of a yes, and what may stand beside it.
func TestAllows(t *testing.T) {
	for name, body := range map[string]string{
		"least":                 `{"valid":true,"code":"VALID"}`,
		"whole":                 valid,
		"in an envelope":        `{"data":` + valid + `}`,
		"null parts":            `{"valid":true,"code":"VALID","license":null,"machine":null,"entitlements":null,"error":null}`,
		"white space":           "\r\n\t {\"valid\" : true ,\n\"code\":\t\"VALID\" } \n",
		"other members":         `{"valid":true,"code":"VALID","x":[1,{"valid":false}],"y":null,"status":"SUSPENDED"}`,
		"escaped":               `{"\u0076alid":true,"code":"\u0056ALID","machine":{"id":"m-1","fingerprint":"fp\u003aworker:test:07"}}`,
		"id is no UUID":         `{"valid":true,"code":"VALID","machine":{"id":"7","fingerprint":"` + device + `","extra":{"id":8}}}`,
		"objects":               `{"valid":true,"code":"VALID","entitlements":[{"code":"pro","name":"Pro"},{"code":"sso"}]}`,
		"no licence's end":      `{"valid":true,"code":"VALID","license":{"id":"l","expiresAt":null,"entitlements":[{"code":"x"}]}}`,
		"licence's end is past": `{"valid":true,"code":"VALID","license":{"expiresAt":"2020-01-01T00:00:00.000Z"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			d, err := ask(t, http.StatusOK, body)
			if err != nil || !d.Allowed || d.Code != guard.CodeAllow || d.Reason != "VALID" || !d.ExpiresAt.IsZero() {
				t.Errorf("%+v, %v", d, err)
			}
			if named := strings.Contains(body, "machine\":{"); (d.DeviceID == device) != named {
				t.Errorf("device %q", d.DeviceID)
			}
		})
	}
}

// An error of the API's that refuses the licence is a denial, whatever its word: the service was asked,
// and a file must not be used in its place.
func TestRefusedByStatus(t *testing.T) {
	for status, want := range map[int]guard.Code{
		401: guard.CodeInvalidOrgKey, 403: guard.CodeInvalidOrgKey, 404: guard.CodeInvalidOrgKey, 422: guard.CodeDeviceNotFound,
	} {
		d, err := ask(t, status, `{"error":"no","code":"A_WORD_OF_TOMORROW","requestId":"r-1"}`)
		if diff := cmp.Diff(guard.Decision{Code: want, Reason: "A_WORD_OF_TOMORROW", RequestID: "r-1"}, d); err != nil || diff != "" {
			t.Errorf("%d: %v, %s", status, err, diff)
		}
	}
}

// S10: the licence's end is the permission's.
func TestAllowEnds(t *testing.T) {
	end := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
	body := func(code string) string {
		return fmt.Sprintf(`{"valid":true,"code":%q,"requestId":"r-1","license":{"expiresAt":%q}}`, code, end.Format("2006-01-02T15:04:05.000Z"))
	}
	d, err := ask(t, 200, body("VALID"))
	want := guard.Decision{Allowed: true, Code: guard.CodeAllow, Reason: "VALID", RequestID: "r-1", ExpiresAt: end}
	if diff := cmp.Diff(want, d); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
	d, err = ask(t, 200, body("EXPIRED"), licentric.WithExpiredAccess())
	if err != nil || !d.Allowed || !d.ExpiresAt.IsZero() {
		t.Errorf("ALLOW_ACCESS goes on beyond the end: %+v, %v", d, err)
	}
}

// The trap: under ALLOW_ACCESS an expired licence is valid, which only a named option believes.
func TestExpiredAccess(t *testing.T) {
	const trap = `{"valid":true,"code":"EXPIRED","machine":` + machineJSON + `,"entitlements":["pro"]}`
	d, err := ask(t, 200, trap)
	if diff := cmp.Diff(guard.Decision{Code: guard.CodeEntitlementExpired, Reason: "EXPIRED", DeviceID: device}, d); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
	d, err = ask(t, 200, trap, licentric.WithExpiredAccess())
	want := guard.Decision{Allowed: true, Code: guard.CodeAllow, Reason: "EXPIRED", DeviceID: device}
	if diff := cmp.Diff(want, d); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
	for _, body := range []string{
		strings.Replace(trap, "true", "false", 1),
		strings.Replace(trap, `"pro"`, `"sso"`, 1),
		strings.Replace(trap, "EXPIRED", "SUSPENDED", 1),
	} {
		if d, _ := ask(t, 200, body, licentric.WithExpiredAccess(), licentric.WithEntitlements("pro")); d.Allowed {
			t.Errorf("%s: %+v", body, d)
		}
	}
}

// Every entitlement asked for stands in the answer's list, not only in the licence.
func TestEntitlements(t *testing.T) {
	for list, want := range map[string]bool{
		`["pro","sso"]`:                     true,
		`["x","sso","y","pro"]`:             true,
		`[{"code":"sso"},{"code":"pro"}]`:   true,
		`["pro"]`:                           false,
		`["PRO","SSO"]`:                     false,
		`["pro sso"]`:                       false,
		`[]`:                                false,
		`null`:                              false,
		`[{"name":"pro"},{"name":"sso"}]`:   false,
		`["pro",{"code":"sso"}]`:            false,
		`["pro","sso",""]`:                  false,
		`["","pro","sso"]`:                  false,
		`["pro","sso",null]`:                false,
		`"pro sso"`:                         false,
		`{"pro":true,"sso":true}`:           false,
		`[{"code":"pro"},{"Code":"sso"}]`:   false,
		`[["pro","sso"]]`:                   false,
		`[{"code":"pro"},{"code":["sso"]}]`: false,
	} {
		body := `{"valid":true,"code":"VALID","entitlements":` + list + `,"license":{"entitlements":["pro","sso"]}}`
		d, err := ask(t, 200, body, licentric.WithEntitlements("pro"), licentric.WithEntitlements("sso"))
		if d.Allowed != want || want && err != nil {
			t.Errorf("%s: %+v, %v", list, d, err)
		}
	}
	d, err := ask(t, 200, valid, licentric.WithEntitlements("pro", "a \"b\""))
	want := guard.Decision{
		Code: guard.CodeEntitlementExpired, DeviceID: device,
		Reason: `VALID, but the entitlement "a \"b\"" does not stand in the answer`,
	}
	if diff := cmp.Diff(want, d); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
}

// What is neither a yes nor a no.
func TestUndecided(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
	}{
		"empty":                       {200, ""},
		"HTML":                        {200, "<!doctype html><title>VALID</title>"},
		"array":                       {200, `[` + valid + `]`},
		"null":                        {200, "null"},
		"empty object":                {200, "{}"},
		"half a body":                 {200, valid[:len(valid)-9]},
		"byte order mark":             {200, "\uFEFF" + valid},
		"broken UTF-8":                {200, "{\"valid\":true,\"code\":\"VALID\",\"x\":\"\xff\"}"},
		"valid twice":                 {200, `{"valid":false,"valid":true,"code":"VALID"}`},
		"valid twice, one escaped":    {200, `{"valid":false,"vali\u0064":true,"code":"VALID"}`},
		"a name twice below":          {200, `{"valid":true,"code":"VALID","machine":{"id":"a","id":"b"}}`},
		"other case":                  {200, `{"Valid":true,"Code":"VALID"}`},
		"other case beside":           {200, `{"valid":true,"VALID":false,"code":"VALID"}`},
		"other case in an envelope":   {200, `{"data":{"Valid":true,"code":"VALID"}}`},
		"other case of the envelope":  {200, `{"Data":` + valid + `}`},
		"other case in the machine":   {200, `{"valid":true,"code":"VALID","machine":{"id":"m","Fingerprint":"` + device + `"}}`},
		"other case of the machine":   {200, `{"valid":true,"code":"VALID","Machine":{"id":"m","fingerprint":"another-one"}}`},
		"second document":             {200, valid + `{"valid":false,"code":"SUSPENDED"}`},
		"valid as text":               {200, `{"valid":"true","code":"VALID"}`},
		"valid as number":             {200, `{"valid":1,"code":"VALID"}`},
		"valid null":                  {200, `{"valid":null,"code":"VALID"}`},
		"valid missing":               {200, `{"code":"VALID"}`},
		"valid missing, deny code":    {200, `{"code":"SUSPENDED"}`},
		"code missing":                {200, `{"valid":true}`},
		"code missing, denied":        {200, `{"valid":false}`},
		"code null":                   {200, `{"valid":true,"code":null}`},
		"code as array":               {200, `{"valid":true,"code":["VALID"]}`},
		"code in other case":          {200, `{"valid":true,"code":"Valid"}`},
		"code with space":             {200, `{"valid":true,"code":"VALID "}`},
		"code of two lines":           {200, `{"valid":false,"code":"A\nB"}`},
		"code too long":               {200, `{"valid":false,"code":"` + strings.Repeat("N", 257) + `"}`},
		"valid with a deny code":      {200, `{"valid":true,"code":"SUSPENDED"}`},
		"denied with VALID":           {200, `{"valid":false,"code":"VALID"}`},
		"denied with ALLOW":           {200, `{"valid":false,"code":"ALLOW"}`},
		"valid with ALLOW":            {200, `{"valid":true,"code":"ALLOW"}`},
		"MachineID's yes":             {200, `{"allowed":true,"code":"ALLOW"}`},
		"envelope and bare":           {200, `{"valid":true,"code":"VALID","data":{"valid":false,"code":"SUSPENDED"}}`},
		"envelope and bare, one yes":  {200, `{"valid":false,"code":"SUSPENDED","data":` + valid + `}`},
		"envelope and a code":         {200, `{"code":"SUSPENDED","data":` + valid + `}`},
		"envelope and a machine":      {200, `{"machine":null,"data":` + valid + `}`},
		"envelope in an envelope":     {200, `{"data":{"data":` + valid + `}}`},
		"envelope is a list":          {200, `{"data":[` + valid + `]}`},
		"envelope is null":            {200, `{"data":null}`},
		"a yes and an error":          {200, `{"valid":true,"code":"VALID","error":"not really"}`},
		"a yes in data and an error":  {200, `{"data":` + valid + `,"error":{"code":"X"}}`},
		"another machine":             {200, strings.Replace(valid, device, "fp:another", 1)},
		"another machine's denial":    {200, `{"valid":false,"code":"SUSPENDED","machine":{"id":"m","fingerprint":"fp:another"}}`},
		"machine in another case":     {200, strings.Replace(valid, device, strings.ToUpper(device), 1)},
		"machine without fingerprint": {200, `{"valid":true,"code":"VALID","machine":{"id":"m"}}`},
		"machine's fingerprint null":  {200, `{"valid":true,"code":"VALID","machine":{"id":"m","fingerprint":null}}`},
		"machine without id":          {200, `{"valid":true,"code":"VALID","machine":{"fingerprint":"` + device + `"}}`},
		"machine is a list":           {200, `{"valid":true,"code":"VALID","machine":[` + machineJSON + `]}`},
		"machine is a text":           {200, `{"valid":true,"code":"VALID","machine":"` + device + `"}`},
		"licence is a list":           {200, `{"valid":true,"code":"VALID","license":[]}`},
		"licence's end is no time":    {200, `{"valid":true,"code":"VALID","license":{"expiresAt":"soon"}}`},
		"licence's end is a number":   {200, `{"valid":true,"code":"VALID","license":{"expiresAt":1767225600}}`},
		"licence's end without zone":  {200, `{"valid":true,"code":"VALID","license":{"expiresAt":"2099-01-01T00:00:00"}}`},
		"licence's list is no list":   {200, `{"valid":true,"code":"VALID","license":{"entitlements":7}}`},
		"entitlements are no list":    {200, `{"valid":true,"code":"VALID","entitlements":"pro"}`},
		"entitlements of two kinds":   {200, `{"valid":true,"code":"VALID","entitlements":["pro",{"code":"sso"}]}`},
		"too deep":                    {200, `{"valid":true,"code":"VALID","x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`},
		"VALID with 201":              {201, valid},
		"VALID with 204":              {204, valid},
		"nothing with 204":            {204, ""},
		"denial with 202":             {202, `{"valid":false,"code":"SUSPENDED"}`},
		"VALID with 301":              {301, valid},
		"VALID with 400":              {400, valid},
		"VALID with 401":              {401, valid},
		"VALID with 404":              {404, valid},
		"VALID with 429":              {429, valid},
		"VALID with 500":              {500, valid},
		"denial with 429":             {429, `{"valid":false,"code":"SUSPENDED"}`},
		"denial with 500":             {500, `{"valid":false,"code":"SUSPENDED"}`},
		"error with a deny code, 429": {429, `{"error":"text","code":"SUSPENDED"}`},
		"error with a deny code, 500": {500, `{"error":"text","code":"SUSPENDED"}`},
		"error with a deny code, 200": {200, `{"error":"text","code":"SUSPENDED"}`},
		"error with VALID":            {403, `{"error":"text","code":"VALID"}`},
		"error with ALLOW":            {403, `{"error":"text","code":"ALLOW"}`},
		"conflict, unknown code":      {409, `{"error":"text","code":"CONFLICT"}`},
		"proxy's error":               {403, `{"message":"Forbidden"}`},
		"error in a list":             {400, `[{"error":"text","code":"SUSPENDED"}]`},
		"400":                         {400, `{"error":"the request is not valid","code":"VALIDATION_ERROR","details":[{"field":"key"}]}`},
		"401":                         {401, `{"error":"no"}`},
		"404 of something else":       {404, "404 page not found\n"},
		"502":                         {502, "<html>bad gateway</html>"},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := ask(t, c.status, c.body)
			checkUndecided(t, d, err)
		})
	}
}

// A denial stands whatever cannot be read beside it, unless it is about another machine.
func TestDenialBesideRubbish(t *testing.T) {
	for _, beside := range []string{
		`"license":7`, `"license":{"expiresAt":"soon"}`, `"machine":[]`, `"machine":{"id":7}`, `"entitlements":{}`, `"error":"suspended"`,
		`"machine":{"fingerprint":"` + device + `"}`,
	} {
		d, err := ask(t, 200, `{"valid":false,"code":"SUSPENDED",`+beside+`}`)
		if err != nil || d.Allowed || d.Code != guard.CodePlanFrozen || d.Reason != "SUSPENDED" {
			t.Errorf("%s: %+v, %v", beside, d, err)
		}
	}
}

// Ids that are no fingerprint are refused unasked, and so is what WithFingerprint makes of them.
func TestInvalidDeviceIDs(t *testing.T) {
	asked := 0
	client := offsocket(t, apiKey, transport(func(r *http.Request) (*http.Response, error) {
		asked++
		return response(r, 200, []byte(`{"valid":true,"code":"VALID"}`)), nil
	}))
	refused := func(v guard.Validator, id string) {
		t.Helper()
		d, err := v.Validate(t.Context(), id)
		if err != nil || d.Allowed || d.Code != guard.CodeInvalidDeviceID || d.Reason == "" || asked != 0 {
			t.Errorf("%q: %+v, %v, asked %d times", id, d, err, asked)
		}
		checkSecret(t, d)
	}
	for _, id := range []string{
		"", " ", "\t\n", "short77", strings.Repeat("x", 257), "not UTF-8 \xff", licenseKey, "my " + apiKey, strings.Repeat("é", 257),
	} {
		refused(client.Validator(licenseKey), id)
	}
	for _, made := range []string{"", "  ", "short77", licenseKey} {
		refused(client.Validator(licenseKey, licentric.WithFingerprint(func(string) string { return made })), "agent-01")
	}
	for _, id := range []string{"12345678", strings.Repeat("x", 256), strings.Repeat("é", 256), "with spaces and ünïcode"} {
		if d, err := client.Validator(licenseKey).Validate(t.Context(), id); err != nil || !d.Allowed {
			t.Errorf("%q: %+v, %v", id, d, err)
		}
	}
	if asked != 4 {
		t.Errorf("asked %d times, want 4", asked)
	}
}

// A mapped id: the fingerprint is asked about, and the decision is about the device.
func TestFingerprintOfDevice(t *testing.T) {
	client := newClient(t, serve(t, answer(200, valid)))
	v := client.Validator(licenseKey, licentric.WithFingerprint(func(id string) string { return "fp:" + id }))
	d, err := v.Validate(t.Context(), strings.TrimPrefix(device, "fp:"))
	if err != nil || !d.Allowed || d.DeviceID != "worker:test:07" {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err = v.Validate(t.Context(), device); d.Allowed || !errors.Is(err, guard.ErrUnavailable) {
		t.Errorf("an answer about another machine: %+v, %v", d, err)
	}
}

// A validator that was made wrongly denies everybody, and asks nobody.
func TestFlawedValidators(t *testing.T) {
	client := offsocket(t, apiKey, transport(func(*http.Request) (*http.Response, error) {
		t.Error("asked")
		return nil, errors.New("asked")
	}))
	for name, v := range map[string]guard.Validator{
		"blank key":        client.Validator(" "),
		"no key":           client.Validator(""),
		"key of two lines": client.Validator("LIC\ntail7y"),
		"nil option":       client.Validator(licenseKey, nil),
		"period":           client.Validator(licenseKey, licentric.WithHeartbeats(time.Millisecond)),
		"long period":      client.Validator(licenseKey, licentric.WithHeartbeats(25*time.Hour)),
		"no entitlement":   client.Validator(licenseKey, licentric.WithEntitlements()),
		"no mapping":       client.Validator(licenseKey, licentric.WithFingerprint(nil)),
		"an API key":       client.Validator(apiKey),
	} {
		if g, err := guard.New(guard.Fallback(v, guardtest.NewValidator(device))); g != nil || err == nil || strings.Contains(err.Error(), apiKey) {
			t.Errorf("%s: New made %v, %v", name, g, err)
		}
		d, err := v.Validate(t.Context(), device)
		if err != nil || d.Allowed || d.Code != guard.CodeInvalidOrgKey || !strings.HasPrefix(d.Reason, "licentric: ") {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
		checkSecret(t, d, v)
		if d, err := v.Validate(t.Context(), " "); err != nil || d.Code != guard.CodeInvalidDeviceID {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
}

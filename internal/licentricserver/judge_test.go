package licentricserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
)

// What a client makes of a question: the service's code where the answer stands, and this where
// it could not ask or must not believe it.
const unavailable = "SYSTEM_UNAVAILABLE"

// guardCodes is what the wire document maps the codes to; one that is not here is passed on.
var guardCodes = map[string]string{
	"EXPIRED": "ENTITLEMENT_EXPIRED", "USES_EXCEEDED": "ENTITLEMENT_EXPIRED", "ENTITLEMENTS_MISSING": "ENTITLEMENT_EXPIRED",
	"SUSPENDED": "PLAN_FROZEN", "REVOKED": "PLAN_NOT_ACTIVE", "BANNED": "PLAN_NOT_ACTIVE",
	"FINGERPRINT_NOT_FOUND": "DEVICE_NOT_FOUND", "MACHINE_LIMIT_EXCEEDED": "DEVICE_NOT_FOUND", "HEARTBEAT_REQUIRED": "DEVICE_NOT_FOUND",
	"NOT_FOUND": "INVALID_ORG_KEY", "VALID": "ALLOW",
}

// asked is what came back over the network, or err.
type asked struct {
	status int
	header http.Header
	body   []byte
	err    error
}

// overHTTP sends a call to a server and follows no redirect.
func overHTTP(ctx context.Context, client *http.Client, base string, c call) asked {
	r, err := http.NewRequestWithContext(ctx, c.method, base+c.path, strings.NewReader(c.body))
	if err != nil {
		return asked{err: err}
	}
	r.Header.Set("Content-Type", "application/json")
	if c.auth != "" {
		r.Header.Set("Authorization", c.auth)
	}
	own := *client
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := own.Do(r)
	if err != nil {
		return asked{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20+1))
	if err == nil && len(body) > 1<<20 {
		err = errors.New("too long")
	}
	return asked{resp.StatusCode, resp.Header, body, err}
}

// judge is the rule of the wire document, as a client has to keep it: ALLOW, the guard's word
// for the code of a denial that stands, or SYSTEM_UNAVAILABLE.
func judge(a asked, mark string, entitlements ...string) string {
	if a.err != nil || a.status != http.StatusOK {
		return unavailable
	}
	if media, _, err := mime.ParseMediaType(a.header.Get("Content-Type")); err != nil || media != "application/json" {
		return unavailable
	}
	top, err := members(a.body)
	if err != nil {
		return unavailable
	}
	if data, inside := top["data"]; inside {
		if _, both := top["valid"]; both {
			return unavailable
		}
		if top, err = members(data); err != nil {
			return unavailable
		}
	}
	return weigh(top, mark, entitlements)
}

// weigh judges the members of an answer.
func weigh(top map[string]json.RawMessage, mark string, entitlements []string) string {
	var code string
	if json.Unmarshal(top["code"], &code) != nil || code == "" || code == "ALLOW" {
		return unavailable
	}
	word, known := guardCodes[code]
	if !known {
		word = code
	}
	switch string(top["valid"]) {
	case "false":
		if code == "VALID" {
			return unavailable
		}
		return word
	case "true":
	default:
		return unavailable
	}
	if code == "EXPIRED" { // ALLOW_ACCESS: a denial unless an option says otherwise
		return word
	}
	if code != "VALID" || !covers(top, mark, entitlements) {
		return unavailable
	}
	return "ALLOW"
}

// covers tells whether the answer is about the machine and the entitlements that were asked about.
func covers(top map[string]json.RawMessage, mark string, entitlements []string) bool {
	var about struct {
		Machine      *struct{ Fingerprint string }
		Entitlements []any
	}
	whole, err := json.Marshal(top)
	if err != nil || json.Unmarshal(whole, &about) != nil {
		return false
	}
	var have []string
	for _, one := range about.Entitlements {
		switch one := one.(type) {
		case string:
			have = append(have, one)
		case map[string]any:
			code, _ := one["code"].(string)
			have = append(have, code)
		}
	}
	for _, want := range entitlements {
		if !slices.Contains(have, want) {
			return false
		}
	}
	return about.Machine == nil || about.Machine.Fingerprint == mark
}

// members reads one object, whose names are exact and come once.
func members(text []byte) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return nil, errors.New("not an object")
	}
	out := map[string]json.RawMessage{}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		word, _ := name.(string)
		if _, twice := out[word]; twice {
			return nil, errors.New("a name twice")
		}
		out[word] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("a second document")
	}
	return out, nil
}

// gullible is what no client should be: it looks for a yes anywhere in the body, whatever the
// status, the type or the case, and takes what it finds for an ALLOW.
func gullible(a asked) bool {
	text := strings.ToLower(string(a.body))
	return strings.Contains(text, `"valid":true`) || strings.Contains(text, `"valid":"true"`) || strings.Contains(text, `"valid":1`) ||
		strings.Contains(text, `"valid":null`) || strings.Contains(text, `"code":"valid"`)
}

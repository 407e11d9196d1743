package licentric_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// oracle tells whether body is a yes for device, with the entitlement "pro". It was written from
// the rules, on another part of encoding/json than the client: it walks over tokens. keys tells
// whether there is a licence key in it, which the client takes out before it judges.
func oracle(body []byte) (yes, keys bool) {
	root, ok := object(document(body), "valid", "code", "license", "machine", "entitlements", "data", "error", "details", "requestId", "pagination")
	if !ok {
		return false, false
	}
	verdict := root
	if data, enveloped := root["data"]; enveloped {
		for _, name := range []string{"valid", "code", "license", "machine", "entitlements"} {
			if _, both := root[name]; both {
				return false, false
			}
		}
		if verdict, ok = object(data, "valid", "code", "license", "machine", "entitlements"); !ok {
			return false, false
		}
	}
	license, _ := verdict["license"].(map[string]any)
	for _, key := range []any{license["key"], verdict["key"]} {
		text, _ := key.(string)
		keys = keys || text != ""
	}
	return verdict["valid"] == true && verdict["code"] == "VALID" && root["error"] == nil &&
		licenseIsRead(verdict["license"]) && machineIsOurs(verdict["machine"]) && slices.Contains(listed(verdict["entitlements"]), "pro"), keys
}

var utc = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$`)

func licenseIsRead(value any) bool {
	if value == nil {
		return true
	}
	license, ok := object(value, "id", "status", "expiresAt", "entitlements", "machineCount")
	if !ok || listed(license["entitlements"]) == nil {
		return false
	}
	if license["expiresAt"] == nil || license["expiresAt"] == "" {
		return true
	}
	end, ok := license["expiresAt"].(string)
	_, err := time.Parse(time.RFC3339, end)
	return ok && err == nil && utc.MatchString(end)
}

func machineIsOurs(value any) bool {
	if value == nil {
		return true
	}
	machine, ok := object(value, "id", "licenseId", "fingerprint", "heartbeatStatus", "lastHeartbeatAt")
	id, _ := machine["id"].(string)
	return ok && id != "" && machine["fingerprint"] == device
}

// listed returns the codes of a list; nil where it is none.
func listed(value any) []string {
	if value == nil {
		return []string{}
	}
	list, ok := value.([]any)
	if !ok {
		return nil
	}
	codes, texts := []string{}, 0
	for _, entry := range list {
		code, isText := entry.(string)
		if isText {
			texts++
		} else {
			one, ok := object(entry, "code")
			if code, isText = one["code"].(string); !ok || !isText {
				return nil
			}
		}
		if strings.TrimSpace(code) == "" {
			return nil
		}
		codes = append(codes, code)
	}
	if texts != 0 && texts != len(list) {
		return nil
	}
	return codes
}

// object returns value as an object in which no name is one of names in another case.
func object(value any, names ...string) (map[string]any, bool) {
	o, ok := value.(map[string]any)
	for name := range o {
		for _, known := range names {
			if name != known && strings.EqualFold(name, known) {
				return nil, false
			}
		}
	}
	return o, ok
}

// document returns the one value of body; nil where there is none, or more.
func document(body []byte) any {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	value, ok := tree(decoder, 0)
	if _, err := decoder.Token(); !ok || !errors.Is(err, io.EOF) || !utf8.Valid(body) {
		return nil
	}
	return value
}

// tree reads one value; false where it breaks a rule.
func tree(decoder *json.Decoder, depth int) (any, bool) {
	token, err := decoder.Token()
	if err != nil {
		return nil, false
	}
	delim, nested := token.(json.Delim)
	if !nested {
		return token, true
	}
	if depth == 32 {
		return nil, false
	}
	fields, list := map[string]any{}, []any{}
	for decoder.More() {
		name := ""
		if delim == '{' {
			token, err := decoder.Token()
			if err != nil {
				return nil, false
			}
			name, _ = token.(string)
			if _, twice := fields[name]; twice {
				return nil, false
			}
		}
		value, ok := tree(decoder, depth+1)
		if !ok {
			return nil, false
		}
		fields[name], list = value, append(list, value)
	}
	if _, err := decoder.Token(); err != nil {
		return nil, false
	}
	if delim == '[' {
		return list, true
	}
	return fields, true
}

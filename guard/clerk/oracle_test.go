package clerk_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// runs reads aMachine's answer: theirs, and ours among its scopes.
func runs(said map[string]any) bool {
	good := isMachine(said) && said["id"] == theirs && said["errors"] == nil && spelled(said)
	if _, there := said["errors"]; there {
		return false
	}
	scopes, _ := said["scoped_machines"].([]any)
	found := false
	for _, entry := range scopes {
		scope, _ := entry.(map[string]any)
		good = good && isMachine(scope) && spelled(scope)
		found = found || scope["id"] == ours
	}
	return good && found && fits(said)
}

// fits tells whether the SDK's struct can hold it.
func fits(said map[string]any) bool {
	text, err := json.Marshal(said)
	var m struct {
		Object, ID, Name string
		InstanceID       string `json:"instance_id"`
		TTL              int64  `json:"default_token_ttl"`
		Created          int64  `json:"created_at"`
		Updated          int64  `json:"updated_at"`
		Scoped           []struct {
			Name       string
			InstanceID string `json:"instance_id"`
			TTL        int64  `json:"default_token_ttl"`
			Created    int64  `json:"created_at"`
			Updated    int64  `json:"updated_at"`
		} `json:"scoped_machines"`
	}
	return err == nil && json.Unmarshal(text, &m) == nil
}

func isMachine(said map[string]any) bool {
	id, _ := said["id"].(string)
	_, deleted := said["deleted"]
	_, errors := said["errors"]
	plain := strings.Trim(strings.TrimPrefix(id, "mch_"), "0123456789_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
	return said["object"] == "machine" && strings.HasPrefix(id, "mch_") && len(id) > 4 && len(id) <= 128 && plain && !deleted && !errors
}

// letsIn reads aToken's answer, as far as what decides goes.
func letsIn(said map[string]any, id string) bool {
	scopes, _ := said["scopes"].([]any)
	end, _ := said["expiration"].(json.Number)
	ms, err := end.Int64()
	return said["subject"] == id && strings.HasPrefix(id, "mch_") && said["revoked"] == false && said["expired"] == false &&
		slices.Contains(scopes, any(ours)) && spelled(said) && err == nil && ms > 1_700_000_000_000
}

// spelled tells whether no name of the object is another one's but for its case.
func spelled(said map[string]any) bool {
	for name := range said {
		for _, known := range []string{
			"object", "id", "name", "instance_id", "created_at", "updated_at", "default_token_ttl", "scoped_machines", "data", "total_count",
			"secret_key", "secret", "deleted", "from_machine_id", "to_machine_id", "subject", "scopes", "claims", "revoked", "expired",
			"expiration", "token", "errors", "clerk_trace_id", "message", "long_message", "code", "meta",
		} {
			if name != known && strings.EqualFold(name, known) {
				return false
			}
		}
	}
	return true
}

// oracle reads a document token by token; ok is false where it is not one object of UTF-8, has a name
// twice, or nests deeper than answers do.
func oracle(doc []byte) (said map[string]any, ok bool) {
	decoder := json.NewDecoder(bytes.NewReader(doc))
	decoder.UseNumber()
	tree, ok := value(decoder, 1)
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) || !utf8.Valid(doc) || !json.Valid(doc) {
		return nil, false
	}
	said, isObject := tree.(map[string]any)
	return said, ok && isObject
}

func value(d *json.Decoder, level int) (tree any, ok bool) {
	token, err := d.Token()
	if err != nil {
		return nil, false
	}
	switch token {
	case json.Delim('{'):
		all := map[string]any{}
		for ok = level <= 32; d.More(); {
			name, err := d.Token()
			text, isText := name.(string)
			_, twice := all[text]
			inside, fine := value(d, level+1)
			if all[text] = inside; err != nil || !isText || twice || !fine {
				return nil, false
			}
		}
		_, err = d.Token()
		return all, ok && err == nil
	case json.Delim('['):
		all := []any{}
		for ok = level <= 32; d.More(); {
			inside, fine := value(d, level+1)
			if all = append(all, inside); !fine {
				return nil, false
			}
		}
		_, err = d.Token()
		return all, ok && err == nil
	}
	return token, true
}

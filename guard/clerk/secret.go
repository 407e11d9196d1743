package clerk

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"

	"github.com/execguard/execguard/guard/internal/httpapi"
)

// Secret is a machine's secret key or a token, as the service handed it out. It prints as
// «[redacted]» in every form, JSON and slog included; Reveal alone gives it. It lives in a closure,
// because fmt cannot look into one. The zero Secret is empty.
type Secret struct{ reveal func() string }

func newSecret(value string) Secret { return Secret{reveal: func() string { return value }} }

// Reveal returns the secret itself, for the one place that it is for; "" of the zero Secret.
func (s Secret) Reveal() string {
	if s.reveal == nil {
		return ""
	}
	return s.reveal()
}

// String returns «[redacted]».
func (s Secret) String() string { return httpapi.Redacted }

// GoString returns «[redacted]», for %#v.
func (s Secret) GoString() string { return httpapi.Redacted }

// Format prints «[redacted]», whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, httpapi.Redacted) // fmt itself overlooks this error
}

// MarshalJSON returns "[redacted]".
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(httpapi.Redacted) }

// MarshalText returns «[redacted]», for the other encodings.
func (s Secret) MarshalText() ([]byte, error) { return []byte(httpapi.Redacted), nil }

// LogValue returns «[redacted]», for slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(httpapi.Redacted) }

// credential is a key to send: the client's own or a machine's.
type credential struct {
	header  func(h http.Header) // puts the key where it belongs
	secrets httpapi.Secrets     // what must not be seen of a call that sends it
}

func newCredential(key string) credential {
	value := []string{"Bearer " + key}
	return credential{
		header:  func(h http.Header) { h["Authorization"] = value },
		secrets: httpapi.NewSecrets(key),
	}
}

// hiding is the same key, for a call that knows another secret.
func (k credential) hiding(secret string) credential {
	k.secrets = k.secrets.With(secret)
	return k
}

// unlessShort is hiding, but for what is too short to be anybody's secret: a stranger who sends
// «errors» for a token must not take that word out of the service's answer.
func (k credential) unlessShort(token string) credential {
	if len(token) < 16 {
		return k
	}
	return k.hiding(token)
}

var (
	// keyLike is what looks like a secret of the service: of a machine, an instance, a token in
	// either form. In the middle of a word it must be long, or «task_list» would be one.
	keyLike = regexp.MustCompile(`\b(?:sk|ak|mt)_[\w.~+/=-]*|(?:sk|ak|mt)_[\w.~+/=-]{12,}|eyJ[\w.=-]{5,}`)
	// bearing is an Authorization header that somebody has printed.
	bearing = regexp.MustCompile(`(?is)bearer\W.*`)
)

// scrub takes out of text what looks like somebody's secret. Clerk's messages repeat what they were
// sent, and the errors of transports what they have sent.
func scrub(text string) string {
	return keyLike.ReplaceAllLiteralString(bearing.ReplaceAllLiteralString(text, "Bearer "+httpapi.Redacted), httpapi.Redacted)
}

// clean makes one line, of bounded length and without secrets, of what others say in an error.
func (k credential) clean(text string) string { return httpapi.Tidy(scrub(k.secrets.Hide(text))) }

// tame hides in err, and in all that is in it, the secrets and what looks like one.
func (k credential) tame(err error) error { return k.secrets.With(suspects(err)...).Tame(err) }

// suspects returns what in err looks like somebody's secret.
func suspects(err error) []string {
	if err == nil {
		return nil
	}
	text := err.Error()
	found := append(keyLike.FindAllString(text, -1), bearing.FindAllString(text, -1)...)
	switch wraps := err.(type) { //nolint:errorlint // walks the tree as errors.As does, but to its end
	case interface{ Unwrap() error }:
		found = append(found, suspects(wraps.Unwrap())...)
	case interface{ Unwrap() []error }:
		for _, one := range wraps.Unwrap() {
			found = append(found, suspects(one)...)
		}
	}
	return found
}

// meta returns JSON from which what looks like a secret is gone, or nil.
func meta(raw []byte) json.RawMessage {
	var tree any
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber() // a float64 would change what is over 2^53
	if len(raw) == 0 || decoder.Decode(&tree) != nil || tree == nil {
		return nil
	}
	clean, err := json.Marshal(scrubTree(tree))
	if err != nil {
		return nil
	}
	return clean
}

func scrubTree(tree any) any {
	switch node := tree.(type) {
	case string:
		return scrub(node)
	case []any:
		for i := range node {
			node[i] = scrubTree(node[i])
		}
	case map[string]any:
		clean := make(map[string]any, len(node))
		for name, value := range node {
			clean[scrub(name)] = scrubTree(value)
		}
		return clean
	}
	return tree
}

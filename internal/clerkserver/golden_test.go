package clerkserver_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/execguard/execguard/internal/clerkserver"
)

var update = flag.Bool("update", false, "write the golden files anew")

// mask puts numbered names into the place of what is random: the same for the same.
type mask struct {
	names map[string]string
	count map[string]int
}

func (m mask) apply(text string) string {
	text = regexp.MustCompile(`eyJ[\w-]+\.[\w-]+\.[\w-]+`).ReplaceAllString(text, "JWT")
	random := regexp.MustCompile(`\b(?:mch|ins|mt|ak)_\w{26,32}\b|\b[0-9a-f]{32}\b`)
	return random.ReplaceAllStringFunc(text, func(found string) string {
		if _, ok := m.names[found]; !ok {
			kind, _, named := strings.Cut(found, "_")
			if !named {
				kind = "trace"
			}
			m.count[kind]++
			m.names[found] = fmt.Sprint(kind, "_", m.count[kind])
		}
		return m.names[found]
	})
}

// show writes an answer as its golden file has it.
func (m mask) show(got answer) string {
	var text bytes.Buffer
	fmt.Fprintln(&text, got.status)
	for _, name := range []string{"Content-Type", "Retry-After", "Clerk-Trace-Id"} {
		if value := got.header.Get(name); value != "" {
			fmt.Fprintf(&text, "%s: %s\n", name, value)
		}
	}
	text.WriteString("\n")
	if json.Indent(&text, []byte(got.body), "", "  ") != nil {
		text.WriteString(got.body)
	}
	return m.apply(text.String()) + "\n"
}

// TestGoldenAnswers compares every answer with a file, byte by byte but for what is random. One
// story is told, so that an id which stands in two answers is the same in both files. The
// bubble's clock stands still, on the first of January 2000.
func TestGoldenAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		g := golden{t, w, mask{map[string]string{}, map[string]int{}}}
		g.machines()
		g.tokens()
		g.refusals()
		null := golden{t, newWorld(t, clerkserver.WithDeleteNull()), g.mask}
		null.call("machine_deleted_null", null.SecretKey(), "DELETE", "/machines/ONE", "null")
	})
}

type golden struct {
	t *testing.T
	world
	mask
}

// call makes a call and compares its answer, which it returns.
func (g golden) call(file, key, method, path, body string) answer {
	g.t.Helper()
	got := g.ask(g.t, key, method, path, body)
	compare(g.t, file, g.show(got))
	return got
}

func compare(t *testing.T, file, got string) {
	t.Helper()
	path := filepath.Join("testdata", file+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func (g golden) machines() {
	key := g.SecretKey()
	g.call("machine_get", key, "GET", "/machines/ONE", "")
	g.call("machine_list", key, "GET", "/machines?limit=1", "")
	g.call("machine_list_empty", key, "GET", "/machines?query=nobody", "")
	time.Sleep(1500 * time.Millisecond)
	g.call("machine_created", key, "POST", "/machines", `{"name":"three <&>","scoped_machines":["TWO"],"default_token_ttl":60}`)
	g.call("machine_updated", key, "PATCH", "/machines/TWO", `{"name":"zwei"}`)
	g.call("secret_key", key, "GET", "/machines/ONE/secret_key", "")
	g.call("secret_key_rotated", key, "POST", "/machines/TWO/secret_key/rotate", `{"previous_token_ttl":0}`)
	g.call("scope_created", key, "POST", "/machines/TWO/scopes", `{"to_machine_id":"ONE"}`)
	g.call("scope_conflict", key, "POST", "/machines/TWO/scopes", `{"to_machine_id":"ONE"}`)
	g.call("scope_deleted", key, "DELETE", "/machines/TWO/scopes/ONE", "null")
	g.call("machine_deleted", key, "DELETE", "/machines/TWO", "null")
	g.call("machine_not_found", key, "GET", "/machines/TWO", "")
}

func (g golden) tokens() {
	g.call("token_created", g.secret, "POST", "/m2m_tokens", `{"seconds_until_expiration":60,"claims":{"role":"reader"}}`)
	g.call("token_created_endless", g.secret, "POST", "/m2m_tokens", `{"seconds_until_expiration":null}`)
	g.call("token_created_jwt", g.secret, "POST", "/m2m_tokens", `{"token_format":"jwt","seconds_until_expiration":60}`)
	g.call("token_verified", g.SecretKey(), "POST", "/m2m_tokens/verify", `{"token":"TOKEN"}`)
	g.call("token_verified_again", g.SecretKey(), "POST", "/m2m_tokens/verify", `{"token":"TOKEN"}`)
	g.call("token_list", g.secret, "GET", "/m2m_tokens?subject=ONE&limit=2", "")
	g.call("token_revoked", g.secret, "POST", "/m2m_tokens/ID/revoke", `{"revocation_reason":"lost"}`)
	g.call("token_verified_revoked", g.SecretKey(), "POST", "/m2m_tokens/verify", `{"token":"TOKEN"}`)
	time.Sleep(time.Hour)
	g.call("token_verified_expired", g.SecretKey(), "POST", "/m2m_tokens/verify", `{"token":"TOKEN"}`)
	g.call("token_not_found", g.SecretKey(), "POST", "/m2m_tokens/verify", `{"token":"mt_nobody"}`)
	g.call("token_bad_request", g.SecretKey(), "POST", "/m2m_tokens/verify", `{}`)
}

func (g golden) refusals() {
	key := g.SecretKey()
	g.call("unauthenticated", "", "GET", "/machines", "")
	g.call("forbidden", g.secret, "GET", "/machines", "")
	g.call("unprocessable", key, "POST", "/machines", `{"name":""}`)
	g.call("bad_request", key, "POST", "/machines", `{`)
	g.call("not_found", key, "GET", "/nothing", "")
	g.call("method_not_allowed", key, "PUT", "/machines", "")
	g.Limit(7 * time.Second)
	g.call("limited", key, "GET", "/machines", "")
	g.Unlimit()
}

// TestEveryGoldenFileIsCompared, or it would go on saying what nobody sends any more.
func TestEveryGoldenFileIsCompared(t *testing.T) {
	var text []byte
	tests, err := filepath.Glob("*_test.go")
	for _, test := range must(t, tests, err) {
		more, err := os.ReadFile(test)
		text = append(text, must(t, more, err)...)
	}
	files, err := filepath.Glob("testdata/*.golden")
	for _, file := range must(t, files, err) {
		if name := strings.TrimSuffix(filepath.Base(file), ".golden"); !strings.Contains(string(text), `"`+name+`"`) {
			t.Errorf("%s is compared with nothing", file)
		}
	}
	if len(files) < 30 {
		t.Errorf("%d golden files", len(files))
	}
}

package machineid_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/machineid"
)

// calls is every call of the client, each giving all that it returns.
var calls = map[string]func(context.Context, *machineid.Client) (any, error){
	"register": func(ctx context.Context, c *machineid.Client) (any, error) { return two(c.Register(ctx, device)) },
	"validate": func(ctx context.Context, c *machineid.Client) (any, error) { return two(c.Validate(ctx, device)) },
	"list":     func(ctx context.Context, c *machineid.Client) (any, error) { return two(c.List(ctx)) },
	"revoke":   func(ctx context.Context, c *machineid.Client) (any, error) { return two(c.Revoke(ctx, device)) },
	"unrevoke": func(ctx context.Context, c *machineid.Client) (any, error) { return two(c.Unrevoke(ctx, device)) },
	"remove":   func(ctx context.Context, c *machineid.Client) (any, error) { return two(c.Remove(ctx, device)) },
	"revoke batch": func(ctx context.Context, c *machineid.Client) (any, error) {
		return two(c.RevokeBatch(ctx, []string{device, key}))
	},
	"unrevoke batch": func(ctx context.Context, c *machineid.Client) (any, error) {
		return two(c.UnrevokeBatch(ctx, []string{device, "x " + key}))
	},
	"revoke all":   func(ctx context.Context, c *machineid.Client) (any, error) { return two(c.RevokeAllActive(ctx)) },
	"unrevoke all": func(ctx context.Context, c *machineid.Client) (any, error) { return two(c.UnrevokeAllRevoked(ctx)) },
	"usage":        func(ctx context.Context, c *machineid.Client) (any, error) { return two(c.Usage(ctx)) },
	"checkout":     func(ctx context.Context, c *machineid.Client) (any, error) { return two(c.Checkout(ctx, "pro")) },
}

func two[T any](result T, err error) (any, error) { return result, err }

// echo is a body in which every member that any call looks at holds the key.
func echo(key string) string {
	return fmt.Sprintf(`{"allowed":false,"code":%[1]q,"request_id":%[1]q,"reason":%[1]q,"status":"ok","message":%[1]q,
		"planTier":%[1]q,"planState":%[1]q,"accessUntil":%[1]q,"url":"https://pay.example/","checkoutUrl":%[1]q,
		"unrevokedSample":[%[1]q],%[1]q:%[1]q,"devices":[{"deviceId":%[1]q,"status":%[1]q}],
		"results":[{"deviceId":%[2]q,"status":%[1]q,"error":%[1]q}]}`, key, device)
}

// S8: a server may echo the key wherever it likes, plainly or behind escapes; it comes out nowhere.
func TestKeyIsEchoed(t *testing.T) {
	plain := echo(key)
	escaped := strings.ReplaceAll(plain, key, `\u006f`+key[1:])
	number := `{"status":"ok","n":` + key + `}`
	for name, body := range map[string]string{
		"plain":          plain,
		"escaped":        escaped,
		"as an error":    strings.Replace(plain, `"status":"ok"`, `"status":`+strconv.Quote(key)+`,"error":`+strconv.Quote(key), 1),
		"cut":            plain[:len(plain)-2],
		"HTML":           "<p>unknown key " + key,
		"not JSON":       number,
		"long":           `{"status":"ok","reason":"` + strings.Repeat("x", 250) + key + `"}`,
		"with controls":  `{"status":"ok","reason":"a\n` + key + `\u0000"}`,
		"allowed":        `{"allowed":true,"code":"ALLOW","request_id":"` + key + `","reason":"` + key + `"}`,
		"another device": `{"allowed":true,"code":"ALLOW","deviceId":"` + key + `"}`,
	} {
		for _, status := range []int{200, 302, 401, 403, 429, 503} {
			client := newClient(t, serve(t, answer(status, body,
				"X-Request-Id", key, "Retry-After", key, "Location", "https://192.0.2.1/"+key)))
			for call, do := range calls {
				t.Run(fmt.Sprint(name, " ", status, " ", call), func(t *testing.T) {
					result, err := do(t.Context(), client)
					checkSecret(t, result, err)
					if text := strings.Join(printed(result), ""); strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(key))) {
						t.Errorf("the key stands in %s", text)
					}
				})
			}
		}
	}
}

// The redacted answers are answers still: what they say besides the key is kept.
func TestKeyIsRedacted(t *testing.T) {
	client := newClient(t, serve(t, answer(200, echo(key))))
	usage, err := client.Usage(t.Context())
	if err != nil || usage.PlanTier != "[redacted]" || usage.RequestID != "[redacted]" {
		t.Errorf("%+v, %v", usage, err)
	}
	var raw map[string]any
	if err := json.Unmarshal(usage.Raw, &raw); err != nil || raw["status"] != "ok" || raw["[redacted]"] != "[redacted]" {
		t.Errorf("%s: %v", usage.Raw, err)
	}
	d, err := newClient(t, serve(t, answer(200,
		`{"allowed":true,"code":"ALLOW","request_id":"r `+key+`"}`))).Validate(t.Context(), device)
	if err != nil || !d.Allowed || d.RequestID != "r [redacted]" {
		t.Errorf("%+v, %v", d, err)
	}
}

// Taking the key out must not mend an answer that means two things.
func TestRedactingMendsNothing(t *testing.T) {
	for _, body := range []string{
		`{"allowed":false,"allowed":true,"code":"ALLOW","x":"` + key + `"}`,
		`{"allowed":true,"code":"ALLOW","x":{"a":"` + key + `","a":1}}`,
		`{"Allowed":false,"allowed":true,"code":"ALLOW","x":"` + key + `"}`,
		allow + `{"x":"` + key + `"}`,
	} {
		d, err := newClient(t, serve(t, answer(200, body))).Validate(t.Context(), device)
		checkUndecided(t, d, err)
	}
}

// A number that is the key is one too.
func TestNumericKeyIsRedacted(t *testing.T) {
	const digits = "123456789012345678"
	client, err := machineid.New(digits, machineid.WithHTTPClient(&http.Client{
		Transport: canned(200, []byte(`{"planTier":"pro","key":`+digits+`,"list":[`+digits+`,1]}`)),
	}))
	if err != nil {
		t.Fatal(err)
	}
	usage, err := client.Usage(t.Context())
	if want := `{"key":"[redacted]","list":["[redacted]",1],"planTier":"pro"}`; err != nil || string(usage.Raw) != want {
		t.Errorf("%s, %v, want %s", usage.Raw, err, want)
	}
}

// net/http quotes what it cannot read, and so repeats a key that a server echoes outside of any body.
func TestKeyIsEchoedOutsideOfHTTP(t *testing.T) {
	for name, text := range map[string]string{
		"status line":       key + "\r\n\r\n",
		"status":            "HTTP/1.1 " + key + "\r\n\r\n",
		"header":            "HTTP/1.1 200 OK\r\n" + key + "\r\n\r\n",
		"length":            "HTTP/1.1 200 OK\r\nContent-Length: " + key + "\r\n\r\n",
		"transfer encoding": "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + key + "\r\n\r\n",
		"location":          "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://" + key + "\x7f/\r\n\r\n",
		"chunk":             head + "Transfer-Encoding: chunked\r\n\r\n" + key + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			addr, _ := rawServer(t, says(text, hangUp))
			d, err := newClient(t, "http://"+addr).Validate(t.Context(), device)
			checkUndecided(t, d, err)
		})
	}
}

// failure is an error of a transport that tells more than it should, by value, as %#v shows it.
type failure struct {
	shown  string
	hidden string
	below  error
}

func (f failure) Error() string { return f.shown }

func (f failure) Unwrap() error { return f.below }

// failures is an error that does not say what is in it.
type failures []error

func (failures) Error() string { return "several things failed" }

func (f failures) Unwrap() []error { return f }

// A transport of the user's may put the request, key and all, into its errors, or into those beneath.
func TestKeyInTransportsError(t *testing.T) {
	told := failure{shown: "sent x-org-key: " + key, below: context.Canceled}
	for name, c := range map[string]struct {
		err  error
		want error
	}{
		"told":        {told, context.Canceled},
		"told below":  {failure{shown: "failed", below: told}, context.Canceled},
		"told beside": {errors.Join(context.DeadlineExceeded, errors.New(key)), context.DeadlineExceeded},
		"hidden":      {failure{shown: "failed", hidden: key, below: net.ErrClosed}, net.ErrClosed},
		"told among":  {failures{errors.New("one"), told}, context.Canceled},
		"very long":   {errors.New(strings.Repeat("x", 10_000) + key), guard.ErrUnavailable},
		"long only":   {failure{shown: strings.Repeat("x", 10_000), below: net.ErrClosed}, net.ErrClosed},
		"on its own":  {failure{shown: "two\nlines", below: net.ErrClosed}, net.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			client := offline(t, transport(func(*http.Request) (*http.Response, error) { return nil, c.err }))
			d, err := client.Validate(t.Context(), device)
			if text := fmt.Sprintf("%v %+v %#v", err, d, *typedError(t, err)); strings.Contains(text, "tail9x") || strings.Contains(text, "\n") {
				t.Errorf("%s", text)
			}
			if !errors.Is(err, c.want) || d.Allowed || len(err.Error()) > 500 {
				t.Errorf("%v does not match %v", err, c.want)
			}
			if name != "hidden" { // what %#v shows of the cause itself, taken out, is the transport's affair
				checkUndecided(t, d, err)
			}
		})
	}
}

// The client itself, before and after its use, with each printing verb.
func TestKeyInClient(t *testing.T) {
	client := newClient(t, serve(t, answer(200, allow)))
	checkSecret(t, client)
	if _, err := client.Validate(t.Context(), device); err != nil {
		t.Fatal(err)
	}
	checkSecret(t, client, struct{ Inside any }{client}, []any{*client}, map[string]any{"x": *client})
	checkSecret(t, machineid.WithBaseURL("https://x.example"))
}

// A client is logged as where it asks and how long it waits, and not a field more.
func TestClientPrints(t *testing.T) {
	client, err := machineid.New(key, machineid.WithBaseURL("http://localhost:8080/x/"), machineid.WithTimeout(3*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	const want = "machineid.Client(http://localhost:8080/x, timeout 3s)"
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, client); got != want {
			t.Errorf("%s: %s, want %s", verb, got, want)
		}
	}
	checkSecret(t, client, []*machineid.Client{client})
	if client, err = machineid.New(key); err != nil || client.String() != "machineid.Client(https://machineid.io, timeout 10s)" {
		t.Errorf("%v, %v", client, err)
	}
}

// The check of this file would see the key.
func TestCheckSecretSees(t *testing.T) {
	type holder struct{ inside string }
	for _, value := range []any{holder{key}, &holder{key}, fmt.Errorf("outer: %w", failure{hidden: key}), json.RawMessage(`"` + key + `"`)} {
		found := false
		for _, text := range printed(value) {
			found = found || strings.Contains(text, key)
		}
		if !found {
			t.Errorf("%T: not seen", value)
		}
	}
}

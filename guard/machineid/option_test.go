package machineid_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/guard/machineid"
)

// A key that no header can carry is refused, and the refusal does not repeat it.
func TestNewRefusesKey(t *testing.T) {
	for _, bad := range []string{
		"", " ", "\t\n", key + "\n", " " + key, key + " " + key, key + "\r\nX-Evil: 1", key + "\x00", key + "\x7f", key + "ü", key + "\xff",
	} {
		client, err := machineid.New(bad)
		if err == nil || client != nil {
			t.Errorf("%q was taken", bad)
			continue
		}
		if !strings.HasPrefix(err.Error(), "machineid: the organisation key ") {
			t.Error(err)
		}
		if strings.TrimSpace(bad) == "" && !keySourceNamed(err) {
			t.Errorf("%q: %v, and not where a key comes from", bad, err)
		}
		checkSecret(t, err)
	}
	for _, good := range []string{key, "k", `!"#$%&'()*+,-./:;<=>?@[\]^_{|}~` + "`"} {
		if _, err := machineid.New(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}

// keySourceNamed tells whether err helps somebody who has no key yet.
func keySourceNamed(err error) bool {
	return strings.Contains(err.Error(), "begins with org_") && strings.Contains(err.Error(), "the organisation's page")
}

// Keys of odd signs are hidden as net/http and encoding/json would write them.
func TestOddKeysAreHidden(t *testing.T) {
	const odd = `o"r\g<&>%/+tail9x`
	for name, rt := range map[string]http.RoundTripper{
		"JSON": canned(503, []byte(`{"reason":"o\"r\\g<&>%/+tail9x","error":"o\u0022r\\g\u003c&>%\/+tail9x"}`)),
		"text": transport(func(*http.Request) (*http.Response, error) {
			return nil, failure{shown: `malformed response "HTTP/1.1 o\"r\\g<&>%/+tail9x"`}
		}),
		"URL": transport(func(*http.Request) (*http.Response, error) {
			return nil, failure{shown: "no host in http://o%22r%5Cg%3C%26%3E%25%2F%2Btail9x, http://x/o%22r%5Cg%3C&%3E%25%2F+tail9x"}
		}),
	} {
		client, err := machineid.New(odd, machineid.WithHTTPClient(&http.Client{Transport: rt}))
		if err != nil {
			t.Fatal(err)
		}
		d, err := client.Validate(t.Context(), device)
		t.Run(name, func(t *testing.T) { checkUndecided(t, d, err) })
	}
}

func TestBaseURL(t *testing.T) {
	for _, good := range []string{
		"https://machineid.io", "https://machineid.io/", "https://192.0.2.1:8443/behind/a/proxy", "HTTPS://MachineID.io",
		"http://localhost", "http://LOCALHOST:8080/x/", "http://127.0.0.1:1", "http://127.9.9.9", "http://[::1]:80", "http://[::ffff:127.0.0.1]",
		"https://machineid.io:", "https://machineid.io:65535", "https://machineid.io/api", "https://machineid.io/my-api/v1",
	} {
		if _, err := machineid.New(key, machineid.WithBaseURL(good)); err != nil {
			t.Error(err)
		}
	}
	for bad, why := range map[string]string{
		"":                                 "not an absolute http or https URL, such as https://machineid.io or http://localhost:8080",
		"machineid.io":                     "not an absolute",
		"//machineid.io":                   "not an absolute",
		"/api":                             "not an absolute",
		"https://":                         "not an absolute",
		"https://:443":                     "not an absolute",
		"ftp://machineid.io":               "not an absolute",
		"https://machineid.io\x00":         "not an absolute",
		"https:machineid.io":               "not an absolute",
		key:                                "not an absolute",
		"https://" + key + ":x/":           "not an absolute",
		"https://user:pw@machineid.io":     "user, query or fragment",
		"https://" + key + "@machineid.io": "user, query or fragment",
		"https://machineid.io?k=" + key:    "user, query or fragment",
		"https://machineid.io?":            "user, query or fragment",
		"https://machineid.io#x":           "user, query or fragment",
		"https://machineid.io/" + key:      "the organisation key stands in it",
		"https://" + key + ".example":      "the organisation key stands in it",
		"http://machineid.io":              "plain http",
		"http://192.0.2.1":                 "plain http",
		"http://10.0.0.1:8080":             "plain http",
		"http://127.0.0.1.example":         "plain http",
		"http://localhost.example":         "plain http",
		"http://127.1":                     "plain http",
		"http://0.0.0.0":                   "plain http",
		"http://[::]":                      "plain http would show the organisation key; use https (http only to localhost)",
		"localhost:8080":                   "such as https://machineid.io or http://localhost:8080",
		"http://localhost:0":               "the port is not in 1 to 65535",
		"http://localhost:65536":           "the port is not in 1 to 65535",
		"https://machineid.io:99999999999": "the port is not in 1 to 65535",
		"https://machineid.io/api/v1":      "the path ends in /api/v1, ",
		"https://machineid.io/api/v1//":    "the path ends in /api/v1, ",
		"http://localhost:1/proxy/api/v1/": "the path ends in /api/v1, ",
	} {
		_, err := machineid.New(key, machineid.WithBaseURL(bad))
		if err == nil || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), "WithBaseURL") {
			t.Errorf("%q: %v, want %q", bad, err, why)
		}
		checkSecret(t, err)
		if err != nil && strings.Contains(err.Error(), "pw") {
			t.Error(err)
		}
	}
}

func TestOptionsAreRefused(t *testing.T) {
	for want, o := range map[string]machineid.Option{
		"machineid: option 2 is nil":                                               nil,
		"machineid: WithTimeout(0s): must be above 0 and at most 10m":              machineid.WithTimeout(0),
		"machineid: WithTimeout(-1s): must be above 0 and at most 10m":             machineid.WithTimeout(-time.Second),
		"machineid: WithTimeout(10m0.000000001s): must be above 0 and at most 10m": machineid.WithTimeout(10*time.Minute + 1),
		"machineid: WithHTTPClient: the client is nil":                             machineid.WithHTTPClient(nil),
		"machineid: WithDeviceIDCheck: the check is nil":                           machineid.WithDeviceIDCheck(nil),
	} {
		client, err := machineid.New(key, machineid.WithTimeout(time.Second), o)
		if err == nil || err.Error() != want || client != nil {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestFromEnv(t *testing.T) {
	asked := ""
	base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r.Host + r.URL.Path + " " + r.Header.Get("X-Org-Key")
		answer(200, allow)(w, r)
	})
	host := strings.TrimPrefix(base, "http://")
	validate := func(opts ...machineid.Option) {
		t.Helper()
		client, err := machineid.FromEnv(opts...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.CloseIdleConnections)
		if d, err := client.Validate(t.Context(), device); err != nil || !d.Allowed {
			t.Errorf("%+v, %v", d, err)
		}
	}
	t.Setenv("MACHINEID_ORG_KEY", key+"\n")
	t.Setenv("MACHINEID_BASE_URL", " "+base+"/env\n")
	validate()
	if want := host + "/env/api/v1/devices/validate " + key; asked != want {
		t.Errorf("asked %q, want %q", asked, want)
	}
	validate(machineid.WithBaseURL(base + "/option"))
	if want := host + "/option/api/v1/devices/validate " + key; asked != want {
		t.Errorf("asked %q, want %q", asked, want)
	}
	t.Setenv("MACHINEID_BASE_URL", "nonsense")
	validate(machineid.WithBaseURL(base))
	if _, err := machineid.FromEnv(); err == nil || !strings.Contains(err.Error(), "MACHINEID_BASE_URL") {
		t.Error(err)
	}
}

// Without a base URL in the environment or the options the hosted service is meant.
func TestDefaultBaseURL(t *testing.T) {
	t.Setenv("MACHINEID_ORG_KEY", key)
	t.Setenv("MACHINEID_BASE_URL", " ")
	var asked string
	client, err := machineid.FromEnv(machineid.WithHTTPClient(&http.Client{
		Transport: transport(func(r *http.Request) (*http.Response, error) {
			asked = r.URL.String()
			return canned(200, []byte(allow)).RoundTrip(r)
		}),
	}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Validate(t.Context(), device); err != nil || asked != "https://machineid.io/api/v1/devices/validate" {
		t.Errorf("asked %q, %v", asked, err)
	}
}

func TestFromEnvUnset(t *testing.T) {
	for _, value := range []string{"", " ", "\n"} {
		t.Setenv("MACHINEID_ORG_KEY", value)
		if _, err := machineid.FromEnv(); err == nil || !strings.HasPrefix(err.Error(), "machineid: MACHINEID_ORG_KEY is not set; ") || !keySourceNamed(err) {
			t.Error(err)
		}
		t.Setenv("MACHINEID_DEVICE_ID", value)
		if id, err := machineid.DeviceIDFromEnv(); err == nil || id != "" || err.Error() != "machineid: MACHINEID_DEVICE_ID is not set" {
			t.Error(id, err)
		}
	}
	t.Setenv("MACHINEID_ORG_KEY", key+" two words")
	_, err := machineid.FromEnv()
	if err == nil {
		t.Error("a key of two words was taken")
	}
	checkSecret(t, err)
	t.Setenv("MACHINEID_DEVICE_ID", " agent-01\n")
	if id, err := machineid.DeviceIDFromEnv(); err != nil || id != "agent-01" {
		t.Error(id, err)
	}
}

// A device's id stands in every error, record and span, so that a key in its place is told of before it is used (S8).
func TestDeviceIDFromEnvHoldsTheKey(t *testing.T) {
	for name, test := range map[string]struct {
		key, device string
		refused     bool
	}{
		"the key twice":                {key, key, true},
		"the key within":               {key, "agent:" + key, true},
		"the two exchanged":            {"agent-01", key, true},
		"a device that is named so":    {key, "org_acme:01", false},
		"no key here, as it may be":    {"", "org_acme:01", false},
		"a short key is no word's end": {"a", "agent-01", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("MACHINEID_ORG_KEY", test.key)
			t.Setenv("MACHINEID_DEVICE_ID", test.device)
			id, err := machineid.DeviceIDFromEnv()
			if (err != nil) != test.refused || (id == "") != test.refused {
				t.Error(id, err)
			}
			if err != nil {
				checkSecret(t, err)
			}
		})
	}
}

// What New does by itself: no request, no goroutine, no connection. TestMain would see the latter.
func TestNewAsksNobody(t *testing.T) {
	if _, err := machineid.New(key, machineid.WithBaseURL("https://192.0.2.1")); err != nil {
		t.Error(err)
	}
}

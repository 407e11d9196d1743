package licentric_test

import (
	"io"
	"net/http"
	"strconv"
	"testing"

	"github.com/execguard/execguard/guard/licentric"
	"github.com/google/go-cmp/cmp"
)

// request is what a server sees of one call.
type request struct {
	Method, Path, Body string
	Header             http.Header
}

// wire is each call, to the byte. How it is signed stands apart, in signed.
var wire = map[string]request{
	"validate": {http.MethodPost, "/licenses/validate-key", `{"entitlements":["pro"],"fingerprint":"` + device + `","key":"` + licenseKey + `"}`, nil},
	"activate": {
		http.MethodPost, "/machines",
		`{"fingerprint":"` + device + `","name":"a <b> & c","platform":"linux","hostname":"h-1","cores":8,"metadata":{"rack":7}}`, nil,
	},
	"deactivate": {http.MethodDelete, "/machines/" + machineID, "", nil},
	"heartbeat":  {http.MethodPost, "/machines/" + machineID + "/heartbeat", "", nil},
	"checkout":   {http.MethodPost, "/licenses/" + licenseID + "/checkout", `{"fingerprint":"` + device + `","ttl":3600}`, nil},
	"machines":   {http.MethodGet, "/machines?licenseId=" + licenseID + "&limit=100", "", nil},
	"machine":    {http.MethodGet, "/machines/" + machineID, "", nil},
}

var signed = map[string]string{
	"activate": "License " + licenseKey, "deactivate": "License " + licenseKey, "heartbeat": "License " + licenseKey,
	"checkout": "Bearer " + apiKey, "machines": "Bearer " + apiKey, "machine": "Bearer " + apiKey,
}

// expected is the request of a call, with its whole header: what is not here is not sent.
func expected(call string) request {
	want := wire[call]
	want.Path = "/api/v1" + want.Path
	want.Header = http.Header{"Accept": {"application/json"}, "User-Agent": {"execguard-licentric/" + licentric.Version}}
	if want.Body != "" {
		want.Header.Set("Content-Type", "application/json")
	}
	if want.Body != "" || want.Method == http.MethodPost {
		want.Header.Set("Content-Length", strconv.Itoa(len(want.Body)))
	}
	if auth := signed[call]; auth != "" {
		want.Header.Set("Authorization", auth)
	}
	return want
}

// record starts a server that notes what it is asked, and answers with an empty object.
func record(t *testing.T, got *[]request) string {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		*got = append(*got, request{r.Method, r.RequestURI, string(body), r.Header})
		answer(200, `{}`)(w, r)
	})
}

func TestRequests(t *testing.T) {
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			var got []request
			base := record(t, &got)
			for _, prefix := range []string{"", "/", "/behind/a/proxy", "/behind/a/proxy/"} {
				got = nil
				_, _ = call(t.Context(), newClient(t, base+prefix))
				want := expected(name)
				if len(prefix) > 1 {
					want.Path = "/behind/a/proxy" + want.Path
				}
				if diff := cmp.Diff([]request{want}, got); diff != "" {
					t.Errorf("below %q: %s", prefix, diff)
				}
			}
		})
	}
}

// What is left out is not sent, so that the service's own defaults hold.
func TestLeastRequests(t *testing.T) {
	var got []request
	client := newClient(t, record(t, &got))
	ctx := t.Context()
	_, _ = client.Validate(ctx, licenseKey, licentric.ValidateParams{})
	_, _ = client.Activate(ctx, licenseKey, licentric.Activation{Fingerprint: device})
	_, _ = client.Checkout(ctx, licenseID, licentric.CheckoutParams{Fingerprint: device})
	_, _ = collect(client, ctx, licentric.MachinesParams{})
	_, _ = collect(client, ctx, licentric.MachinesParams{PageSize: 7})
	var sent []string
	for _, r := range got {
		sent = append(sent, r.Path+" "+r.Body)
	}
	want := []string{
		`/api/v1/licenses/validate-key {"key":"` + licenseKey + `"}`,
		`/api/v1/machines {"fingerprint":"` + device + `"}`,
		`/api/v1/licenses/` + licenseID + `/checkout {"fingerprint":"` + device + `"}`,
		`/api/v1/machines?limit=100 `,
		`/api/v1/machines?limit=7 `,
	}
	if diff := cmp.Diff(want, sent); diff != "" {
		t.Error(diff)
	}
}

// What the vendor has not published can be told: each place, and each name.
func TestPathsAreTold(t *testing.T) {
	paths := licentric.Paths{
		Validate: "/v/~ask.now", Activate: "PUT /m", Deactivate: "POST /m/{id}/off", Heartbeat: "/m/{id}/beat_1", Checkout: "PATCH /{id}",
		Machines: "/list", Machine: "GET /one/{id}", FingerprintMember: "machine", EntitlementsMember: "wants", CertificateMember: "file",
	}
	moved := map[string]request{
		"validate":   {http.MethodPost, "/v/~ask.now", `{"key":"` + licenseKey + `","machine":"` + device + `","wants":["pro"]}`, nil},
		"activate":   {http.MethodPut, "/m", wire["activate"].Body, nil},
		"deactivate": {http.MethodPost, "/m/" + machineID + "/off", "", nil},
		"heartbeat":  {http.MethodPost, "/m/" + machineID + "/beat_1", "", nil},
		"checkout":   {http.MethodPatch, "/" + licenseID, wire["checkout"].Body, nil},
		"machines":   {http.MethodGet, "/list?licenseId=" + licenseID + "&limit=100", "", nil},
		"machine":    {http.MethodGet, "/one/" + machineID, "", nil},
	}
	var got []request
	client := newClient(t, record(t, &got), licentric.WithPaths(paths))
	for name, call := range calls {
		got = nil
		_, _ = call(t.Context(), client)
		want := moved[name]
		want.Path = "/api/v1" + want.Path
		if len(got) != 1 || got[0].Method != want.Method || got[0].Path != want.Path || got[0].Body != want.Body {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	file, err := newClient(t, serve(t, answer(200, `{"data":{"certificate":"no","file":"yes"}}`)), licentric.WithPaths(paths)).
		Checkout(t.Context(), licenseID, licentric.CheckoutParams{Fingerprint: device})
	if err != nil || string(file.Certificate) != "yes" {
		t.Errorf("%s, %v", file.Certificate, err)
	}
}

package guardtest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
	"github.com/execguard/execguard/guard/guardtest"
)

// code asks as a plain client and returns the code of the answer.
func code(t *testing.T, srv *guardtest.Server, deviceID string) guard.Code {
	t.Helper()
	a := post(t.Context(), srv.Client(), srv, deviceID)
	var v struct {
		Allowed bool
		Code    guard.Code
	}
	if err := json.Unmarshal([]byte(a.body), &v); err != nil || v.Allowed != (v.Code == guard.CodeAllow) {
		t.Errorf("device %q: %d %q, %v", deviceID, a.status, a.body, errors.Join(a.err, err))
	}
	return v.Code
}

func TestServerFollowsItsTest(t *testing.T) {
	srv := guardtest.NewServer(t)
	for _, step := range []struct {
		name string
		do   func()
		want guard.Code
	}{
		{"nothing", func() {}, guard.CodeDeviceNotFound},
		{"Register", func() { srv.Register(device, "another") }, guard.CodeAllow},
		{"Register again", func() { srv.Register(device) }, guard.CodeAllow},
		{"Revoke", func() { srv.Revoke(device) }, guard.CodeDeviceRevoked},
		{"Unrevoke", func() { srv.Unrevoke(device) }, guard.CodeAllow},
		{"off", func() { srv.SetState(authority.StateDisabled) }, guard.CodeOrgDisabled},
		{"frozen", func() { srv.SetState(authority.StateFrozen) }, guard.CodePlanFrozen},
		{"inactive", func() { srv.SetState(authority.StateInactive) }, guard.CodePlanNotActive},
		{"expired", func() { srv.SetState(authority.StateExpired) }, guard.CodeEntitlementExpired},
		{"unavailable", func() { srv.SetState(authority.StateUnavailable) }, guard.CodeSystemUnavailable},
		{"active", func() { srv.SetState(authority.StateActive) }, guard.CodeAllow},
		{"Remove", func() { srv.Remove(device) }, guard.CodeDeviceNotFound},
		{"RemoveOrganisation", srv.RemoveOrganisation, guard.CodeOrgNotFound},
	} {
		step.do()
		if got := code(t, srv, device); got != step.want {
			t.Errorf("%s: %s, want %s", step.name, got, step.want)
		}
	}
}

func TestServersOrganisationIsTheOneOnTheWire(t *testing.T) {
	srv := newServer(t)
	d, err := srv.Organisation().Validate(t.Context(), device)
	if err != nil || !d.Allowed {
		t.Errorf("in process: %+v, %v", d, err)
	}
	srv.Inject("connection refused")
	if d, err := srv.Organisation().Validate(t.Context(), device); err != nil || !d.Allowed {
		t.Errorf("in process, under a fault: %+v, %v", d, err)
	}
	if n := len(srv.Requests()); n != 0 {
		t.Errorf("%d requests, want none for what happens in process", n)
	}
}

func TestServerTakesOptions(t *testing.T) {
	srv := guardtest.NewServer(t,
		guardtest.WithPlan(authority.PlanFree),
		guardtest.WithAuthority(authority.WithDenyStatus(http.StatusForbidden)),
		guardtest.WithPlainHTTP())
	srv.Register("a", "b", "c")
	if a := post(t.Context(), http.DefaultClient, srv, "stranger"); a.status != http.StatusForbidden {
		t.Errorf("a denial came with %d, want 403", a.status)
	}
	http.DefaultClient.CloseIdleConnections()
	if _, err := srv.Organisation().Register(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
	if got := code(t, srv, "d"); got != guard.CodeDeviceNotFound {
		t.Errorf("a fourth device on the free plan: %s", got)
	}
	if !strings.HasPrefix(srv.URL(), "http://127.0.0.1:") {
		t.Errorf("URL %s", srv.URL())
	}
}

func TestServerReportsWhatItCannotDo(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(srv *guardtest.Server)
		want string
	}{
		"over the cap":    {func(srv *guardtest.Server) { srv.Register("a", "b", "c", "d") }, `Register("d"): blocked device_limit_reached`},
		"a bad id":        {func(srv *guardtest.Server) { srv.Register(" ") }, `Register(" "): authority: invalid_device_id`},
		"revoke unknown":  {func(srv *guardtest.Server) { srv.Revoke("a") }, `Revoke("a"): not_found`},
		"restore unknown": {func(srv *guardtest.Server) { srv.Unrevoke("a") }, `Unrevoke("a"): not_found`},
		"remove unknown":  {func(srv *guardtest.Server) { srv.Remove("a") }, `Remove("a"): not_found`},
		"register revoked": {func(srv *guardtest.Server) {
			srv.Register("a")
			srv.Revoke("a")
			srv.Register("a")
		}, `Register("a"): revoked`},
		"unknown state": {func(srv *guardtest.Server) { srv.SetState("gone") }, `SetState("gone")`},
		"removed twice": {func(srv *guardtest.Server) {
			srv.RemoveOrganisation()
			srv.RemoveOrganisation()
		}, "RemoveOrganisation: "},
		"unknown fault": {func(srv *guardtest.Server) { srv.Inject("thunder") }, `unknown fault "thunder", the known ones are ["connection refused"`},
		"TLS without":   {func(srv *guardtest.Server) { srv.Inject("TLS certificate expired") }, `"TLS certificate expired" needs a server with TLS`},
	} {
		t.Run(name, func(t *testing.T) {
			r := guardtest.Run(t, func(r *guardtest.Recorder) {
				srv := guardtest.NewServer(r, guardtest.WithPlan(authority.PlanFree), guardtest.WithPlainHTTP())
				test.do(srv)
			})
			if errs := r.Errors(); len(errs) != 1 || !strings.Contains(errs[0], test.want) {
				t.Errorf("reported %q, want %q", errs, test.want)
			}
		})
	}
}

func TestServerRefusesBadOptions(t *testing.T) {
	for want, opt := range map[string]guardtest.Option{
		`unknown plan "golden"`: guardtest.WithPlan("golden"),
		"WithDenyStatus: 500":   guardtest.WithAuthority(authority.WithDenyStatus(500)),
	} {
		r := guardtest.Run(t, func(r *guardtest.Recorder) { guardtest.NewServer(r, opt) })
		if errs := r.Errors(); len(errs) != 1 || !strings.Contains(errs[0], want) {
			t.Errorf("reported %q, want %q", errs, want)
		}
	}
}

// TestRefusedInjectionChangesNothing keeps a fault that is on.
func TestRefusedInjectionChangesNothing(t *testing.T) {
	r := guardtest.Run(t, func(r *guardtest.Recorder) {
		srv := guardtest.NewServer(r)
		srv.Inject("empty body")
		srv.Inject("thunder")
		if a := post(t.Context(), srv.Client(), srv, device); a.status != 200 || a.body != "" {
			t.Errorf("got %d %q, %v", a.status, a.body, a.err)
		}
	})
	if n := len(r.Errors()); n != 1 {
		t.Errorf("%d errors, want that of the unknown fault", n)
	}
}

func TestServerRecordsRequests(t *testing.T) {
	srv := newServer(t)
	before := time.Now()
	code(t, srv, device)
	srv.Inject("500")
	post(t.Context(), srv.Client(), srv, "another")
	get(t, srv).Body.Close()
	got := srv.Requests()
	if len(got) != 3 {
		t.Fatalf("%d requests: %+v", len(got), got)
	}
	for i, r := range got {
		if r.Arrived.Before(before) || r.Arrived.After(time.Now()) {
			t.Errorf("request %d arrived at %v", i, r.Arrived)
		}
		before = r.Arrived
		got[i].Arrived = time.Time{}
	}
	want := []guardtest.Request{
		{Method: "POST", Path: "/api/v1/devices/validate", DeviceID: device, WithKey: true},
		{Method: "POST", Path: "/api/v1/devices/validate", DeviceID: "another", WithKey: true},
		{Method: "GET", Path: "/api/v1/usage"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestServerHandsBodiesOnWhole sends more than is looked at: the authority must see that.
func TestServerHandsBodiesOnWhole(t *testing.T) {
	srv := newServer(t)
	for size, want := range map[int]int{1 << 10: http.StatusOK, 2 << 20: http.StatusRequestEntityTooLarge} {
		body := `{"deviceId":"` + device + `","more":"` + strings.Repeat("a", size) + `"}`
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL()+"/api/v1/devices/register", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("x-org-key", srv.Key())
		response, err := srv.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%d bytes: %d %s, want %d", size, response.StatusCode, text, want)
		}
	}
}

func TestServerWaitsForRequests(t *testing.T) {
	srv := newServer(t)
	srv.Inject("accepted and silent")
	asked, leave := context.WithCancel(t.Context())
	var client sync.WaitGroup
	client.Go(func() { post(asked, srv.Client(), srv, device) })
	got, err := srv.Wait(t.Context(), 1)
	if err != nil || len(got) != 1 || got[0].DeviceID != device {
		t.Errorf("%+v, %v", got, err)
	}
	leave()
	client.Wait()
	enough, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if got, err := srv.Wait(enough, 2); err == nil || err.Error() != "enough" || len(got) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestStraysBearTheKey lets net/http follow, as it does unless it is told otherwise.
func TestStraysBearTheKey(t *testing.T) {
	for _, fault := range []guardtest.Fault{"redirect 301", "redirect 302", "redirect 307", "redirect 308"} {
		srv := newServer(t)
		srv.Revoke(device)
		srv.Inject(fault)
		if a := post(t.Context(), srv.Client(), srv, device); a.err != nil || !a.saysAllow() {
			t.Errorf("%s: the other host says %d %q, %v", fault, a.status, a.body, a.err)
		}
		strays := srv.Strays()
		if len(strays) != 1 || !strays[0].WithKey || strays[0].Path != "/api/v1/devices/validate" {
			t.Errorf("%s: %+v", fault, strays)
		}
		if n := len(srv.Requests()); n != 1 {
			t.Errorf("%s: %d requests to the authority", fault, n)
		}
	}
}

func TestKeyIsInNoPrintedForm(t *testing.T) {
	srv := newServer(t)
	code(t, srv, device)
	var text strings.Builder
	for _, v := range []any{srv, *srv, struct{ S guardtest.Server }{*srv}, srv.Requests()} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&text, verb+"\n", v)
		}
		encoded, err := json.Marshal(v)
		if err != nil {
			t.Error(err)
		}
		text.Write(encoded)
	}
	if strings.Contains(text.String(), srv.Key()) || !strings.HasPrefix(srv.Key(), "org_") || len(srv.Key()) < 20 {
		t.Errorf("the key %q is in a printed form, or is none", srv.Key())
	}
	if !strings.Contains(text.String(), "guardtest.Server("+srv.URL()+")") {
		t.Errorf("the server prints as %v", srv)
	}
}

func TestEachServerHasAKeyOfItsOwn(t *testing.T) {
	one, other := newServer(t), newServer(t)
	if one.Key() == other.Key() || one.URL() == other.URL() {
		t.Errorf("keys equal: %t, %s and %s", one.Key() == other.Key(), one.URL(), other.URL())
	}
}

// TestOnlyTheServersClientTrustsIt shows that the certificate is one that nobody else believes.
func TestOnlyTheServersClientTrustsIt(t *testing.T) {
	srv := newServer(t)
	stranger := &http.Client{Transport: &http.Transport{}}
	if a := post(t.Context(), stranger, srv, device); a.err == nil || !strings.Contains(a.err.Error(), "certificate") {
		t.Errorf("a stranger got %d, %v", a.status, a.err)
	}
	wantAllow(t, srv)
}

// TestPortStaysOurs refuses connections while others take every port that they are given, and
// has the address back afterwards.
func TestPortStaysOurs(t *testing.T) {
	srv := newServer(t)
	address := strings.TrimPrefix(srv.URL(), "https://")
	for range 5 {
		srv.Inject("connection refused")
		var taken []net.Listener
		for range 200 {
			l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			if taken = append(taken, l); l.Addr().String() == address {
				t.Error("the port was given away")
			}
		}
		if c, err := new(net.Dialer).DialContext(t.Context(), "tcp", address); err == nil {
			c.Close()
			t.Error("somebody listens")
		}
		srv.Heal()
		wantAllow(t, srv)
		for _, l := range taken {
			l.Close()
		}
	}
}

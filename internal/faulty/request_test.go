package faulty_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/internal/faulty"
)

// post sends a body and a header to m-1.
func post(t *testing.T, srv *faulty.Server, target, authorization, body string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL()+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", authorization)
	return do(srv, request)
}

func TestRequestsAreRecorded(t *testing.T) {
	srv := start(t, faulty.Config{})
	before := time.Now()
	wantHonest(t, srv)
	inject(t, srv, "500")
	post(t, srv, "/machines/m-2?limit=1", "Bearer "+secret, "body")
	got := srv.Requests()
	if len(got) != 2 {
		t.Fatalf("%d requests: %+v", len(got), got)
	}
	for i, want := range []faulty.Request{
		{Method: "GET", Path: "/machines/m-1", DeviceID: "m-1"},
		{Method: "POST", Path: "/machines/m-2", Query: "limit=1", DeviceID: "m-2"},
	} {
		r := got[i]
		if r.Method != want.Method || r.Path != want.Path || r.Query != want.Query || r.DeviceID != want.DeviceID || r.WithKey {
			t.Errorf("got %+v, want %+v", r, want)
		}
		if r.Arrived.Before(before) || r.Arrived.After(time.Now()) {
			t.Errorf("request %d arrived at %v", i, r.Arrived)
		}
		if r.Header() != nil || r.Body() != nil {
			t.Errorf("header %q and body %q are kept unasked", r.Header(), r.Body())
		}
		before = r.Arrived
	}
}

func TestVerbatimKeepsWhatWasSent(t *testing.T) {
	spoils := func(_ http.ResponseWriter, r *http.Request) { r.Header.Set("Authorization", "spoilt") }
	srv := start(t, faulty.Config{Verbatim: true, Handler: http.HandlerFunc(spoils)})
	post(t, srv, "/machines/m-1", "Bearer "+secret, "body")
	for range 2 { // the second time after the copies of the first were changed
		r := srv.Requests()[0]
		header, body := r.Header(), r.Body()
		if header.Get("Authorization") != "Bearer "+secret || string(body) != "body" {
			t.Errorf("got header %q, body %q", header, body)
		}
		header.Set("Authorization", "changed")
		body[0] = 'x'
	}
}

// TestSecretsAreFoundWhereverTheyStand puts one into each part of a request.
func TestSecretsAreFoundWhereverTheyStand(t *testing.T) {
	srv := start(t, faulty.Config{Secrets: func() []string { return []string{"another", secret} }})
	for _, where := range [][3]string{
		{"/machines/m-1", "Bearer " + secret, "body"},
		{"/machines/m-1", "none", `{"key":"` + secret + `"}`},
		{"/machines/" + secret, "none", "body"},
		{"/machines/m-1?key=" + secret, "none", "body"},
		{"/machines/m-1", "none", "another"},
	} {
		post(t, srv, where[0], where[1], where[2])
	}
	post(t, srv, "/machines/m-1", "Bearer "+secret[1:], "body")
	for i, r := range srv.Requests() {
		if want := i < 5; r.WithKey != want {
			t.Errorf("request %d with the key: %t", i, r.WithKey)
		}
	}
}

// TestSecretsAreInNoPrintedForm (S8).
func TestSecretsAreInNoPrintedForm(t *testing.T) {
	srv := start(t, faulty.Config{Verbatim: true, Secrets: func() []string { return []string{secret} }})
	post(t, srv, "/machines/m-1", "Bearer "+secret, secret)
	var text strings.Builder
	for _, v := range []any{srv, struct{ S *faulty.Server }{srv}, srv.Requests()} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&text, verb+"\n", v)
		}
		encoded, err := json.Marshal(v)
		if err != nil {
			t.Error(err)
		}
		text.Write(encoded)
	}
	for _, hidden := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%d", []byte(secret))} {
		if strings.Contains(text.String(), hidden) {
			t.Errorf("%q is in a printed form", hidden)
		}
	}
	if !strings.Contains(text.String(), "faulty.Server("+srv.URL()+")") {
		t.Errorf("the server prints as %v", srv)
	}
}

// TestServiceSeesBodiesWhole sends more than is looked at.
func TestServiceSeesBodiesWhole(t *testing.T) {
	counts := func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, n, err)
	}
	srv := start(t, faulty.Config{Verbatim: true, Handler: http.HandlerFunc(counts)})
	for _, size := range []int{0, 1, 1 << 20, 1<<20 + 1, 3 << 20} {
		if a := post(t, srv, "/machines/m-1", "none", strings.Repeat("a", size)); a.body != fmt.Sprint(size, nil) {
			t.Errorf("of %d bytes the service saw %s, %v", size, a.body, a.err)
		}
		all := srv.Requests()
		if n := len(all[len(all)-1].Body()); n != min(size, 1<<20) {
			t.Errorf("of %d bytes %d are kept", size, n)
		}
	}
}

// TestStrayHostSaysYes lets net/http follow, as it does unless it is told otherwise.
func TestStrayHostSaysYes(t *testing.T) {
	srv := start(t, faulty.Config{Secrets: func() []string { return []string{"another", secret} }})
	inject(t, srv, "redirect 307")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL()+"/machines/m-1?q=1", strings.NewReader(secret))
	if err != nil {
		t.Fatal(err)
	}
	response, err := srv.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var got struct{ Active bool }
	if err := json.NewDecoder(response.Body).Decode(&got); err != nil || !got.Active {
		t.Errorf("the other host says %+v, %v", got, err)
	}
	for _, all := range [][]faulty.Request{srv.Requests(), srv.Strays()} {
		if len(all) != 1 || !all[0].WithKey || all[0].Method != http.MethodPost || all[0].Path != "/machines/m-1" || all[0].Query != "q=1" {
			t.Errorf("recorded %+v", all)
		}
	}
}

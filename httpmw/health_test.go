package httpmw_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"iter"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
	"github.com/execguard/execguard/httpmw"
)

// fixedHealth is a guard's health as it is rarely found.
type fixedHealth guard.Health

func (h fixedHealth) Health() guard.Health { return guard.Health(h) }

func ask(t testing.TB, h http.Handler, method, target string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, target, nil))
	if w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("header: %v", w.Header())
	}
	return w
}

// wantProbe holds a probe's answer to what it has to be: 200, or 503 with the reason.
func wantProbe(t *testing.T, h http.Handler, code, detail string) {
	t.Helper()
	w := ask(t, h, http.MethodGet, "/")
	if code == "" {
		if w.Code != http.StatusOK || w.Body.String() != "ok\n" {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
		return
	}
	want := `{"type":"https://pkg.go.dev/github.com/execguard/execguard/httpmw#hdr-Unhealthy",` +
		`"title":"Work that is begun here now cannot be expected to run","status":503,"code":"` + code + `","request_id":"","detail":"` + detail + `"}`
	if w.Code != http.StatusServiceUnavailable || w.Body.String() != want || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("status %d, header %v:\n%s\nwant:\n%s", w.Code, w.Header(), w.Body, want)
	}
}

func TestLiveAndReadyOfEveryKindOfHealth(t *testing.T) {
	at := time.Now()
	for name, c := range map[string]struct {
		h                     guard.Health
		live, liveDetail      string
		ready, unreadyBecause string
	}{
		"fresh": {h: guard.Health{Authority: guard.AuthorityHealth{Answering: true}}},
		"denied": {h: guard.Health{
			Authority: guard.AuthorityHealth{Answering: true, LastAnswer: at}, OrganisationDenied: guard.CodeOrgDisabled,
			Refused: map[guard.Code]int{guard.CodeOrgDisabled: 9},
		}},
		"failing": {
			h:     guard.Health{At: at, StopBound: 13 * time.Second, Authority: guard.AuthorityHealth{LastFailure: at.Add(-time.Second), FailingSince: at.Add(-time.Minute)}},
			ready: "SYSTEM_UNAVAILABLE", unreadyBecause: "guard: authority unavailable for 1m0s",
		},
		"failed long ago": {h: guard.Health{At: at, StopBound: 13 * time.Second, Authority: guard.AuthorityHealth{Slots: 48, LastFailure: at.Add(-14 * time.Second), FailingSince: at.Add(-time.Minute)}}},
		"draining": {
			h:     guard.Health{Closed: true, Runs: 1, Authority: guard.AuthorityHealth{Answering: true}},
			ready: "GUARD_CLOSED", unreadyBecause: "guard: closed",
		},
		"stopping": {
			h:     guard.Health{Closed: true, Stopping: 1, Authority: guard.AuthorityHealth{Answering: true}},
			ready: "GUARD_CLOSED", unreadyBecause: "guard: closed",
		},
		"closed": {
			h:    guard.Health{Closed: true, Authority: guard.AuthorityHealth{Answering: true}},
			live: "GUARD_CLOSED", liveDetail: "guard: closed, and nothing is in flight any more",
			ready: "GUARD_CLOSED", unreadyBecause: "guard: closed",
		},
		"stuck": {
			h:    guard.Health{Behind: 14 * time.Second, StopBound: 13 * time.Second, Authority: guard.AuthorityHealth{Answering: true}},
			live: "GUARD_STUCK", liveDetail: "guard: its timer is 14s late",
		},
		"late": {h: guard.Health{Behind: 12 * time.Second, StopBound: 13 * time.Second, Authority: guard.AuthorityHealth{Answering: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			wantProbe(t, httpmw.Live(fixedHealth(c.h)), c.live, c.liveDetail)
			wantProbe(t, httpmw.Ready(fixedHealth(c.h)), c.ready, c.unreadyBecause)
		})
	}
}

// The whole way of a server: it comes up, its authority goes and comes back, it drains and is over. Neither probe
// ever asks the authority.
func TestLiveAndReadyThroughTheLifeOfAServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := guardtest.NewValidator()
		g, err := guard.New(v)
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		live, ready := httpmw.Live(g), httpmw.Ready(g)
		asked := 0
		want := func(liveCode, readyCode, because string) {
			t.Helper()
			wantProbe(t, ready, readyCode, because)
			if liveCode != "" {
				wantProbe(t, live, liveCode, because+", and nothing is in flight any more")
			} else {
				wantProbe(t, live, "", "")
			}
			if n := len(v.Calls()); n != asked {
				t.Errorf("the authority was asked %d times, want %d", n, asked)
			}
		}
		run := func(f func(context.Context) error) {
			_ = g.Run(t.Context(), device, f)
			asked = len(v.Calls())
		}
		nothing := func(context.Context) error { return nil }
		want("", "", "")
		run(nothing)
		want("", "", "")
		v.Always(device, guardtest.Reply(guard.Decision{}, errors.New("connection refused")))
		run(nothing)
		time.Sleep(1500 * time.Millisecond)
		want("", "SYSTEM_UNAVAILABLE", "guard: authority unavailable for 1.5s")
		time.Sleep(g.StopBound())
		want("", "", "")
		v.Deny(device, guard.CodeOrgDisabled)
		run(nothing)
		want("", "", "")
		v.Allow(device)
		run(func(context.Context) error {
			asked = len(v.Calls())
			_ = g.Close()
			want("", "GUARD_CLOSED", "guard: closed")
			return nil
		})
		want("GUARD_CLOSED", "GUARD_CLOSED", "guard: closed")
	})
}

func TestHealthHandlersAnswerGETAndHEADAlone(t *testing.T) {
	g, _ := newGuard(t)
	for name, h := range map[string]http.Handler{"Live": httpmw.Live(g), "Ready": httpmw.Ready(g), "Debug": httpmw.Debug(g)} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			if w := ask(t, h, method, "/"); w.Code != http.StatusOK {
				t.Errorf("%s: %s: status %d", name, method, w.Code)
			}
		}
		for _, method := range []string{http.MethodPost, http.MethodDelete, http.MethodOptions} {
			if w := ask(t, h, method, "/"); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
				t.Errorf("%s: %s: status %d, header %v", name, method, w.Code, w.Header())
			}
		}
	}
}

func TestHealthHandlersOfNobodyPanicAtOnce(t *testing.T) {
	for name, f := range map[string]func(){
		"Live: the Guard is nil":  func() { httpmw.Live(nil) },
		"Ready: the Guard is nil": func() { httpmw.Ready((*guard.Guard)(nil)) },
		"Debug: the Guard is nil": func() { httpmw.Debug((*guard.Guard)(nil)) },
	} {
		func() {
			defer func() {
				if p := fmt.Sprint(recover()); p != "httpmw: "+name {
					t.Errorf("panicked with %s, want %s", p, name)
				}
			}()
			f()
		}()
	}
}

// The paragraph that a problem's type leads to is there, and names each code that it explains.
func TestUnhealthyIsExplained(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "httpmw.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(file.Doc.Text(), "# Unhealthy\n")
	for _, word := range []string{"GUARD_CLOSED", "SYSTEM_UNAVAILABLE", "GUARD_STUCK"} {
		if !strings.Contains(text, word) {
			t.Errorf("paragraph found %t: %s is not explained", found, word)
		}
	}
}

// fleet is a guard that knows so many devices: d00000, d00001 and so on, in another order each time.
type fleet struct {
	devices int
	looks   atomic.Int64
}

func (*fleet) Health() guard.Health { return guard.Health{Runs: 7, Refused: map[guard.Code]int{}} }

func (f *fleet) Devices() iter.Seq[guard.DeviceHealth] {
	return func(yield func(guard.DeviceHealth) bool) {
		turn := int(f.looks.Add(1))
		for i := range f.devices {
			if !yield(guard.DeviceHealth{DeviceID: id((i*7919 + turn) % f.devices), Runs: 1}) {
				return
			}
		}
	}
}

func id(i int) string { return fmt.Sprintf("d%05d", i) }

type page struct {
	Health  guard.Health
	Devices []guard.DeviceHealth
	Next    string
}

func debug(t testing.TB, h http.Handler, query string) (p page) {
	t.Helper()
	w := ask(t, h, http.MethodGet, "/debug?"+query)
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("%s: %v, status %d, header %v: %.200s", query, err, w.Code, w.Header(), w.Body)
	}
	return p
}

// Page after page shows each device once, sorted, and never more than was asked for.
func TestDebugShowsEveryDevicePageByPage(t *testing.T) {
	for _, devices := range []int{0, 1, 999, 1000, 1001, 5003, 20_003} {
		for _, limit := range []int{0, 1, 7, 1000, 10_000} {
			if limit > 0 && devices/limit > 200 {
				continue
			}
			h, query, most, seen := httpmw.Debug(&fleet{devices: devices}), "", 1000, 0
			if limit > 0 {
				query, most = fmt.Sprintf("limit=%d", limit), limit
			}
			for {
				p := debug(t, h, query)
				if p.Health.Runs != 7 || p.Devices == nil || len(p.Devices) > most {
					t.Fatalf("%d devices, %q: %+v, %d devices", devices, query, p.Health, len(p.Devices))
				}
				for _, d := range p.Devices {
					if d.DeviceID != id(seen) {
						t.Fatalf("%d devices, %q: %q, want %q", devices, query, d.DeviceID, id(seen))
					}
					seen++
				}
				if query = p.Next; query == "" {
					break
				}
				if len(p.Devices) != most {
					t.Fatalf("a page of %d, and another follows", len(p.Devices))
				}
			}
			if seen != devices {
				t.Errorf("%d devices, limit %d: seen %d", devices, limit, seen)
			}
		}
	}
}

func TestDebugOfOneDevice(t *testing.T) {
	h := httpmw.Debug(&fleet{devices: 3000})
	if p := debug(t, h, "device=d02999"); len(p.Devices) != 1 || p.Devices[0].DeviceID != "d02999" || p.Next != "" {
		t.Errorf("%+v", p)
	}
	for _, query := range []string{"device=d03000", "device=", "device=d02999&after=d02999", "after=d02999"} {
		if p := debug(t, h, query); len(p.Devices) != 0 || p.Next != "" {
			t.Errorf("%s: %+v", query, p)
		}
	}
}

func TestDebugRefusesLimitsThatAreNone(t *testing.T) {
	h := httpmw.Debug(&fleet{devices: 3})
	for _, limit := range []string{"0", "-1", "10001", "x", "1e3", "<script>"} {
		w := ask(t, h, http.MethodGet, "/?limit="+limit)
		if w.Code != http.StatusBadRequest || strings.Contains(w.Body.String(), "<") || !strings.Contains(w.Body.String(), "between 1 and 10000") {
			t.Errorf("limit %s: status %d: %s", limit, w.Code, w.Body)
		}
	}
}

// Ids are the clients' own: whatever they hold goes through the pages unharmed, and does no harm.
func TestDebugOfStrangeIds(t *testing.T) {
	g, v := newGuard(t)
	ids := []string{"&after=x", "ü\u2028", `"><script>`, "a b", "%41", "+"}
	ctx, cancel := context.WithCancel(t.Context())
	began, ended := make(chan bool), make(chan error)
	for _, id := range ids {
		v.Allow(id)
		go func() {
			ended <- g.Run(ctx, id, func(ctx context.Context) error {
				began <- true
				<-ctx.Done()
				return nil
			})
		}()
		await(t, "a run", began)
	}
	slices.Sort(ids)
	var seen []string
	for query := "limit=1"; query != ""; {
		p := debug(t, httpmw.Debug(g), query)
		for _, d := range p.Devices {
			seen = append(seen, d.DeviceID)
			if d.Runs != 1 || d.PermissionAge <= 0 || d.StopLine.Before(time.Now()) || d.RequestID == "" {
				t.Errorf("%+v", d)
			}
		}
		if query = p.Next; p.Health.Runs != len(ids) || !p.Health.Authority.Answering {
			t.Errorf("%+v", p.Health)
		}
	}
	if !slices.Equal(seen, ids) {
		t.Errorf("seen %q, want %q", seen, ids)
	}
	cancel()
	for range ids {
		if err := await(t, "the end of a run", ended); err != nil {
			t.Error(err)
		}
	}
}

// Where the probes of a server stand, and the door before the third.
func ExampleReady() {
	g, err := guard.New(guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) {
		return guard.Decision{}, errors.New("connection refused")
	}))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()

	public := http.NewServeMux()
	public.Handle("/livez", httpmw.Live(g))
	public.Handle("/readyz", httpmw.Ready(g))
	private := http.NewServeMux() // for a port that only operators reach
	private.Handle("/debug/guard", httpmw.Debug(g))

	look := func(mux http.Handler, path string) {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), http.MethodGet, path, nil))
		fmt.Println(path, w.Code)
	}
	look(public, "/readyz")
	_ = g.Run(context.Background(), "worker:prod:mailer:01", func(context.Context) error { return nil })
	look(public, "/readyz")
	look(public, "/livez")
	look(private, "/debug/guard")
	// Output:
	// /readyz 200
	// /readyz 503
	// /livez 200
	// /debug/guard 200
}

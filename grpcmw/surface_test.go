package grpcmw_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
	"github.com/execguard/execguard/httpmw"
)

// word is one answer of the authority's, and what the two adapters make of it: before the start, and
// while the call runs.
type word struct {
	sent   guard.Code // beside Allowed == false; "": the guard is closed instead
	says   guard.Code
	http   [2]int
	grpc   [2]codes.Code
	invite bool // to try again, where it has not begun

	by   string              // the client of a service whose own word it was; "": the authority said it just so
	ask  guard.ValidatorFunc // that client, being told so
	from string              // the request id that the service gives
}

// words are every guard.Code, one that nobody knows, and the guard's own end.
var words = func() []word {
	all := []word{
		{sent: "SYSTEM_UNAVAILABLE", says: "SYSTEM_UNAVAILABLE", http: unsure, grpc: unsureGRPC, invite: true},
		{sent: "ALLOW", says: "SYSTEM_UNAVAILABLE", http: unsure, grpc: unsureGRPC, invite: true}, // S2: a contradiction
		{sent: "INVALID_DEVICE_ID", says: "INVALID_DEVICE_ID", http: [2]int{400, 403}, grpc: [2]codes.Code{codes.InvalidArgument, codes.PermissionDenied}},
		{says: "GUARD_CLOSED", http: unsure, grpc: unsureGRPC, invite: true},
	}
	for _, code := range []guard.Code{
		"ORG_DISABLED", "PLAN_FROZEN", "PLAN_NOT_ACTIVE", "ENTITLEMENT_EXPIRED", "DEVICE_REVOKED", "DEVICE_NOT_FOUND",
		"ORG_NOT_FOUND", "INVALID_ORG_KEY", "A_CODE_OF_TOMORROW",
	} {
		all = append(all, word{sent: code, says: code, http: refusal, grpc: refusalGRPC})
	}
	return append(all, wordsOfServices()...)
}()

// What is made of a no, and of «could not ask»: before the start, and while the call runs.
var (
	refusal, unsure         = [2]int{403, 403}, [2]int{503, 503}
	refusalGRPC, unsureGRPC = [2]codes.Code{codes.PermissionDenied, codes.PermissionDenied}, [2]codes.Code{codes.Unavailable, codes.Aborted}
)

// TestEveryCodeOnEverySurface has one denial meet every surface that there is, before the start and
// while the call runs, and finds the same code and the same request id on each.
func TestEveryCodeOnEverySurface(t *testing.T) {
	for _, code := range declaredCodes(t) {
		if !slices.ContainsFunc(words, func(w word) bool { return w.sent == code }) {
			t.Errorf("the table lacks %s", code)
		}
	}
	for _, w := range words {
		t.Run(fmt.Sprintf("%s before the start", w), func(t *testing.T) {
			s := newScene(t)
			s.say(w, "start")
			s.judge(w, "start", s.callAll())
			if n := len(s.inside); n > 0 {
				t.Errorf("%d functions were called", n)
			}
		})
		t.Run(fmt.Sprintf("%s while it runs", w), func(t *testing.T) {
			s := newScene(t)
			found := later(s.callAll)
			for range surfaces {
				within(t, s.inside, "all functions are called")
			}
			s.say(w, "run")
			s.judge(w, "run", within(t, found, "all calls end"))
		})
	}
}

func (w word) String() string {
	switch {
	case w.by != "":
		return w.by
	case w.sent == "":
		return string(w.says)
	}
	return string(w.sent)
}

// declaredCodes are the constants of type Code as they stand in package guard.
func declaredCodes(t *testing.T) (found []guard.Code) {
	t.Helper()
	for _, text := range constants(t, "../guard", "Code") {
		found = append(found, guard.Code(text))
	}
	if len(found) < 11 {
		t.Fatalf("code.go declares only %v", found)
	}
	return found
}

// constants are the string constants of a type in a package's code.go.
func constants(t *testing.T, dir, kind string) (found []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), dir+"/code.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for n := range ast.Preorder(file) {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			continue
		}
		if is, ok := spec.Type.(*ast.Ident); ok && is.Name == kind {
			value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, value)
		}
	}
	return found
}

// finding is what one surface tells. What it has no room for is zero.
type finding struct {
	surface   string
	code      guard.Code
	requestID string
	phase     string
	http      int
	grpc      codes.Code
	retry     time.Duration // what the other side is told
}

// surfaces are the ways to be refused or stopped. Each makes a call that lasts until then.
var surfaces = []struct {
	name string
	call func(s *scene) []finding
}{
	{"httpmw.New", func(s *scene) []finding { return []finding{s.get()} }},
	{"httpmw.Transport", func(s *scene) []finding {
		r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.bare.URL, nil)
		if err != nil {
			s.t.Fatal(err)
		}
		resp, err := s.client.Do(r)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		return []finding{inProcess("httpmw.Transport", err)}
	}},
	{"UnaryServer", func(s *scene) []finding {
		_, err := call(s.t.Context(), s.guardedServer, "")
		return s.onWire("UnaryServer", err)
	}},
	{"StreamServer", func(s *scene) []finding { return s.onWire("StreamServer", lasts(s, s.guardedServer)) }},
	{"UnaryClient", func(s *scene) []finding {
		_, err := call(s.t.Context(), s.guardedClient, "")
		return append(s.onWire("UnaryClient", err), inProcess("UnaryClient's error", err))
	}},
	{"StreamClient", func(s *scene) []finding {
		err := lasts(s, s.guardedClient)
		return append(s.onWire("StreamClient", err), inProcess("StreamClient's error", err))
	}},
	{"Run", func(s *scene) []finding {
		return []finding{inProcess("Run", s.Run(s.t.Context(), device, s.hold))}
	}},
}

// lasts opens a stream and returns what ends it.
func lasts(s *scene, conn *grpc.ClientConn) error {
	stream, err := open(s.t.Context(), conn, both)
	if err != nil {
		return err
	}
	return stream.RecvMsg(new(message))
}

// scene is one guard and everything that can stand under it.
type scene struct {
	authority

	t                            *testing.T
	inside                       chan struct{}
	bare, http                   *httptest.Server
	client                       *http.Client // guarded, of the bare server
	guardedServer, guardedClient *grpc.ClientConn

	causes chan finding
}

func newScene(t *testing.T) *scene {
	t.Helper()
	// Only the watch's own question stops work where the authority could not be asked, so it comes soon.
	s := &scene{authority: newAuthority(t, guard.WithInterval(100*time.Millisecond)), t: t, inside: make(chan struct{}, 16), causes: make(chan finding, 16)}
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _ = s.hold(r.Context()) })
	s.bare, s.http = httptest.NewServer(handler), httptest.NewServer(httpmw.New(s, httpmw.Fixed(device))(handler))
	s.client = &http.Client{Transport: httpmw.Transport(s, httpmw.Fixed(device), s.bare.Client().Transport)}
	t.Cleanup(s.bare.Close)
	t.Cleanup(s.http.Close)
	c := calls{
		unary:  func(ctx context.Context, in *message) (*message, error) { return in, s.hold(ctx) },
		stream: func(ss grpc.ServerStream) error { return s.hold(ss.Context()) },
	}
	s.guardedServer = dial(t, serve(t, c, guarded(s, grpcmw.Fixed(device))...))
	s.guardedClient = dial(t, serve(t, c), guarding(s, grpcmw.Fixed(device))...)
	return s
}

// hold is every function under the guard, and every server behind a guarded client.
func (s *scene) hold(ctx context.Context) error {
	s.inside <- struct{}{}
	<-ctx.Done()
	if _, ours := guard.DecisionFrom(ctx); ours {
		s.causes <- inProcess("context.Cause", context.Cause(ctx))
	}
	return ctx.Err()
}

// wait is the authority's RetryAfter, which is not the adapters' own.
const wait = 7 * time.Second

// say has the authority say the word from now on, to whoever asks.
func (s *scene) say(w word, phase string) {
	switch {
	case w.ask != nil:
		s.script.Always(device, w.ask)
		return
	case w.sent == "":
		s.Close()
		return
	}
	d := guard.Decision{Code: w.sent, DeviceID: device, RequestID: requestID(w, phase), Reason: "secret", RetryAfter: wait}
	s.script.Always(device, guardtest.Reply(d, nil))
}

func requestID(w word, phase string) string {
	if w.sent == "" || w.ask != nil {
		return w.from
	}
	return string(w.sent) + " at the " + phase
}

// callAll makes all calls side by side, so that one denial ends them all.
func (s *scene) callAll() (found []finding) {
	seen := make(chan []finding)
	for _, surface := range surfaces {
		go func() { seen <- surface.call(s) }()
	}
	for range surfaces {
		found = append(found, <-seen...)
	}
	return found
}

func (s *scene) get() finding {
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.http.URL, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := s.http.Client().Do(r)
	if err != nil {
		s.t.Error(err)
		return finding{}
	}
	defer resp.Body.Close()
	var p struct {
		Status    int
		Code      guard.Code
		RequestID string `json:"request_id"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || p.Status != resp.StatusCode {
		s.t.Errorf("problem %+v of an answer with %d, %v", p, resp.StatusCode, err)
	}
	f := finding{surface: "httpmw.New", code: p.Code, requestID: p.RequestID, http: resp.StatusCode}
	if h := resp.Header.Get("Retry-After"); h != "" {
		seconds, err := strconv.Atoi(h)
		if err != nil {
			s.t.Error(err)
		}
		f.retry = time.Duration(seconds) * time.Second
	}
	return f
}

// onWire is what a client can read: the status, and what FromError makes of it.
func (s *scene) onWire(name string, err error) []finding {
	if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), "secret") {
		s.t.Errorf("%s tells too much: %v", name, err)
	}
	w := read(s.t, err)
	status := finding{
		surface: name, code: guard.Code(w.reason), requestID: w.requestID, phase: w.phase, grpc: w.code, retry: max(w.retry, 0),
	}
	denied, ok := grpcmw.FromError(err)
	if !ok {
		return []finding{status}
	}
	again := finding{surface: name + ", FromError", code: denied.Decision.Code, requestID: denied.Decision.RequestID, phase: "start"}
	if denied.InFlight {
		again.phase = "run"
	}
	if denied.DeviceID == "" { // it came over the wire
		again.retry = denied.Decision.RetryAfter
	}
	return []finding{status, again}
}

// inProcess is what errors.As finds where the guard is.
func inProcess(name string, err error) finding {
	f := finding{surface: name}
	denied := (*guard.DeniedError)(nil)
	switch {
	case errors.As(err, &denied):
		f.code, f.requestID, f.phase = denied.Decision.Code, denied.Decision.RequestID, "start"
		if denied.InFlight {
			f.phase = "run"
		}
	case errors.Is(err, guard.ErrClosed):
		f.code = "GUARD_CLOSED"
	}
	return f
}

// judge holds what was found against the word.
func (s *scene) judge(w word, phase string, found []finding) {
	s.t.Helper()
	want := s.expected(w, phase)
	for _, f := range want {
		if f.surface == "context.Cause" { // a stream's handler may return after its call
			found = append(found, within(s.t, s.causes, "all functions end"))
		}
	}
	for _, f := range found {
		i := slices.Index(want, f)
		if i < 0 {
			s.t.Errorf("found    %+v\nexpected %+v", f, want)
			continue
		}
		want = slices.Delete(want, i, i+1)
	}
	if len(want) > 0 {
		s.t.Errorf("not found: %+v", want)
	}
}

// expected is all that is to be found, and nothing else.
func (s *scene) expected(w word, phase string) (want []finding) {
	at, invited := 0, time.Duration(0)
	if phase == "run" {
		at = 1
	} else if w.invite {
		invited = wait
		if w.sent == "" {
			invited = 5 * time.Second // nobody has said how long
		}
	}
	add := func(name string, f finding) {
		f.surface, f.code, f.requestID = name, w.says, requestID(w, phase)
		want = append(want, f)
	}
	add("httpmw.New", finding{http: w.http[at], retry: invited})
	local := phase // the guard's end has no phase in process
	if w.sent == "" {
		local = ""
	}
	for _, name := range []string{"httpmw.Transport", "Run", "UnaryClient's error", "StreamClient's error"} {
		add(name, finding{phase: local})
	}
	for _, name := range []string{"UnaryServer", "StreamServer", "UnaryClient", "StreamClient"} {
		add(name, finding{phase: phase, grpc: w.grpc[at], retry: invited})
		if w.sent == "" {
			continue // no denial
		}
		told := finding{phase: phase}
		if strings.HasSuffix(name, "Server") {
			told.retry = invited
		}
		add(name+", FromError", told)
	}
	for range 4 * at { // of httpmw.New, UnaryServer, StreamServer and Run
		add("context.Cause", finding{phase: local})
	}
	return want
}

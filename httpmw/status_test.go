package httpmw_test

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
	"github.com/execguard/execguard/httpmw"
)

// soon is the interval of a guard whose own watch is to find out: only that one learns by being asked
// that the authority cannot be (S3).
const soon = 20 * time.Millisecond

// answers is what each code is answered with before the start, and while the handler runs.
var answers = []struct {
	code           guard.Code
	before, during int
}{
	{guard.CodeOrgDisabled, 403, 403},
	{guard.CodeSystemUnavailable, 503, 503},
	{guard.CodePlanFrozen, 403, 403},
	{guard.CodePlanNotActive, 403, 403},
	{guard.CodeEntitlementExpired, 403, 403},
	{guard.CodeDeviceRevoked, 403, 403},
	{guard.CodeDeviceNotFound, 403, 403},
	{guard.CodeOrgNotFound, 403, 403},
	{guard.CodeInvalidOrgKey, 403, 403},
	{guard.CodeInvalidDeviceID, 400, 403},
	{"A_CODE_OF_THE_FUTURE", 403, 403}, // S2: a deny code stands, known or not
	{"NO_IDENTITY", 403, 403},          // said by an authority these are codes like any other
	{"GUARD_CLOSED", 403, 403},
	{"\x00 \"<>\r\nX: y", 403, 403},
}

// A code that is added to the guard's has to be thought of here.
func TestEveryCodeHasAnAnswer(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../guard/code.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	known := map[guard.Code]bool{guard.CodeAllow: true}
	for _, a := range answers {
		known[a.code] = true
	}
	found := 0
	ast.Inspect(file, func(n ast.Node) bool {
		if of, ok := n.(*ast.ValueSpec); ok {
			text, err := strconv.Unquote(of.Values[0].(*ast.BasicLit).Value)
			if found++; err != nil || !known[guard.Code(text)] {
				t.Errorf("%s is answered with nothing here (%v)", of.Names[0], err)
			}
		}
		return true
	})
	if found < 11 {
		t.Errorf("found %d codes", found)
	}
}

// Every code before the start: the handler is not called, and the client learns the code and the
// authority's request id.
func TestEveryCodeBeforeTheStart(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		g, v := newGuard(t)
		url, c := serve(t, p, guarded(g, uncalled(t)))
		for _, a := range answers {
			v.Deny(device, a.code)
			resp, _ := send(t, c, request(t, http.MethodGet, url, nil))
			wantLatest(t, v, problem(t, resp.Response, a.before, string(a.code)))
			wantRetryAfter(t, resp, map[bool]string{true: "5"}[a.before == 503])
		}
	})
}

// wantLatest wants p to have the request id of the authority's last answer.
func wantLatest(t testing.TB, v *guardtest.Validator, p httpmw.Problem) {
	t.Helper()
	calls := v.Calls()
	if want := calls[len(calls)-1].Decision.RequestID; want == "" || p.RequestID != want {
		t.Errorf("%s: request_id = %q, want %q", p.Code, p.RequestID, want)
	}
}

// Every code while the handler runs: the context's cause, the answer and the authority name the same
// code and request id. No answer invites the client to come again: work was begun.
func TestEveryCodeWhileTheHandlerRuns(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		g, v := newGuard(t, guard.WithInterval(soon))
		causes := make(chan error, 1)
		url, c := serve(t, p, guarded(g, func(_ http.ResponseWriter, r *http.Request) {
			v.Deny(device, guard.Code(r.Header.Get("X-Code")))
			<-r.Context().Done()
			causes <- context.Cause(r.Context())
		}))
		for _, a := range answers {
			if a.code[0] == 0 {
				continue // cannot be told in a header
			}
			v.Allow(device)
			resp, _ := send(t, c, request(t, http.MethodGet, url, nil, "X-Code", string(a.code)))
			got := problem(t, resp.Response, a.during, string(a.code))
			wantLatest(t, v, got)
			wantRetryAfter(t, resp, "")
			cause := <-causes
			wantDenied(t, cause, a.code)
			if denied := (*guard.DeniedError)(nil); !errors.As(cause, &denied) || denied.Decision.RequestID != got.RequestID {
				t.Errorf("cause = %v, want request %s", cause, got.RequestID)
			}
		}
	})
}

// S2: what is not a well-formed answer is «could not ask».
func TestEveryContradictionIsUnavailable(t *testing.T) {
	for name, reply := range map[string]guard.ValidatorFunc{
		"refused with ALLOW":     guardtest.Reply(guard.Decision{Code: guard.CodeAllow}, nil),
		"allowed with a no":      guardtest.Reply(guard.Decision{Allowed: true, Code: guard.CodeDeviceRevoked}, nil),
		"allowed, unknown code":  guardtest.Reply(guard.Decision{Allowed: true, Code: "FINE"}, nil),
		"allowed without a code": guardtest.Reply(guard.Decision{Allowed: true}, nil),
		"nothing":                guardtest.Reply(guard.Decision{}, nil),
		"an error":               guardtest.Reply(guard.Decision{}, errors.New("secret")),
		"ALLOW with an error":    guardtest.Reply(guard.Decision{Allowed: true, Code: guard.CodeAllow}, errors.New("secret")),
		"another device":         guardtest.Reply(guard.Decision{Allowed: true, Code: guard.CodeAllow, DeviceID: "other"}, nil),
		"a panic":                guardtest.Panic("secret"),
		"Goexit":                 guardtest.Goexit(),
	} {
		t.Run(name, func(t *testing.T) {
			g, v := newGuard(t)
			v.Always(device, reply)
			resp := record(guarded(g, uncalled(t)), incoming(t))
			problem(t, resp.Response, http.StatusServiceUnavailable, "SYSTEM_UNAVAILABLE")
			wantRetryAfter(t, resp, "5")
		})
	}
}

// A deny code beside an error still stands: the answer goes by the code, not by the error.
func TestDenyCodeBesideAnErrorStands(t *testing.T) {
	g, v := newGuard(t)
	v.Always(device, guardtest.Reply(guard.Decision{Code: guard.CodeDeviceRevoked, RequestID: "r"}, guard.ErrUnavailable))
	resp := record(guarded(g, uncalled(t)), incoming(t))
	if p := problem(t, resp.Response, http.StatusForbidden, "DEVICE_REVOKED"); p.RequestID != "r" {
		t.Errorf("request_id = %q", p.RequestID)
	}
	wantRetryAfter(t, resp, "")
}

// A handler that was called and whose guard is closed has begun its work.
func TestClosedWhileTheHandlerRuns(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		g, _ := newGuard(t)
		causes := make(chan error, 1)
		url, c := serve(t, p, guarded(g, func(_ http.ResponseWriter, r *http.Request) {
			_ = g.Close()
			<-r.Context().Done()
			causes <- context.Cause(r.Context())
		}))
		resp, _ := send(t, c, request(t, http.MethodGet, url, nil))
		problem(t, resp.Response, http.StatusServiceUnavailable, "GUARD_CLOSED")
		wantRetryAfter(t, resp, "")
		if cause := <-causes; !errors.Is(cause, guard.ErrClosed) {
			t.Errorf("cause = %v", cause)
		}
	})
}

// A blank id is refused unasked (S2), and an id is handed on as it is.
func TestBlankDeviceIsInvalid(t *testing.T) {
	for _, id := range []string{"", " ", "\t\n", "\u00a0"} {
		g, v := newGuard(t)
		resp := record(httpmw.New(g, httpmw.Fixed(id))(uncalled(t)), incoming(t))
		problem(t, resp.Response, http.StatusBadRequest, "INVALID_DEVICE_ID")
		wantRetryAfter(t, resp, "")
		if n := len(v.Calls()); n != 0 {
			t.Errorf("%q: asked %d times", id, n)
		}
	}
}

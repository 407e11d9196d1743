package httpmw_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/doc"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
	"github.com/execguard/execguard/httpmw"
)

// denial is a guard's error as a Runner of one's own can make it.
func denial(code guard.Code, d time.Duration, inFlight bool) error {
	return &guard.DeniedError{DeviceID: device, InFlight: inFlight, Decision: guard.Decision{
		Code: code, RequestID: "req-7", Reason: "secret reason", RetryAfter: d,
	}}
}

// RFC 9457: the members that are promised, these only, and their types.
func TestProblemOnTheWire(t *testing.T) {
	h := httpmw.New(refusing(denial(guard.CodeDeviceRevoked, 0, false)), httpmw.Fixed(device))(uncalled(t))
	resp := record(h, incoming(t))
	text, _ := io.ReadAll(resp.Body)
	want := `{"type":"https://pkg.go.dev/github.com/execguard/execguard/httpmw#hdr-Denied",` +
		`"title":"The device may not execute","status":403,"code":"DEVICE_REVOKED","request_id":"req-7"}`
	if string(text) != want {
		t.Errorf("answer:\n%s\nwant:\n%s", text, want)
	}
	names := slices.Sorted(maps.Keys(resp.Header))
	if !slices.Equal(names, []string{"Cache-Control", "Content-Length", "Content-Type"}) {
		t.Errorf("header: %v", resp.Header)
	}
	if got := resp.Header.Get("Content-Length"); got != strconv.Itoa(len(text)) {
		t.Errorf("Content-Length = %s, want %d", got, len(text))
	}
}

// An authority without request ids has its decisions answered with an empty one: it is never made up.
func TestRequestIDIsTheAuthoritys(t *testing.T) {
	for _, id := range []string{"", "r-1", `"><script>`, "é\u2028\xff"} {
		g, v := newGuard(t)
		v.Always(device, guardtest.Reply(guard.Decision{Code: guard.CodeDeviceRevoked, RequestID: id}, nil))
		p := problem(t, record(guarded(g, uncalled(t)), incoming(t)).Response, http.StatusForbidden, "DEVICE_REVOKED")
		if want := strings.ToValidUTF8(id, "\ufffd"); p.RequestID != want {
			t.Errorf("request_id = %q, want %q", p.RequestID, want)
		}
	}
}

// Retry-After goes in whole seconds, up: nobody is asked to come too early.
func TestRetryAfter(t *testing.T) {
	closed := fmt.Errorf("wrapped: %w", guard.ErrClosed)
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"not said":                {denial(guard.CodeSystemUnavailable, 0, false), "5"},
		"negative":                {denial(guard.CodeSystemUnavailable, -time.Second, false), "5"},
		"a nanosecond":            {denial(guard.CodeSystemUnavailable, 1, false), "1"},
		"a second":                {denial(guard.CodeSystemUnavailable, time.Second, false), "1"},
		"a little more":           {denial(guard.CodeSystemUnavailable, time.Second+1, false), "2"},
		"less than the default":   {denial(guard.CodeSystemUnavailable, 2*time.Second, false), "2"},
		"a day":                   {denial(guard.CodeSystemUnavailable, 24*time.Hour, false), "86400"},
		"beyond all bounds":       {denial(guard.CodeSystemUnavailable, math.MaxInt64, false), "9223372037"},
		"of a denial":             {denial(guard.CodeDeviceRevoked, time.Minute, false), ""},
		"of an id":                {denial(guard.CodeInvalidDeviceID, time.Minute, false), ""},
		"of an outer run":         {denial(guard.CodeSystemUnavailable, time.Minute, true), ""},
		"closed":                  {closed, "5"},
		"closed, and unavailable": {errors.Join(closed, denial(guard.CodeSystemUnavailable, time.Minute, false)), "60"},
		"nothing at all":          {nil, "5"},
	} {
		t.Run(name, func(t *testing.T) {
			var seen time.Duration
			h := httpmw.New(refusing(test.err), httpmw.Fixed(device), httpmw.WithAnswer(
				func(_ http.ResponseWriter, _ *http.Request, p httpmw.Problem) { seen = p.RetryAfter }))(uncalled(t))
			resp := record(h, incoming(t))
			wantRetryAfter(t, resp, test.want)
			if (seen > 0) != (test.want != "") {
				t.Errorf("Problem.RetryAfter = %v", seen)
			}
		})
	}
}

// What the authority says goes through the guard to the client.
func TestRetryAfterOfTheAuthority(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		g, v := newGuard(t)
		url, c := serve(t, p, guarded(g, uncalled(t)))
		v.Always(device, guardtest.Reply(guard.Decision{Code: guard.CodeSystemUnavailable, RetryAfter: 61500 * time.Millisecond}, nil))
		resp, _ := send(t, c, request(t, http.MethodGet, url, nil))
		problem(t, resp.Response, http.StatusServiceUnavailable, "SYSTEM_UNAVAILABLE")
		wantRetryAfter(t, resp, "62")
	})
}

// A stop has no Retry-After, whatever the authority says.
func TestNoRetryAfterWhileTheHandlerRan(t *testing.T) {
	for _, err := range []error{
		denial(guard.CodeSystemUnavailable, time.Minute, true),
		denial(guard.CodeSystemUnavailable, time.Minute, false), // of a Runner that says it wrongly
		guard.ErrClosed,
		errors.New("secret"),
	} {
		r := ownRunner(func(ctx context.Context, _ string, fn func(context.Context) error) error {
			_ = fn(ctx)
			return err
		})
		resp := record(httpmw.New(r, httpmw.Fixed(device))(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), incoming(t))
		if resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%v: status %d", err, resp.StatusCode)
		}
		wantRetryAfter(t, resp, "")
	}
}

// The address that is a problem's type leads to a heading of the package's documentation.
func TestTypeLeadsToTheDocumentation(t *testing.T) {
	headings := headingsOf(t, "httpmw.go")
	seen := map[string]int{}
	for _, r := range []guard.Runner{
		refusing(denial(guard.CodeDeviceRevoked, 0, false)), refusing(denial(guard.CodeInvalidDeviceID, 0, false)),
		refusing(denial(guard.CodeSystemUnavailable, 0, false)), refusing(guard.ErrClosed), nil,
	} {
		from := httpmw.Fixed(device)
		if r == nil {
			r, from = allowing(), httpmw.FromHeader("X-Device")
		}
		var p httpmw.Problem
		_ = json.NewDecoder(record(httpmw.New(r, from)(uncalled(t)), incoming(t)).Body).Decode(&p)
		page, fragment, _ := strings.Cut(p.Type, "#")
		if text, ok := headings[fragment]; !ok || page != "https://pkg.go.dev/github.com/execguard/execguard/httpmw" {
			t.Errorf("%s: type %s, headings %v", p.Code, p.Type, headings)
		} else if !strings.Contains(text, strconv.Itoa(p.Status)+", ") || !strings.Contains(text+"the authority's code", string(p.Code)) && p.Status != 403 {
			t.Errorf("the paragraph of %d %s says %q", p.Status, p.Code, text)
		}
		seen[fragment]++
	}
	if len(seen) != 4 || seen["hdr-Undecided"] != 2 {
		t.Errorf("types: %v", seen)
	}
}

// headingsOf is what stands under each heading of the package comment in file, by the heading's anchor.
func headingsOf(t *testing.T, file string) map[string]string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var pkg doc.Package
	text, headings := map[string]string{}, ""
	for _, block := range pkg.Parser().Parse(parsed.Doc.Text()).Content {
		switch block := block.(type) {
		case *comment.Heading:
			headings = block.DefaultID()
			text[headings] = ""
		case *comment.Paragraph:
			text[headings] += string(pkg.Printer().Text(&comment.Doc{Content: []comment.Block{block}}))
		}
	}
	return text
}

// secrets are the words that stand in inner errors and must not come out.
var secrets = []string{"secret", "tok-3n", "10.0.0.7", "panic", "goroutine"}

// wantDiscreet wants nothing of an inner error in what was written for somebody else.
func wantDiscreet(t testing.TB, what, text string) {
	t.Helper()
	for _, s := range secrets {
		if strings.Contains(strings.ToLower(text), s) {
			t.Errorf("%s: %q in %s", what, s, text)
		}
	}
}

// wire is an answer as it goes over the wire.
func wire(resp reply) string {
	var b bytes.Buffer
	_ = resp.Header.Write(&b)
	_, _ = io.Copy(&b, resp.Body)
	return b.String()
}

// Nothing that an inner error says leaves the house: not the validator's, not the DeviceFunc's, not
// the authority's own reason.
func TestNoInnerTextInTheAnswer(t *testing.T) {
	secret := errors.New("secret: dial 10.0.0.7: tok-3n")
	asks := func(answer guard.ValidatorFunc) guard.Runner {
		g, v := newGuard(t)
		v.Always(device, answer)
		return g
	}
	fails := func(err error) httpmw.DeviceFunc {
		return func(*http.Request) (string, error) { return "", err }
	}
	for name, test := range map[string]struct {
		r    guard.Runner
		from httpmw.DeviceFunc
	}{
		"reason":                   {refusing(denial(guard.CodeDeviceRevoked, 0, false)), httpmw.Fixed(device)},
		"reason of unavailable":    {refusing(denial(guard.CodeSystemUnavailable, 0, false)), httpmw.Fixed(device)},
		"runner's":                 {refusing(secret), httpmw.Fixed(device)},
		"runner's, closed":         {refusing(errors.Join(guard.ErrClosed, secret)), httpmw.Fixed(device)},
		"validator's":              {asks(guardtest.Reply(guard.Decision{}, secret)), httpmw.Fixed(device)},
		"validator's beside a no":  {asks(guardtest.Reply(guard.Decision{Code: guard.CodeDeviceRevoked, Reason: "secret"}, secret)), httpmw.Fixed(device)},
		"validator's panic":        {asks(guardtest.Panic(secret)), httpmw.Fixed(device)},
		"device's":                 {allowing(), fails(secret)},
		"device's, no identity":    {allowing(), fails(fmt.Errorf("%w: %w", httpmw.ErrNoIdentity, secret))},
		"device's, unavailable":    {allowing(), fails(fmt.Errorf("%w: %w", guard.ErrUnavailable, secret))},
		"verify's":                 {allowing(), httpmw.FromBearer(func(context.Context, string) (string, error) { return "", secret })},
		"verify's, unavailable":    {allowing(), httpmw.FromBearer(func(context.Context, string) (string, error) { return "", errors.Join(guard.ErrUnavailable, secret) })},
		"verify's id and an error": {allowing(), httpmw.FromBearer(func(context.Context, string) (string, error) { return "secret", secret })},
		"the id itself, denied":    {refusing(denial(guard.CodeDeviceRevoked, 0, false)), httpmw.Fixed("secret")},
	} {
		t.Run(name, func(t *testing.T) {
			h := httpmw.New(test.r, test.from)(uncalled(t))
			wantDiscreet(t, "answer", wire(record(h, incoming(t, "Authorization", "Bearer tok-3n"))))
		})
	}
}

// The same while the handler runs, through a real guard.
func TestNoInnerTextInTheAnswerToAStop(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		g, v := newGuard(t, guard.WithInterval(soon))
		url, c := serve(t, p, guarded(g, func(_ http.ResponseWriter, r *http.Request) {
			v.Always(device, guardtest.Reply(guard.Decision{Reason: "secret"}, errors.New("secret: 10.0.0.7")))
			<-r.Context().Done()
		}))
		resp, text := send(t, c, request(t, http.MethodGet, url, nil))
		problem(t, resp.Response, http.StatusServiceUnavailable, "SYSTEM_UNAVAILABLE")
		wantDiscreet(t, "answer", text+wire(resp))
	})
}

// prepared are the fields that a handler has prepared for its own answer, and kept are those that
// whoever stands outside gives every answer. Proxies and browsers act upon some of the former whatever
// the status: the file of X-Accel-Redirect would go to the device that was just denied.
var prepared, kept = http.Header{
	"Accept-Ranges": {"bytes"}, "Age": {"1"}, "Allow": {"GET"}, "Cache-Control": {"public, max-age=99"},
	"Clear-Site-Data": {`"*"`}, "Content-Disposition": {"attachment"}, "Content-Encoding": {"gzip"},
	"Content-Language": {"fr"}, "Content-Length": {"12345"}, "Content-Location": {"/x"}, "Content-Range": {"bytes 0-1/2"},
	"Content-Type": {"text/html"}, "Digest": {"x"}, "Etag": {`"v1"`}, "Expires": {"0"}, "Hx-Redirect": {"/x"},
	"Last-Modified": {"Mon, 02 Jan 2006 15:04:05 GMT"}, "Link": {"</x>; rel=preload"}, "Location": {"/elsewhere"},
	"Pragma": {"x"}, "Refresh": {"1"}, "Retry-After": {"1"}, "Repr-Digest": {"x"}, "Set-Cookie": {"handlers=secret"},
	"Trailer": {"X-Sum"}, "Vary": {"Cookie"}, "Www-Authenticate": {"Basic"}, "X-Accel-Redirect": {"/file"},
	"X-Request-Id": {"the handler's"}, "X-Sendfile": {"/file"}, http.TrailerPrefix + "X-Late": {"secret"},
}, http.Header{
	"X-Request-Id": {"outer-1"}, "Access-Control-Allow-Origin": {"https://example.com"}, "Vary": {"Origin", "Accept"},
	"Strict-Transport-Security": {"max-age=1"}, "Set-Cookie": {"session=renewed", "csrf=new"},
}

// What a handler had prepared does not describe the answer that is sent in its place; what belongs to
// every answer of the server stays.
func TestStoppedHandlersHeaderIsDropped(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		g, v := newGuard(t)
		h := guarded(g, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Del("Strict-Transport-Security")
			w.Header().Add("Access-Control-Allow-Origin", "*")
			maps.Copy(w.Header(), prepared)
			revoke(t, g, v)
			<-r.Context().Done()
		})
		url, c := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			maps.Copy(w.Header(), kept.Clone())
			h.ServeHTTP(w, r)
		}))
		resp, text := send(t, c, request(t, http.MethodGet, url, nil))
		problem(t, resp.Response, http.StatusForbidden, "DEVICE_REVOKED")
		wantDiscreet(t, "answer", text)
		wantOnlyKept(t, resp)
	})
}

func wantOnlyKept(t *testing.T, resp reply) {
	t.Helper()
	for name, values := range kept {
		if got := resp.Header.Values(name); !slices.Equal(got, values) {
			t.Errorf("%s = %q, want %q", name, got, values)
		}
	}
	for name, values := range prepared {
		if got := resp.Header.Values(name); slices.Equal(got, values) {
			t.Errorf("%s = %q is still there", name, got)
		}
	}
	if len(resp.Trailer) != 0 {
		t.Errorf("trailer: %v", resp.Trailer)
	}
}

// A handler that was called and did nothing, or only asked for things, has its answer sent for it.
func TestHandlerThatReturnsNothingAfterADenial(t *testing.T) {
	g, v := newGuard(t)
	resp := record(guarded(g, func(w http.ResponseWriter, r *http.Request) {
		revoke(t, g, v)
		<-r.Context().Done()
		w.WriteHeader(http.StatusOK) // too late
		_, err := io.WriteString(w, "secret")
		wantDenied(t, err, guard.CodeDeviceRevoked)
	}), incoming(t))
	text, _ := io.ReadAll(resp.Body)
	wantDiscreet(t, "answer", string(text))
	resp.Body = io.NopCloser(bytes.NewReader(text))
	problem(t, resp.Response, http.StatusForbidden, "DEVICE_REVOKED")
}

// S8: a Problem's Err is for the server's own log, and is not in what goes over the wire.
func TestProblemInJSON(t *testing.T) {
	text, err := json.Marshal(httpmw.Problem{Err: errors.New("secret"), RetryAfter: time.Hour})
	if err != nil || string(text) != `{"type":"","title":"","status":0,"code":"","request_id":""}` {
		t.Errorf("%s, %v", text, err)
	}
}

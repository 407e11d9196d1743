package httpmw_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
	"github.com/execguard/execguard/httpmw"
)

// ownRunner is a guard.Runner of somebody's own.
type ownRunner func(ctx context.Context, deviceID string, fn func(ctx context.Context) error) error

func (f ownRunner) Run(ctx context.Context, deviceID string, fn func(ctx context.Context) error) error {
	return f(ctx, deviceID, fn)
}

// refusing is a Runner that never calls the function, and returns err.
func refusing(err error) guard.Runner {
	return ownRunner(func(context.Context, string, func(context.Context) error) error { return err })
}

// allowing is a Runner that allows everything.
func allowing() guard.Runner {
	return ownRunner(func(ctx context.Context, _ string, fn func(context.Context) error) error { return fn(ctx) })
}

// uncalled is a handler that must not be called.
func uncalled(t testing.TB) http.HandlerFunc {
	return func(http.ResponseWriter, *http.Request) { t.Error("the handler was called") }
}

// request is a request with what a test wants in it.
func request(t testing.TB, method, url string, body io.Reader, header ...string) *http.Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

// reply is an answer that has been read to its end, and can be read again.
type reply struct{ *http.Response }

// send sends r and reads the answer.
func send(t testing.TB, c *http.Client, r *http.Request) (got reply, text string) {
	t.Helper()
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	read, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("reading the answer: %v", err)
	}
	resp.Body = io.NopCloser(strings.NewReader(string(read)))
	return reply{resp}, string(read)
}

// record has h serve r without a network.
func record(h http.Handler, r *http.Request) reply {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return reply{rec.Result()}
}

// incoming is a request as a handler gets it.
func incoming(t testing.TB, header ...string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

// wantRetryAfter wants the answer to invite the client to come again after so many seconds; "" not at all.
func wantRetryAfter(t testing.TB, resp reply, seconds string) {
	t.Helper()
	want := []string{seconds}
	if seconds == "" {
		want = nil
	}
	if got := resp.Header.Values("Retry-After"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("Retry-After = %q, want %q", got, want)
	}
}

// countedBody counts how often a request's body is read.
type countedBody struct {
	io.ReadCloser

	reads *atomic.Int32
}

func (b countedBody) Read(p []byte) (int, error) {
	b.reads.Add(1)
	return b.ReadCloser.Read(p)
}

// countingReads is h, whose requests' bodies are counted.
func countingReads(h http.Handler, reads *atomic.Int32) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.WithContext(r.Context())
		r.Body = countedBody{r.Body, reads}
		h.ServeHTTP(w, r)
	})
}

// A client that asks whether to send its body is told no, and nobody reads what it has not sent.
func TestRefusedBeforeTheBodyIsSent(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		g, v := newGuard(t)
		v.Deny(device, guard.CodeDeviceRevoked)
		var reads, sent, told atomic.Int32
		url, c := serve(t, p, countingReads(guarded(g, uncalled(t)), &reads))
		setContinueTimeout(t, c)
		r := request(t, http.MethodPost, url, countedBody{io.NopCloser(strings.NewReader("hello")), &sent}, "Expect", "100-continue")
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
			Got100Continue: func() { told.Add(1) },
		}))
		resp, _ := send(t, c, r)
		problem(t, resp.Response, http.StatusForbidden, "DEVICE_REVOKED")
		if reads.Load() != 0 || sent.Load() != 0 || told.Load() != 0 {
			t.Errorf("%d reads here, %d there, %d times told to continue; want none", reads.Load(), sent.Load(), told.Load())
		}
	})
}

// setContinueTimeout has c wait for the permission to send a body as long as it takes.
func setContinueTimeout(t testing.TB, c *http.Client) {
	t.Helper()
	tr, ok := c.Transport.(*http.Transport)
	if !ok {
		t.Fatalf("the client has a %T", c.Transport)
	}
	tr.ExpectContinueTimeout = patience
}

func TestAllowedClientIsToldToSendItsBody(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		g, _ := newGuard(t)
		var told atomic.Int32
		url, c := serve(t, p, guarded(g, func(w http.ResponseWriter, r *http.Request) {
			if told.Load() != 0 {
				t.Error("told before the handler has read")
			}
			text, err := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %v", text, err)
		}))
		setContinueTimeout(t, c)
		r := request(t, http.MethodPost, url, strings.NewReader("hello"), "Expect", "100-continue")
		r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
			Got100Continue: func() { told.Add(1) },
		}))
		if _, text := send(t, c, r); text != "hello <nil>" || told.Load() != 1 {
			t.Errorf("answer = %q, told %d times", text, told.Load())
		}
	})
}

const expecting = "POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"

// On the wire itself: the first thing the server says is the final answer, the only one, and that it
// hangs up, for it cannot know whether a body comes.
func TestRefusedOnTheWireWithoutContinue(t *testing.T) {
	g, v := newGuard(t)
	v.Deny(device, guard.CodeDeviceRevoked)
	url, _ := serve(t, protocols()[0], guarded(g, uncalled(t)))
	conn := dial(t, url)
	_, _ = io.WriteString(conn, expecting)
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	problem(t, resp, http.StatusForbidden, "DEVICE_REVOKED")
	if !resp.Close {
		t.Errorf("the connection stays open: %v", resp.Header)
	}
	if rest, err := io.ReadAll(in); len(rest) != 0 || err != nil {
		t.Errorf("then on the wire: %s, %v", rest, err)
	}
}

func TestAllowedOnTheWireWithContinue(t *testing.T) {
	for name, test := range map[string]struct {
		h    http.HandlerFunc
		want []string // the status lines
	}{
		"body read": {func(w http.ResponseWriter, r *http.Request) {
			text, _ := io.ReadAll(r.Body)
			_, _ = w.Write(text)
		}, []string{"HTTP/1.1 100 Continue", "HTTP/1.1 200 OK"}},
		"body left": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNoContent)
		}, []string{"HTTP/1.1 204 No Content"}},
	} {
		t.Run(name, func(t *testing.T) {
			g, _ := newGuard(t)
			url, _ := serve(t, protocols()[0], guarded(g, test.h))
			conn := dial(t, url)
			_, _ = io.WriteString(conn, expecting)
			for text := textproto.NewReader(bufio.NewReader(conn)); len(test.want) > 0; test.want = test.want[1:] {
				line, err := text.ReadLine()
				if err != nil || line != test.want[0] {
					t.Fatalf("line = %q, %v; want %q", line, err, test.want[0])
				}
				_, _ = text.ReadMIMEHeader()
				_, _ = io.WriteString(conn, "hello"[:5*min(1, len(test.want)-1)])
			}
		})
	}
}

// A refused request with a body leaves a connection on which the next one is answered.
func TestRefusedWithABodyThatNobodyReads(t *testing.T) {
	for name, size := range map[string]int{"small": 100 << 10, "large": 2 << 20} {
		t.Run(name, func(t *testing.T) {
			eachProtocol(t, func(t *testing.T, p protocol) {
				g, v := newGuard(t)
				v.Deny(device, guard.CodeDeviceRevoked)
				var reads atomic.Int32
				url, c := serve(t, p, countingReads(guarded(g, uncalled(t)), &reads))
				for range 3 {
					resp, _ := send(t, c, request(t, http.MethodPut, url, strings.NewReader(strings.Repeat("x", size))))
					problem(t, resp.Response, http.StatusForbidden, "DEVICE_REVOKED")
				}
				if n := reads.Load(); n != 0 && p.major == 2 { // HTTP/1.1 needs the connection again
					t.Errorf("the guard has read %d times", n)
				}
			})
		})
	}
}

// A client that stops in the middle of its upload is answered all the same, and hung up on: net/http
// alone would wait for the rest for ever.
func TestRefusedInTheMiddleOfAnUpload(t *testing.T) {
	for name, upload := range map[string]string{
		"length":  "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf",
		"chunked": "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
		"nothing": "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n",
		"large":   "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 9999999\r\n\r\nhalf",
	} {
		t.Run(name, func(t *testing.T) {
			g, v := newGuard(t)
			v.Deny(device, guard.CodeDeviceRevoked)
			url, _ := serve(t, protocols()[0], guarded(g, uncalled(t)))
			conn := dial(t, url)
			_, _ = io.WriteString(conn, upload)
			in := bufio.NewReader(conn)
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			problem(t, resp, http.StatusForbidden, "DEVICE_REVOKED")
			if rest, err := io.ReadAll(in); len(rest) != 0 || err != nil {
				t.Errorf("then on the wire: %s, %v", rest, err)
			}
		})
	}
}

// The bound on that does not outlive the request: a connection that is used again is not cut.
func TestRefusedUploadLeavesNoDeadline(t *testing.T) {
	release := make(chan struct{})
	var closed atomic.Bool
	refuse := httpmw.New(refusing(guard.ErrClosed), httpmw.Fixed(device))(uncalled(t))
	url, c := serve(t, protocols()[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refused" {
			refuse.ServeHTTP(w, r)
			return
		}
		select {
		case <-release: // after the deadline
		case <-r.Context().Done():
			closed.Store(true)
		}
		_, _ = io.Copy(w, r.Body)
	}))
	reused := false
	trace := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
	_, _ = send(t, c, request(t, http.MethodPost, url+"/refused", strings.NewReader("body")))
	time.AfterFunc(1200*time.Millisecond, func() { close(release) })
	_, text := send(t, c, request(t, http.MethodPost, url, strings.NewReader("body")).WithContext(trace))
	if text != "body" || !reused || closed.Load() {
		t.Errorf("answer %q, connection reused: %v, cut: %v", text, reused, closed.Load())
	}
}

// HTTP/2 answers while the client goes on sending.
func TestRefusedBeforeTheBodyIsWholeOverHTTP2(t *testing.T) {
	for _, p := range protocols()[2:] {
		t.Run(p.name, func(t *testing.T) {
			g, v := newGuard(t)
			v.Deny(device, guard.CodeDeviceRevoked)
			url, c := serve(t, p, guarded(g, uncalled(t)))
			in, out := io.Pipe()
			defer func() { _ = out.Close() }()
			resp, _ := send(t, c, request(t, http.MethodPost, url, in))
			problem(t, resp.Response, http.StatusForbidden, "DEVICE_REVOKED")
		})
	}
}

// HEAD gets GET's header, the length included, and nothing after it.
func TestRefusedHead(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		url, c := serve(t, p, httpmw.New(refusing(guard.ErrClosed), httpmw.Fixed(device))(uncalled(t)))
		get, text := send(t, c, request(t, http.MethodGet, url, nil))
		head, none := send(t, c, request(t, http.MethodHead, url, nil))
		if none != "" || head.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("status %d, body %q", head.StatusCode, none)
		}
		for _, name := range []string{"Content-Type", "Content-Length", "Cache-Control", "Retry-After"} {
			if got, want := head.Header.Get(name), get.Header.Get(name); got != want || want == "" {
				t.Errorf("%s = %q, want GET's %q", name, got, want)
			}
		}
		if head.ContentLength != int64(len(text)) {
			t.Errorf("Content-Length = %d, want %d", head.ContentLength, len(text))
		}
	})
}

// On the wire: the answer to HEAD is followed by the next answer at once.
func TestRefusedHeadOnTheWire(t *testing.T) {
	url, _ := serve(t, protocols()[0], httpmw.New(refusing(guard.ErrClosed), httpmw.Fixed(device))(uncalled(t)))
	conn := dial(t, url)
	_, _ = io.WriteString(conn, strings.Repeat("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n", 2))
	text := textproto.NewReader(bufio.NewReader(conn))
	for range 2 {
		if line, err := text.ReadLine(); err != nil || line != "HTTP/1.1 503 Service Unavailable" {
			t.Fatalf("line = %q, %v", line, err)
		}
		_, _ = text.ReadMIMEHeader()
	}
}

// S7: after Close nothing starts, also where a request waits already.
func TestClosedGuardRefuses(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		g, v := newGuard(t)
		url, c := serve(t, p, guarded(g, uncalled(t)))
		release := make(chan struct{})
		defer close(release)
		v.Always(device, guardtest.Hold(release, guardtest.Hang()))
		waited := make(chan reply, 1)
		go func() {
			resp, _ := send(t, c, request(t, http.MethodGet, url, nil))
			waited <- resp
		}()
		if _, err := v.Wait(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		_ = g.Close()
		late, _ := send(t, c, request(t, http.MethodGet, url, nil))
		for _, resp := range []reply{await(t, "the request that waited", waited), late} {
			if p := problem(t, resp.Response, http.StatusServiceUnavailable, "GUARD_CLOSED"); p.RequestID != "" {
				t.Errorf("request_id = %q", p.RequestID)
			}
			wantRetryAfter(t, resp, "5")
		}
	})
}

func TestGuardThatShutsDownRefuses(t *testing.T) {
	g, v := newGuard(t)
	if err := g.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	resp := record(guarded(g, uncalled(t)), incoming(t))
	problem(t, resp.Response, http.StatusServiceUnavailable, "GUARD_CLOSED")
	if n := len(v.Calls()); n != 0 {
		t.Errorf("asked %d times", n)
	}
}

// A request that ended before the authority was asked starts nothing, and is not told that the
// device was denied.
func TestCallersContextEndedBeforeTheStart(t *testing.T) {
	g, _ := newGuard(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("secret cause"))
	resp := record(guarded(g, uncalled(t)), incoming(t).WithContext(ctx))
	if p := problem(t, resp.Response, http.StatusServiceUnavailable, "SYSTEM_UNAVAILABLE"); p.RequestID != "" {
		t.Errorf("request_id = %q", p.RequestID)
	}
	wantRetryAfter(t, resp, "5")
}

// The context that the guard gets is the request's: a client that gives up while the authority is
// asked is not waited for.
func TestClientGivesUpBeforeTheStart(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		g, v := newGuard(t)
		release, served := make(chan struct{}), make(chan struct{})
		defer close(release)
		v.Always(device, guardtest.Hold(release, guardtest.Hang()))
		h := guarded(g, uncalled(t))
		url, c := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r)
			close(served)
		}))
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() {
			resp, err := c.Do(request(t, http.MethodGet, url, nil).WithContext(ctx))
			if err == nil {
				_ = resp.Body.Close()
			}
			gone <- err
		}()
		if _, err := v.Wait(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := await(t, "the client", gone); !errors.Is(err, context.Canceled) {
			t.Errorf("client: %v", err)
		}
		await(t, "the server", served)
	})
}

// What a run returns: the denial of an outer run is what a start within it is refused with. Work
// was begun there, so that nobody is invited to repeat it.
func TestOuterRunsDenialRefuses(t *testing.T) {
	for code, status := range map[guard.Code]int{
		guard.CodeDeviceRevoked:     http.StatusForbidden,
		guard.CodeInvalidDeviceID:   http.StatusForbidden,
		guard.CodeSystemUnavailable: http.StatusServiceUnavailable,
	} {
		t.Run(string(code), func(t *testing.T) {
			outer, authority := newGuard(t, guard.WithInterval(soon))
			g, v := newGuard(t)
			release := make(chan struct{})
			defer close(release)
			v.Always(device, guardtest.Hold(release, guardtest.Hang()))
			err := outer.Run(t.Context(), device, func(ctx context.Context) error {
				go func() {
					_, _ = v.Wait(ctx, 1)
					authority.Deny(device, code)
				}()
				resp := record(guarded(g, uncalled(t)), incoming(t).WithContext(ctx))
				p := problem(t, resp.Response, status, string(code))
				wantRetryAfter(t, resp, "")
				wantLatest(t, authority, p)
				return nil
			})
			wantDenied(t, err, code)
		})
	}
}

// Two guards around one handler: the outer one's denial is answered once.
func TestOuterGuardDeniesWhileTheInnerOneAsks(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		outer, authority := newGuard(t)
		g, v := newGuard(t)
		release := make(chan struct{})
		defer close(release)
		v.Always(device, guardtest.Hold(release, guardtest.Hang()))
		inner := guarded(g, uncalled(t))
		url, c := serve(t, p, guarded(outer, inner.ServeHTTP))
		go func() {
			_, _ = v.Wait(t.Context(), 1)
			authority.Deny(device, guard.CodeDeviceRevoked)
			_, _ = outer.Validate(context.Background(), device)
		}()
		resp, _ := send(t, c, request(t, http.MethodGet, url, nil))
		if got := problem(t, resp.Response, http.StatusForbidden, "DEVICE_REVOKED"); got.RequestID != "script-2" {
			t.Errorf("request_id = %q", got.RequestID)
		}
	})
}

// S1, S2: only a guard that has called the function has allowed anything.
func TestRunnerThatDoesNotCallTheHandler(t *testing.T) {
	for name, err := range map[string]error{
		"nil":                     nil,
		"an error of its own":     errors.New("secret text"),
		"a denial without a code": guard.ErrDenied,
		"unavailable":             guard.ErrUnavailable,
		"a plain Canceled":        context.Canceled,
		"http.ErrAbortHandler":    http.ErrAbortHandler,
	} {
		t.Run(name, func(t *testing.T) {
			resp := record(httpmw.New(refusing(err), httpmw.Fixed(device))(uncalled(t)), incoming(t))
			problem(t, resp.Response, http.StatusServiceUnavailable, "SYSTEM_UNAVAILABLE")
			wantRetryAfter(t, resp, "5")
		})
	}
}

// A panic of what is called before the handler goes on unchanged, and nothing is answered.
func TestPanicBeforeTheHandler(t *testing.T) {
	value := &struct{ int }{1}
	for name, h := range map[string]http.Handler{
		"of the Runner": httpmw.New(ownRunner(func(context.Context, string, func(context.Context) error) error {
			panic(value)
		}), httpmw.Fixed(device))(uncalled(t)),
		"of the DeviceFunc": httpmw.New(allowing(), func(*http.Request) (string, error) { panic(value) })(uncalled(t)),
		"of verify": httpmw.New(allowing(), httpmw.FromBearer(func(context.Context, string) (string, error) {
			panic(value)
		}))(uncalled(t)),
		"of the answer": httpmw.New(refusing(nil), httpmw.Fixed(device), httpmw.WithAnswer(
			func(http.ResponseWriter, *http.Request, httpmw.Problem) { panic(value) }))(uncalled(t)),
	} {
		t.Run(name, func(t *testing.T) {
			rec := httptest.NewRecorder()
			defer func() {
				if got := recover(); got != any(value) {
					t.Errorf("recovered %v", got)
				}
				if rec.Body.Len() != 0 {
					t.Errorf("answered %s", rec.Body)
				}
			}()
			h.ServeHTTP(rec, incoming(t, "Authorization", "Bearer t"))
			t.Error("returned")
		})
	}
}

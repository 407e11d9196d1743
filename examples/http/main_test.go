package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/httpmw"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const requestID = `, request [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`

// expectInOrder looks for one match after the other, each behind the one before.
func expectInOrder(t *testing.T, text string, patterns ...string) {
	t.Helper()
	rest := text
	for _, pattern := range patterns {
		at := regexp.MustCompile(pattern).FindStringIndex(rest)
		if at == nil {
			t.Fatalf("nothing matches %q where it should in:\n%s", pattern, text)
		}
		rest = rest[at[1]:]
	}
}

func TestStory(t *testing.T) {
	var out bytes.Buffer
	if err := demonstrate(t.Context(), &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	expectInOrder(t, out.String(),
		`GET /prices +200, for agent:demo:trader:01\n`, `price +101 euros\n`, `price +103 euros\n`,
		`\(revoked\) +agent:demo:trader:01\n`, `last event +DEVICE_REVOKED`+requestID+`\n`, `\(cut\) +unexpected EOF, \S+ after`,
		`POST /orders +403, for agent:demo:trader:01 +DEVICE_REVOKED\n`, `POST /orders +401, for nobody +NO_IDENTITY\n`,
		`POST /orders +201, for agent:demo:broker:01\n`, `GET /health +200, for nobody\n`,
		`GET /archive +200, 1228800 bytes`, `\(revoked\) +worker:demo:loader:01\n`,
		`denied +DEVICE_REVOKED`+requestID+`, in flight true\n`, `\(cut\) +after \d+ bytes, \S+ after`,
		`denied +DEVICE_REVOKED`+requestID+`, in flight false\n`, `GET /archive +was not sent\n$`,
	)
}

// runnerFunc is a guard that does not do all that one should.
type runnerFunc func(ctx context.Context, deviceID string, fn func(context.Context) error) error

func (f runnerFunc) Run(ctx context.Context, deviceID string, fn func(context.Context) error) error {
	return f(ctx, deviceID, fn)
}

// tellWith tells the story with the guard that spoil makes of a good one.
func tellWith(ctx context.Context, t *testing.T, patience time.Duration, spoil func(g *guard.Guard) guard.Runner) (text string, err error) {
	t.Helper()
	org, err := register(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g, err := guard.New(org)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	defer org.Subscribe(g.Hint)()
	var out bytes.Buffer
	s := newStory(&out, org, spoil(g))
	err = s.tell(ctx, patience)
	for _, token := range s.tokens {
		if strings.Contains(out.String(), token) || err != nil && strings.Contains(err.Error(), token) {
			t.Errorf("a token was printed:\n%s\n%v", &out, err)
		}
	}
	return out.String(), err
}

// onlyFor spoils what a guard does for one device.
func onlyFor(device string, g *guard.Guard, spoilt runnerFunc) guard.Runner {
	return runnerFunc(func(ctx context.Context, id string, fn func(context.Context) error) error {
		if id == device {
			return spoilt(ctx, id, fn)
		}
		return g.Run(ctx, id, fn)
	})
}

// atStart asks before the start and never again, as most authentication does. After a while it has
// proven its point.
func atStart(g *guard.Guard, enough func()) runnerFunc {
	return func(ctx context.Context, id string, fn func(context.Context) error) error {
		if d, err := g.Validate(ctx, id); err != nil || !d.Allowed {
			return &guard.DeniedError{Decision: d}
		}
		defer time.AfterFunc(500*time.Millisecond, enough).Stop()
		return fn(ctx)
	}
}

// later stops what runs, and lets everything start.
func later(g *guard.Guard, _ func()) runnerFunc {
	return func(ctx context.Context, id string, fn func(context.Context) error) error {
		err := g.Run(ctx, id, fn)
		if denied := (*guard.DeniedError)(nil); errors.As(err, &denied) && !denied.InFlight {
			return fn(ctx)
		}
		return err
	}
}

func never(*guard.Guard, func()) runnerFunc {
	return func(context.Context, string, func(context.Context) error) error {
		return &guard.DeniedError{Decision: guard.Decision{Code: guard.CodeDeviceNotFound}}
	}
}

func TestGuardThatDoesNotDoItsWorkIsFoundOut(t *testing.T) {
	for name, test := range map[string]struct {
		device string
		spoil  func(g *guard.Guard, enough func()) runnerFunc
		says   string
	}{
		"the stream goes on":        {trader, atStart, "the stream is cut: enough"},
		"the request is served":     {trader, later, "nobody else's: 403 \"DEVICE_REVOKED\" was expected, and not 201"},
		"the download goes on":      {loader, atStart, "its own calls are cut and refused: enough"},
		"the next call is made":     {loader, later, "its own calls are cut and refused: the program was revoked, and yet"},
		"somebody else is denied":   {broker, never, "nobody else's: 201 \"\" was expected, and not 403"},
		"the stream does not begin": {trader, never, "the stream is cut: the last event should have told"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			text, err := tellWith(ctx, t, time.Minute, func(g *guard.Guard) guard.Runner {
				return onlyFor(test.device, g, test.spoil(g, func() { cancel(errors.New("enough")) }))
			})
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want it to say %q:\n%s", err, test.says, text)
			}
		})
	}
}

func TestPatienceEndsTheStory(t *testing.T) {
	text, err := tellWith(t.Context(), t, time.Millisecond, func(g *guard.Guard) guard.Runner { return g })
	if err == nil || !strings.Contains(err.Error(), "something goes on that should have been cut") {
		t.Errorf("got %v after:\n%s", err, text)
	}
}

func TestInterruptEndsTheStory(t *testing.T) {
	for _, device := range []string{trader, loader} {
		t.Run(device, func(t *testing.T) {
			ctx, interrupt := context.WithCancel(t.Context())
			var started atomic.Bool
			text, err := tellWith(ctx, t, time.Minute, func(g *guard.Guard) guard.Runner {
				return onlyFor(device, g, func(ctx context.Context, id string, fn func(context.Context) error) error {
					return g.Run(ctx, id, func(ctx context.Context) error {
						if !started.Swap(true) {
							interrupt()
						}
						return fn(ctx)
					})
				})
			})
			if !errors.Is(err, context.Canceled) || strings.Contains(text, "(revoked)      "+device) {
				t.Errorf("got %v after:\n%s", err, text)
			}
		})
	}
}

func TestLastEventIsOneEvent(t *testing.T) {
	var told []string
	stream := "event: price\ndata: 1\n\n" + string(lastEvent(httpmw.Problem{Code: "A", Title: "two\nlines"})) + "event: half\ndata: 2\n"
	err := readEvents(strings.NewReader(stream), func(event, data string) error {
		told = append(told, event+" "+data)
		return nil
	})
	want := `denied {"type":"","title":"two\nlines","status":0,"code":"A","request_id":""}`
	if err != nil || len(told) != 2 || told[0] != "price 1" || told[1] != want {
		t.Errorf("got %q, %v", told, err)
	}
}

func TestTokenOfNobodyIsNoIdentity(t *testing.T) {
	m, tokens := newMarket(trader)
	if device, err := m.owner(t.Context(), tokens[trader]); device != trader || err != nil {
		t.Errorf("got %q, %v", device, err)
	}
	if device, err := m.owner(t.Context(), "x"+tokens[trader]); device != "" || err == nil || strings.Contains(err.Error(), tokens[trader]) {
		t.Errorf("got %q, %v", device, err)
	}
}

func TestWhatIsNoProblemIsFoundOut(t *testing.T) {
	for body, bad := range map[string]bool{`{"code":"A"}`: false, `<html>`: true} {
		w := httptest.NewRecorder()
		w.Header().Set("Content-Type", "application/problem+json")
		fmt.Fprint(w, body)
		resp := w.Result()
		if p, err := problemOf(resp); (err != nil) != bad || !bad && p.Code != "A" {
			t.Errorf("%s: got %+v, %v", body, p, err)
		}
	}
}

func TestServerThatIsStoppedIsGone(t *testing.T) {
	entered := make(chan struct{})
	url, stop, err := serve(t.Context(), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	}))
	if err != nil {
		t.Fatal(err)
	}
	s := &story{url: url}
	client := &http.Client{Transport: &http.Transport{}}
	call := func() error {
		resp, err := s.call(t.Context(), client, http.MethodGet, "/", "nobody")
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- call() }()
	<-entered
	if err := stop(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a server whose handler goes on was stopped with %v", err)
	}
	if err := <-ended; err == nil {
		t.Error("a call that was cut looks like one that was answered")
	}
	if err := call(); err == nil {
		t.Error("the server goes on")
	}
}

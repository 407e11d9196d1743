package clerkserver_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/m2m_token"
	"github.com/clerk/clerk-sdk-go/v2/machine"
	"github.com/clerk/clerk-sdk-go/v2/machinescope"

	"github.com/execguard/execguard/internal/clerkserver"
)

// TestInProcessKeepsToRoundTripper: a context that is over is not asked for, a body is closed,
// and the request stays as it was.
func TestInProcessKeepsToRoundTripper(t *testing.T) {
	s := newService(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := inside(s, s.SecretKey()).machines.Create(ctx, &machine.CreateParams{Name: "x"})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("over: %v", err)
	}
	page, err := inside(s, s.SecretKey()).machines.List(t.Context(), &machine.ListParams{})
	if must(t, page, err); page.TotalCount != 0 {
		t.Error("a machine was made under a context that was over")
	}
	for _, over := range []bool{false, true} {
		body := &closing{Reader: strings.NewReader(`{"name":"x"}`)}
		req := request(t, "POST", "https://clerk.test/machines", "").WithContext(t.Context())
		if req.Body = body; over {
			req = req.WithContext(ctx)
		}
		req.Header.Set("Authorization", "Bearer "+s.SecretKey())
		resp, err := s.InProcess().Transport.RoundTrip(req)
		if over != (err != nil) || !body.closed || req.Body != body {
			t.Errorf("context over %t: error %v, closed %t", over, err, body.closed)
		}
		if resp != nil {
			resp.Body.Close()
		}
	}
	bare := &http.Request{Method: http.MethodGet, URL: request(t, "GET", "https://clerk.test/machines", "").URL, Header: http.Header{}}
	resp, err := s.InProcess().Transport.RoundTrip(bare)
	if must(t, resp, err); resp.Status != "401 "+http.StatusText(http.StatusUnauthorized) || resp.Request != bare || bare.Body != nil {
		t.Errorf("without a body: %+v", resp)
	}
	resp.Body.Close()
}

type closing struct {
	*strings.Reader

	closed bool
}

func (c *closing) Close() error { c.closed = true; return nil }

// TestNothingPrintsASecret (S8): not the server, not the service, with any verb.
func TestNothingPrintsASecret(t *testing.T) {
	s := start(t, clerkserver.WithVerbatim())
	id, secret := s.AddMachine("one")
	_, token, err := s.IssueToken(id, clerkserver.TokenSpec{})
	must(t, token, err)
	verify(t, newSDK(s.Client(), s.URL(), s.SecretKey()), token)
	if len(s.Requests()) != 1 || s.Requests()[0].Header() == nil || !strings.Contains(string(s.Requests()[0].Body()), token) {
		t.Errorf("the request was not kept: %v", s.Requests())
	}
	for _, v := range []any{s, s.Service, s.Requests(), struct{ S *clerkserver.Server }{s}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
			text := fmt.Sprintf(verb, v)
			for _, hidden := range []string{s.SecretKey(), secret, token} {
				if strings.Contains(text, hidden) || strings.Contains(text, fmt.Sprintf("%x", hidden)) {
					t.Errorf("%T with %s shows a secret: %s", v, verb, text)
				}
			}
		}
	}
}

// TestEverythingAtOnce is for the race detector: every call and every control, side by side.
func TestEverythingAtOnce(t *testing.T) {
	s := start(t, clerkserver.WithPlainHTTP(), clerkserver.WithRateLimit(1<<30, time.Hour))
	two, _ := s.AddMachine("two")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { crowd(t, s, two) })
	}
	for range 20 {
		id, _ := s.AddMachine("short-lived", two)
		s.SetScopes(id)
		s.RemoveMachine(id)
		s.RestoreMachine(id)
		s.Limit(0)
		s.Unlimit()
		s.RestoreKey()
	}
	wg.Wait()
}

// crowd is one of many who do everything. Some calls meet a limit, and are none the worse for it.
func crowd(t *testing.T, s *clerkserver.Server, two string) {
	c, ctx := newSDK(s.Client(), s.URL(), s.SecretKey()), t.Context()
	for range 10 {
		m, err := c.machines.Create(ctx, &machine.CreateParams{Name: "x"})
		if err != nil {
			wantLimited(t, err)
			continue
		}
		calls := []func() error{
			func() error { _, err := c.machines.Get(ctx, m.ID); return err },
			func() error { _, err := c.machines.List(ctx, &machine.ListParams{}); return err },
			func() error {
				_, err := c.scopes.CreateScope(ctx, m.ID, &machinescope.CreateScopeParams{ToMachineID: two})
				return err
			},
			func() error {
				_, err := newSDK(s.Client(), s.URL(), m.SecretKey).tokens.Create(ctx, &m2m_token.CreateParams{})
				return err
			},
			func() error { _, err := c.tokens.List(ctx, &m2m_token.ListParams{Subject: &m.ID}); return err },
			func() error { _, err := c.machines.Delete(ctx, m.ID); return err },
		}
		for _, call := range calls {
			if err := call(); err != nil {
				wantLimited(t, err)
			}
		}
	}
}

func wantLimited(t *testing.T, err error) {
	t.Helper()
	var said *clerk.APIErrorResponse
	if !errors.As(err, &said) || said.HTTPStatusCode != 429 {
		t.Errorf("got %v, want 429", err)
	}
}

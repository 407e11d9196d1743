package clerk_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/clerk"
)

// registry is a service that verifies any token, each of a machine named after it, and counts.
type registry struct {
	mu     sync.Mutex
	asked  int
	end    func() string // expiration of every token
	answer func(r *http.Request, token string) (*http.Response, error)
}

func (s *registry) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.asked++
	s.mu.Unlock()
	switch {
	case strings.HasSuffix(r.URL.Path, "/revoke"):
		return reply(r, 200, success("revoke token")), nil
	case r.Method == http.MethodDelete:
		return reply(r, 200, success("delete")), nil
	}
	if s.answer != nil {
		return s.answer(r, string(body))
	}
	return reply(r, 200, aToken(s.end())), nil
}

func (s *registry) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// in is an expiration so much later than now.
func in(d time.Duration) string { return strconv.FormatInt(time.Now().Add(d).UnixMilli(), 10) }

func newRegistry() *registry {
	return &registry{end: func() string { return later }}
}

// wantAsked verifies a token and wants it to be taken after so many requests in all.
func wantAsked(t *testing.T, client *clerk.Client, s *registry, token string, asked int) {
	t.Helper()
	if id, err := client.VerifyMachine(t.Context(), token); id != theirs || err != nil || s.count() != asked {
		t.Errorf("%q, %v after %d requests, want %d", id, err, s.count(), asked)
	}
}

func TestNoCacheByDefault(t *testing.T) {
	s := newRegistry()
	client := offline(t, s)
	for i := range 3 {
		wantAsked(t, client, s, opaque, i+1)
	}
}

// A token is remembered for the stated time, counted from when it was asked about and not from when
// the answer came.
func TestCacheEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newRegistry()
		s.answer = func(r *http.Request, _ string) (*http.Response, error) {
			time.Sleep(3 * time.Second)
			return reply(r, 200, aToken(later)), nil
		}
		client := offline(t, s, clerk.WithTokenCache(10*time.Second, 5))
		wantAsked(t, client, s, opaque, 1)
		time.Sleep(7*time.Second - 1)
		wantAsked(t, client, s, opaque, 1)
		time.Sleep(1)
		wantAsked(t, client, s, opaque, 2)
		wantAsked(t, client, s, opaque, 2)
	})
}

// Never past the token's own end; not even for the instant of it.
func TestCacheKeepsToTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newRegistry()
		end := in(4 * time.Second)
		s.end = func() string { return end }
		client := offline(t, s, clerk.WithTokenCache(time.Hour, 5))
		wantAsked(t, client, s, opaque, 1)
		time.Sleep(4*time.Second - 1)
		wantAsked(t, client, s, opaque, 1)
		time.Sleep(1)
		if id, err := client.VerifyMachine(t.Context(), opaque); id != "" || wantError[*clerk.TokenError](t, err).Reason != "its expiration has passed" {
			t.Errorf("%q, %v", id, err)
		}
		if s.count() != 2 {
			t.Errorf("%d requests", s.count())
		}
	})
}

// Bounded in number: the oldest makes way.
func TestCacheIsBounded(t *testing.T) {
	s := newRegistry()
	client := offline(t, s, clerk.WithTokenCache(time.Hour, 3))
	for i := range 4 {
		wantAsked(t, client, s, fmt.Sprint("mt_", i), i+1)
	}
	for i := 3; i > 0; i-- {
		wantAsked(t, client, s, fmt.Sprint("mt_", i), 4)
	}
	wantAsked(t, client, s, "mt_0", 5) // the oldest, and now mt_1 is gone
	wantAsked(t, client, s, "mt_2", 5)
	wantAsked(t, client, s, "mt_1", 6)
}

// Only a token that was taken is remembered: neither a no nor a failure is.
func TestCacheRemembersNoRefusals(t *testing.T) {
	for name, body := range map[string]string{
		"revoked": strings.Replace(aToken(later), `"revoked":false`, `"revoked":true`, 1),
		"expired": strings.Replace(aToken(later), `"expired":false`, `"expired":true`, 1),
		"endless": aToken("null"),
		"scope":   strings.Replace(aToken(later), ours, other, 1),
		"failure": "<html>",
	} {
		s := newRegistry()
		s.answer = func(r *http.Request, _ string) (*http.Response, error) { return reply(r, 200, body), nil }
		client := offline(t, s, clerk.WithTokenCache(time.Hour, 5))
		for range 2 {
			if id, err := client.VerifyMachine(t.Context(), opaque); id != "" || err == nil {
				t.Errorf("%s: %q, %v", name, id, err)
			}
		}
		s.answer = nil
		wantAsked(t, client, s, opaque, 3)
	}
}

// What this client revokes or deletes is forgotten at once, whatever came of it, and so is what was
// being verified meanwhile: its answer may be older.
func TestCacheForgets(t *testing.T) {
	for name, forget := range map[string]func(ctx context.Context, c *clerk.Client) error{
		"the token is revoked": func(ctx context.Context, c *clerk.Client) error {
			_, err := c.RevokeToken(ctx, tokenID, "")
			return err
		},
		"the machine is deleted": func(ctx context.Context, c *clerk.Client) error { return c.Delete(ctx, theirs) },
	} {
		s := newRegistry()
		client := offline(t, s, clerk.WithTokenCache(time.Hour, 5))
		wantAsked(t, client, s, opaque, 1)
		if err := forget(t.Context(), client); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wantAsked(t, client, s, opaque, 3)
		wantAsked(t, client, s, opaque, 3)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := forget(gone, client); err == nil {
			t.Errorf("%s: done without a context", name)
		}
		wantAsked(t, client, s, opaque, 4)

		s.answer = func(r *http.Request, _ string) (*http.Response, error) {
			return reply(r, 200, aToken(later)), forget(r.Context(), client)
		}
		wantAsked(t, client, s, "mt_2", 6) // and the revocation
		wantAsked(t, client, s, "mt_2", 8) // not remembered
	}
}

// A token that is verified while it is being revoked, and answered as good, is not remembered either.
func TestCacheForgetsAfterwards(t *testing.T) {
	for name, forget := range map[string]func(ctx context.Context, c *clerk.Client) error{
		"revoke": func(ctx context.Context, c *clerk.Client) error {
			_, err := c.RevokeToken(ctx, tokenID, "")
			return err
		},
		"delete": func(ctx context.Context, c *clerk.Client) error { return c.Delete(ctx, theirs) },
	} {
		s := newRegistry()
		var client *clerk.Client
		client = offline(t, transport(func(r *http.Request) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, "/revoke") || r.Method == http.MethodDelete {
				wantAsked(t, client, s, opaque, 1) // not yet revoked, and so remembered
			}
			return s.RoundTrip(r)
		}), clerk.WithTokenCache(time.Hour, 5))
		if err := forget(t.Context(), client); err != nil || s.count() != 2 {
			t.Errorf("%s: %v, %d requests", name, err, s.count())
		}
		wantAsked(t, client, s, opaque, 3)
	}
}

// What others revoke is not forgotten: that is what the option gives up.
func TestCacheKeepsOthers(t *testing.T) {
	s := newRegistry()
	client := offline(t, s, clerk.WithTokenCache(time.Hour, 5))
	wantAsked(t, client, s, opaque, 1)
	if _, err := client.RevokeToken(t.Context(), "mt_another", ""); err == nil {
		t.Error("the answer was about another token")
	}
	if err := client.Delete(t.Context(), other); err == nil {
		t.Error("the answer was about another machine")
	}
	wantAsked(t, client, s, opaque, 3)
}

// A caller who has left, a closed client: nobody is let in on what is remembered.
func TestCacheLetsNobodyInWhoLeft(t *testing.T) {
	s := newRegistry()
	client := offline(t, s, clerk.WithTokenCache(time.Hour, 5))
	wantAsked(t, client, s, opaque, 1)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if id, err := client.VerifyMachine(gone, opaque); id != "" || !errors.Is(err, context.Canceled) {
		t.Errorf("%q, %v", id, err)
	}
	client.Close()
	if id, err := client.VerifyMachine(t.Context(), opaque); id != "" || !errors.Is(err, guard.ErrUnavailable) || s.count() != 1 {
		t.Errorf("%q, %v", id, err)
	}
}

// VerifyToken always asks; only whom a token lets in is remembered.
func TestVerifyTokenIsNotRemembered(t *testing.T) {
	s := newRegistry()
	client := offline(t, s, clerk.WithTokenCache(time.Hour, 5))
	for i := range 2 {
		if _, err := client.VerifyToken(t.Context(), opaque); err != nil || s.count() != i+1 {
			t.Errorf("%v after %d requests", err, s.count())
		}
	}
	wantAsked(t, client, s, opaque, 3)
}

// Many callers at once, under -race: each is let in, and the bound holds.
func TestCacheSideBySide(t *testing.T) {
	s := newRegistry()
	client := offline(t, s, clerk.WithTokenCache(time.Hour, 8))
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			if id, err := client.VerifyMachine(t.Context(), fmt.Sprint("mt_", i%16)); id != theirs || err != nil {
				t.Errorf("%q, %v", id, err)
			}
			if i%8 == 0 {
				_, _ = client.RevokeToken(t.Context(), tokenID, "")
			}
		})
	}
	wg.Wait()
}

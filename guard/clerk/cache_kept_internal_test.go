package clerk

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// wantKept wants the cache to hold so many tokens and so many verifications: strangers send any token,
// and what is over must not stay.
func wantKept(t *testing.T, c *tokenCache, tokens, asking int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.byHash) != tokens || c.oldest.Len() != tokens || len(c.asking) != asking {
		t.Errorf("%d tokens in the map and %d in the list, want %d; %d verifications, want %d",
			len(c.byHash), c.oldest.Len(), tokens, len(c.asking), asking)
	}
}

// A verification is noted until the last call for that token has ended.
func TestNothingIsKeptOfAVerification(t *testing.T) {
	c := newTokenCache(time.Minute, 5)
	first, second := c.begin("a"), c.begin("a")
	wantKept(t, c, 0, 1)
	c.end(first)
	wantKept(t, c, 0, 1)
	c.put(second, Token{ID: "mt_a", Subject: "mch_a"})
	c.end(second)
	wantKept(t, c, 1, 0)
}

// A refusal counts against who had asked before it, and against nobody who asks after it.
func TestARefusalIsOver(t *testing.T) {
	c := newTokenCache(time.Minute, 5)
	before, refused := c.begin("a"), c.begin("a")
	c.refuse(refused)
	c.end(refused)
	c.put(before, Token{ID: "mt_a", Subject: "mch_a"})
	wantKept(t, c, 0, 1)
	after := c.begin("a")
	c.put(after, Token{ID: "mt_a", Subject: "mch_a"})
	c.end(after)
	c.end(before)
	wantKept(t, c, 1, 0)
}

// The calls themselves leave nothing behind, whatever came of them.
func TestNothingIsKeptOfACall(t *testing.T) {
	client, err := New("sk_test_key", WithMachineID("mch_a"), WithTokenCache(time.Minute, 5),
		WithHTTPClient(&http.Client{Transport: silent{}}))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.VerifyToken(t.Context(), "mt_a"); err == nil {
		t.Error("good")
	}
	if _, err := client.VerifyMachine(t.Context(), "mt_a"); err == nil {
		t.Error("let in")
	}
	wantKept(t, client.cache, 0, 0)
}

// A token that was verified by two calls at once is remembered once.
func TestATokenIsKeptOnce(t *testing.T) {
	c := newTokenCache(time.Minute, 5)
	first, second := c.begin("a"), c.begin("a")
	for _, q := range []question{first, second} {
		c.put(q, Token{ID: "mt_a", Subject: "mch_a"})
		c.end(q)
	}
	wantKept(t, c, 1, 0)
}

// What has ended goes when it is looked for, and all goes with Close.
func TestWhatHasEndedGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, err := New("sk_test_key", WithTokenCache(time.Minute, 5), WithHTTPClient(&http.Client{Transport: silent{}}))
		if err != nil {
			t.Fatal(err)
		}
		remember := func(token string) {
			q := client.cache.begin(token)
			client.cache.put(q, Token{ID: "mt_a", Subject: "mch_a"})
			client.cache.end(q)
		}
		remember("a")
		time.Sleep(time.Minute)
		if id, ok := client.cache.find("a"); ok {
			t.Errorf("%q is still known", id)
		}
		wantKept(t, client.cache, 0, 0)
		remember("b")
		wantKept(t, client.cache, 1, 0)
		client.Close()
		wantKept(t, client.cache, 0, 0)
	})
}

// Both clocks go.
func TestBothClocksGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := bothClocks()
		first := clock()
		time.Sleep(3 * time.Second)
		second := clock()
		if second.mono-first.mono != 3*time.Second || second.wall.Sub(first.wall) != 3*time.Second {
			t.Errorf("%+v, then %+v", first, second)
		}
	})
}

// silent is a transport without an answer.
type silent struct{}

func (silent) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		r.Body.Close()
	}
	return nil, errors.Join(context.Cause(r.Context()), errors.New("no route"))
}

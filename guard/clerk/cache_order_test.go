package clerk_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/execguard/execguard/guard/clerk"
)

// S5: an older yes that comes after a younger no is not remembered.
func TestCacheHoldsNoYesOlderThanANo(t *testing.T) {
	for name, refusal := range map[string]func(r *http.Request) (*http.Response, error){
		"revoked": func(r *http.Request) (*http.Response, error) {
			return reply(r, 200, strings.Replace(aToken(later), `"revoked":false`, `"revoked":true`, 1)), nil
		},
		"unknown": func(r *http.Request) (*http.Response, error) {
			return reply(r, 404, refusalOf("resource_not_found")), nil
		},
	} {
		asked, hold := make(chan struct{}), make(chan struct{})
		var mu sync.Mutex
		n := 0
		client := offline(t, transport(func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			n++
			first := n == 1
			mu.Unlock()
			if first { // decided now, answered late
				close(asked)
				<-hold
				return reply(r, 200, aToken(later)), nil
			}
			return refusal(r)
		}), clerk.WithTokenCache(time.Hour, 8))
		done := make(chan struct{})
		go func() { defer close(done); _, _ = client.VerifyMachine(t.Context(), opaque) }()
		<-asked
		if _, err := client.VerifyMachine(t.Context(), opaque); err == nil {
			t.Fatal("let in")
		}
		close(hold)
		<-done
		if id, err := client.VerifyMachine(t.Context(), opaque); err == nil {
			t.Errorf("%s: %s is let in by a token that this client knows to be no good", name, id)
		}
	}
}

// What VerifyToken has learnt counts for VerifyMachine.
func TestVerifyTokenEndsWhatIsRemembered(t *testing.T) {
	body := aToken(later)
	client := offline(t, transport(func(r *http.Request) (*http.Response, error) { return reply(r, 200, body), nil }),
		clerk.WithTokenCache(time.Hour, 8))
	if _, err := client.VerifyMachine(t.Context(), opaque); err != nil {
		t.Fatal(err)
	}
	body = strings.Replace(body, `"revoked":false`, `"revoked":true`, 1)
	if _, err := client.VerifyToken(t.Context(), opaque); err == nil {
		t.Fatal("good")
	}
	if id, err := client.VerifyMachine(t.Context(), opaque); err == nil {
		t.Errorf("%s is let in by a token that this client knows to be revoked", id)
	}
}

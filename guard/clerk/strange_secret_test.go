package clerk_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/clerk"
)

type why struct{}

func (why) Error() string { return "why" }

// A read that is given up while it waits says why, and what the service had said.
func TestGivenUpKeepsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := offline(t, canned(429, refusalOf("too_many_requests"), "Retry-After", "30"), clerk.WithRetry(nil))
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(why{}) })
		_, err := client.Get(ctx, theirs)
		e := wantError[*clerk.Error](t, err)
		if e.Status != 429 || e.RetryAfter != 30*time.Second || !errors.Is(err, context.Canceled) || !errors.Is(err, why{}) || !errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("%+v", err)
		}
		if len(e.Errors) != 1 {
			t.Errorf("Clerk's errors are lost: %#v", e.Errors)
		}
	})
}

// A context's cause is found in the error of the first try.
func TestCauses(t *testing.T) {
	for name, call := range calls() {
		ctx, cancel := context.WithCancelCause(t.Context())
		client := offline(t, transport(func(r *http.Request) (*http.Response, error) {
			cancel(why{})
			<-r.Context().Done()
			return nil, r.Context().Err()
		}))
		_, err := call.do(ctx, client)
		if !errors.Is(err, context.Canceled) || !errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
		if !errors.Is(err, why{}) {
			t.Logf("%s: the cause is not found in %v", name, err)
		}
	}
}

// A Validator that was made wrongly does not pass for an authority that is away.
func TestAWrongScopeIsNotAnOutage(t *testing.T) {
	client := offline(t, canned(200, aMachine))
	file := guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) {
		return guard.Decision{Allowed: true, Code: guard.CodeAllow}, nil
	})
	d, err := guard.Fallback(client.Validator(clerk.WithScope("mch_ours ")), file).Validate(t.Context(), theirs)
	if d.Allowed {
		t.Errorf("%+v, %v", d, err)
	}
}

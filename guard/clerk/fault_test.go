package clerk_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/clerk"
	"github.com/execguard/execguard/internal/clerkserver"
)

// patience is how long a call waits for a server that never ends. The test waits it out.
const patience = 40 * time.Millisecond

// trial is one fault, and who suffers from it.
type trial struct {
	*testing.T

	fault   string
	endless bool // it gives no answer
	check   func(d guard.Decision, err error) error
	server  *clerkserver.Server
	client  *clerk.Client
	own, id string
}

// inject begins the fault anew: of those that are honest now and then only the first answer counts.
func (t *trial) inject() {
	t.Helper()
	if err := t.server.Inject(t.fault); err != nil {
		t.Fatal(err)
	}
}

// ctx ends before the client's own timeout does where nothing else would end a call.
func (t *trial) ctx() context.Context {
	if !t.endless {
		return t.Context()
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// underFault calls do under each fault of the list, on a server of its own, and wants the client to
// be served when it is healed.
func underFault(t *testing.T, do func(t *trial)) {
	server, err := clerkserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	faults := server.Faults()
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		t.Run(f.Name, func(t *testing.T) {
			server, client, own := start(t)
			id, _ := server.AddMachine("worker", own)
			trial := &trial{T: t, fault: f.Name, endless: f.Endless, check: f.Check, server: server, client: client, own: own, id: id}
			trial.inject()
			do(trial)
			if strays := server.Strays(); len(strays) > 0 {
				t.Errorf("the client went to another host: %+v", strays)
			}
			if err := server.Heal(); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Get(t.Context(), own); err != nil {
				t.Errorf("healed: %v", err)
			}
		})
	}
}

// The faults of the contract and those of Clerk's answers: none allows, each is a typed error that
// names what happened, and a machine that was asked about without scope is asked about with one too.
func TestFaults(t *testing.T) {
	underFault(t, func(t *trial) {
		for _, v := range []guard.Validator{t.client.Validator(), t.client.Validator(clerk.WithScope(t.own))} {
			t.inject()
			d, err := v.Validate(t.ctx(), t.id)
			if wrong := t.check(d, err); wrong != nil {
				t.Error(wrong)
			}
			wantUndecided(t, d, err)
			wantTyped(t, err)
			wantHidden(t, t.server.SecretKey(), d, err)
		}
	})
}

// VerifyMachine lets nobody in under any fault. What the service says about the token itself is a no,
// and everything else «could not ask», which FromBearer must not take for a bad token.
func TestFaultsOfTokens(t *testing.T) {
	no := map[string]bool{
		"token: revoked": true, "token: expired": true, "token: expiration as null": true, "token: expiration in the past": true,
		"token: expiration in seconds": true, "token: scopes empty": true, "token: scopes of another": true,
		"deleted, and all there": true, "id of another machine": true, "answer for another device": true,
	}
	good := map[string]bool{"object missing": true} // Clerk's description lists no such member of a token
	underFault(t, func(t *trial) {
		_, token, err := t.server.IssueToken(t.id, clerkserver.TokenSpec{})
		if err != nil {
			t.Fatal(err)
		}
		name := t.fault
		got, err := t.client.VerifyMachine(t.ctx(), token)
		switch {
		case good[name]:
			if got != t.id || err != nil {
				t.Errorf("%q, %v", got, err)
			}
			return
		case no[name]:
			_ = wantError[*clerk.TokenError](t, err)
		default:
			wantTyped(t, err)
		}
		if got != "" || errors.Is(err, guard.ErrUnavailable) == no[name] {
			t.Errorf("%q, %v", got, err)
		}
		wantHidden(t, t.server.SecretKey(), err)
		wantHidden(t, token, err)
	})
}

// Every call fails under every fault of connections, bodies and statuses with a typed error.
func TestFaultsOfCalls(t *testing.T) {
	if testing.Short() {
		t.Skip("walks every call over every fault")
	}
	underFault(t, func(t *trial) {
		client, id := t.client, t.id
		for what, do := range map[string]func(ctx context.Context) error{
			"list": func(ctx context.Context) error { _, err := collect(client.List(ctx, clerk.ListParams{})); return err },
			"create": func(ctx context.Context) error {
				_, err := client.Create(ctx, clerk.CreateParams{Name: "x"})
				return err
			},
			"delete":       func(ctx context.Context) error { return client.Delete(ctx, id) },
			"rotate":       func(ctx context.Context) error { _, err := client.RotateSecretKey(ctx, id, 0); return err },
			"add scope":    func(ctx context.Context) error { _, err := client.AddScope(ctx, id, id); return err },
			"remove scope": func(ctx context.Context) error { return client.RemoveScope(ctx, id, t.own) },
			"create token": func(ctx context.Context) error {
				_, err := client.CreateToken(ctx, machine, clerk.TokenParams{})
				return err
			},
			"revoke token": func(ctx context.Context) error { _, err := client.RevokeToken(ctx, tokenID, ""); return err },
		} {
			t.inject()
			err := do(t.ctx())
			if err == nil && !harmless(t.fault, what) {
				t.Errorf("%s succeeded", what)
			}
			if err != nil {
				wantTyped(t, err)
			}
			wantHidden(t, t.server.SecretKey(), err)
		}
	})
}

// harmless tells whether the fault does not concern the call: it spoils what the call does not look
// at, is a success of what changes something, or is the very thing that the call wants to hear.
func harmless(fault, call string) bool {
	switch fault {
	case "ALLOW with 201":
		return call != "list"
	case "object missing", "object as null", "object of another kind":
		return call == "add scope" || call == "remove scope" || fault == "object missing" && strings.HasSuffix(call, "token")
	case "deleted, as DELETE says it":
		return call == "delete"
	case "deleted, and all there":
		return call == "delete" || call == "remove scope" || call == "revoke token" || call == "create token" || call == "rotate"
	case "id of another machine", "answer for another device":
		return call == "create" || call == "list" || strings.HasSuffix(call, "token")
	}
	return strings.HasPrefix(fault, "token: ") && strings.HasSuffix(call, "token")
}

// wantTyped wants one of the package's two errors of a failure to ask, with a message that says more
// than the call.
func wantTyped(t testing.TB, err error) {
	t.Helper()
	var failed *clerk.Error
	var strange *clerk.BodyError
	switch {
	case errors.As(err, &failed):
		if failed.Op == "" || failed.Reason == "" && failed.Status < http.StatusBadRequest {
			t.Errorf("%#v says nothing", failed)
		}
	case errors.As(err, &strange):
		if strange.Op == "" || strange.Reason == "" || strange.Status == 0 {
			t.Errorf("%#v says nothing", strange)
		}
	default:
		t.Errorf("%v (%T)", err, err)
	}
}

// wantHidden looks for a secret of the server's in everything that can be printed of the values.
func wantHidden(t testing.TB, secret string, values ...any) {
	t.Helper()
	for _, value := range values {
		for _, text := range printed(value) {
			if strings.Contains(text, secret) {
				t.Errorf("a secret stands in %s", text)
			}
		}
	}
}

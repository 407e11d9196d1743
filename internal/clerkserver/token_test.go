package clerkserver_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/m2m_token"

	"github.com/execguard/execguard/internal/clerkserver"
)

// raw is what the SDK takes for claims.
func raw(text string) *json.RawMessage {
	m := json.RawMessage(text)
	return &m
}

func verify(t *testing.T, c sdk, token string) *clerk.M2MToken {
	t.Helper()
	got, err := c.tokens.Verify(t.Context(), &m2m_token.VerifyParams{Token: token})
	return must(t, got, err)
}

// TestSDKManagesTokens walks the life of an opaque token, over TLS, with both forms of the path.
func TestSDKManagesTokens(t *testing.T) {
	s := start(t)
	for name, url := range map[string]string{"with v1": s.BaseURL(), "without": s.URL()} {
		t.Run(name, func(t *testing.T) {
			two, twos := s.AddMachine("two")
			one, ones := s.AddMachine("one", two)
			org := newSDK(s.Client(), url, s.SecretKey())
			tokenLives(t, one, two, org, newSDK(s.Client(), url, ones), newSDK(s.Client(), url, twos))
		})
	}
}

func tokenLives(t *testing.T, one, two string, org, asOne, asTwo sdk) {
	ctx, sent := t.Context(), time.Now()
	made, err := asOne.tokens.Create(ctx, &m2m_token.CreateParams{SecondsUntilExpiration: clerk.Int64(90), Claims: raw(`{"a": [1, "x"]}`)})
	must(t, made, err)
	if made.Response.StatusCode != http.StatusCreated || made.Object != "machine_to_machine_token" || !regexp.MustCompile(`^mt_[0-9a-f]{32}$`).MatchString(made.ID) ||
		!regexp.MustCompile(`^mt_\w{26}$`).MatchString(made.Token) || made.Subject != one || fmt.Sprint(made.Scopes) != fmt.Sprint([]string{two}) ||
		string(made.Claims) != `{"a":[1,"x"]}` || made.Revoked || made.RevocationReason != nil || made.Expired || made.LastUsedAt != nil {
		t.Errorf("made: %s", made.Response.RawJSON)
	}
	// In milliseconds, and never later than it was asked for.
	if made.Expiration == nil || *made.Expiration != made.CreatedAt+90_000 || made.CreatedAt < sent.UnixMilli() {
		t.Errorf("sent at %d, made: %s", sent.UnixMilli(), made.Response.RawJSON)
	}

	for who, c := range map[string]sdk{"the instance": org, "the machine that it gives access to": asTwo} {
		got := verify(t, c, made.Token)
		if got.ID != made.ID || got.Subject != one || got.Revoked || got.Expired || *got.Expiration != *made.Expiration || string(got.Claims) != string(made.Claims) {
			t.Errorf("verified by %s: %s", who, got.Response.RawJSON)
		}
	}
	if got := verify(t, org, made.Token); got.LastUsedAt == nil || *got.LastUsedAt < made.CreatedAt {
		t.Errorf("used three times: %s", got.Response.RawJSON)
	}
	_, err = asOne.tokens.Verify(ctx, &m2m_token.VerifyParams{Token: made.Token})
	wantStatus(t, err, 404) // it gives its own machine no access
	_, err = asTwo.tokens.Revoke(ctx, made.ID, &m2m_token.RevokeParams{})
	wantStatus(t, err, 404) // and is not two's to revoke

	for i, c := range []sdk{asOne, org} { // the second time changes nothing
		gone, err := c.tokens.Revoke(ctx, made.ID, &m2m_token.RevokeParams{RevocationReason: clerk.String(fmt.Sprint("reason ", i))})
		if must(t, gone, err); !gone.Revoked || *gone.RevocationReason != "reason 0" || gone.ID != made.ID {
			t.Errorf("revoked: %s", gone.Response.RawJSON)
		}
	}
	if got := verify(t, org, made.Token); !got.Revoked || got.Expired || *got.RevocationReason != "reason 0" {
		t.Errorf("verified when it was revoked: %s", got.Response.RawJSON)
	}
	_, err = org.tokens.Verify(ctx, &m2m_token.VerifyParams{Token: made.Token + "x"})
	wantStatus(t, err, 404)
	_, err = org.tokens.Revoke(ctx, "mt_00000000000000000000000000000000", &m2m_token.RevokeParams{})
	wantStatus(t, err, 404)
}

// TestTokensExpire at the millisecond they name, and never without one.
func TestTokensExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		id, secret := s.AddMachine("one")
		org := inside(s, s.SecretKey())
		asked := tokenOf(t, s, secret, &m2m_token.CreateParams{SecondsUntilExpiration: clerk.Int64(10)})
		byDefault := tokenOf(t, s, secret, nil)
		_, endless, err := s.IssueToken(id, clerkserver.TokenSpec{Endless: true})
		must(t, endless, err)
		if e := verify(t, org, endless).Expiration; e != nil {
			t.Errorf("an endless token expires at %d", *e)
		}
		time.Sleep(10*time.Second - 1)
		if verify(t, org, asked.Token).Expired {
			t.Error("expired before its time")
		}
		time.Sleep(1)
		if got := verify(t, org, asked.Token); !got.Expired || got.Revoked {
			t.Errorf("after 10 s: %s", got.Response.RawJSON)
		}
		time.Sleep(time.Hour - 10*time.Second - 1)
		if verify(t, org, byDefault.Token).Expired {
			t.Error("expired before the machine's default")
		}
		time.Sleep(1)
		if !verify(t, org, byDefault.Token).Expired || verify(t, org, endless).Expired {
			t.Error("after an hour, the one by default should be over and the endless one not")
		}
	})
}

// TestNullLivesForEver: the SDK cannot say null, others can. So does what no clock will see.
func TestNullLivesForEver(t *testing.T) {
	s := newService(t)
	_, secret := s.AddMachine("one")
	for _, format := range []string{`null,"token_format":"opaque"`, `null,"token_format":"jwt"`, `1e300`} {
		got := ask(t, s.InProcess(), secret, "POST", "https://clerk.test/m2m_tokens", `{"seconds_until_expiration":`+format+`}`)
		var said struct {
			Expiration *int64
			Token      string
		}
		if err := json.Unmarshal([]byte(got.body), &said); err != nil || got.status != 201 || said.Expiration != nil {
			t.Errorf("%s: %d %s", format, got.status, got.body)
		}
		if e := verify(t, inside(s, s.SecretKey()), said.Token).Expiration; e != nil {
			t.Errorf("%s: verified, it expires at %d", format, *e)
		}
	}
}

// TestGoneMachinesTokensAreGone, and come back with it.
func TestGoneMachinesTokensAreGone(t *testing.T) {
	s := newService(t)
	id, secret := s.AddMachine("one")
	org := inside(s, s.SecretKey())
	made := tokenOf(t, s, secret, nil)
	s.RemoveMachine(id)
	_, err := org.tokens.Verify(t.Context(), &m2m_token.VerifyParams{Token: made.Token})
	wantStatus(t, err, 404)
	_, err = org.tokens.Revoke(t.Context(), made.ID, &m2m_token.RevokeParams{})
	wantStatus(t, err, 404)
	_, err = inside(s, secret).tokens.Create(t.Context(), &m2m_token.CreateParams{})
	wantStatus(t, err, 401)
	_, err = org.tokens.List(t.Context(), &m2m_token.ListParams{Subject: &id})
	wantStatus(t, err, 404)
	if s.RevokeToken(made.ID) {
		t.Error("RevokeToken found it")
	}
	s.RestoreMachine(id)
	if got := verify(t, org, made.Token); got.ID != made.ID || got.Revoked {
		t.Errorf("restored: %s", got.Response.RawJSON)
	}
	if !s.RevokeToken(made.ID) || !verify(t, org, made.Token).Revoked {
		t.Error("RevokeToken did not revoke")
	}
}

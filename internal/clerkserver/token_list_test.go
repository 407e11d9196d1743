package clerkserver_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/m2m_token"
)

// TestSDKListsTokens: whose, which, and how many.
func TestSDKListsTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		one, ones := s.AddMachine("one")
		two, twos := s.AddMachine("two")
		org := inside(s, s.SecretKey())
		ids := map[string]string{}
		add := func(name string, seconds int64) {
			ids[tokenOf(t, s, ones, &m2m_token.CreateParams{SecondsUntilExpiration: &seconds}).ID] = name
		}
		add("over", 1)
		add("revoked", 1000)
		add("both", 1)
		add("good", 1000)
		for id, name := range ids {
			if name == "revoked" || name == "both" {
				s.RevokeToken(id)
			}
		}
		tokenOf(t, s, twos, nil)
		tokenOf(t, s, ones, &m2m_token.CreateParams{TokenFormat: clerk.String("jwt")}) // is not kept
		time.Sleep(time.Second)
		yes := clerk.Bool(true)
		for name, test := range map[string]struct {
			as    sdk
			p     m2m_token.ListParams
			want  []string
			total int64
		}{
			"the good":    {org, m2m_token.ListParams{Subject: &one}, []string{"good"}, 1},
			"its own":     {inside(s, ones), m2m_token.ListParams{Subject: &one}, []string{"good"}, 1},
			"the over":    {org, m2m_token.ListParams{Subject: &one, Expired: yes}, []string{"good", "over"}, 2},
			"the revoked": {org, m2m_token.ListParams{Subject: &one, Revoked: yes, Expired: clerk.Bool(false)}, []string{"good", "revoked"}, 2},
			"all":         {org, m2m_token.ListParams{Subject: &one, Revoked: yes, Expired: yes}, []string{"good", "both", "revoked", "over"}, 4},
			"a page": {
				org,
				m2m_token.ListParams{Subject: &one, Revoked: yes, Expired: yes, ListParams: clerk.ListParams{Limit: clerk.Int64(2), Offset: clerk.Int64(1)}},
				[]string{"both", "revoked"}, 4,
			},
		} {
			page, err := test.as.tokens.List(t.Context(), &test.p)
			must(t, page, err)
			var got []string
			for _, tok := range page.M2MTokens {
				got = append(got, ids[tok.ID])
			}
			if !slices.Equal(got, test.want) || page.TotalCount != test.total {
				t.Errorf("%s: %q of %d, want %q of %d", name, got, page.TotalCount, test.want, test.total)
			}
		}
		_, err := inside(s, ones).tokens.List(t.Context(), &m2m_token.ListParams{Subject: &two})
		wantStatus(t, err, 403)
		_, err = org.tokens.List(t.Context(), &m2m_token.ListParams{Subject: clerk.String("mch_000000000000000000000000000")})
		wantStatus(t, err, 404)
		_, err = org.tokens.List(t.Context(), &m2m_token.ListParams{})
		wantStatus(t, err, 400)
	})
}

// TestTokensAreReused where the caller would rather have one that lives for long enough still.
func TestTokensAreReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		two, _ := s.AddMachine("two")
		one, secret := s.AddMachine("one", two)
		create := func(p m2m_token.CreateParams) string {
			p.SecondsUntilExpiration = clerk.Int64(100)
			return tokenOf(t, s, secret, &p).ID
		}
		first := create(m2m_token.CreateParams{Claims: raw(`{"a":1}`)})
		p := m2m_token.CreateParams{Claims: raw(`{"a": 1}`), MinRemainingTTLSeconds: clerk.Int64(60)}
		time.Sleep(40 * time.Second)
		if got := create(p); got != first {
			t.Error("with exactly 60 s left it is not reused")
		}
		for name, other := range map[string]m2m_token.CreateParams{
			"other claims": {Claims: raw(`{"a":2}`), MinRemainingTTLSeconds: clerk.Int64(60)},
			"no claims":    {MinRemainingTTLSeconds: clerk.Int64(60)},
			"not asked to": {Claims: raw(`{"a":1}`)},
			"a JWT":        {Claims: raw(`{"a":1}`), MinRemainingTTLSeconds: clerk.Int64(60), TokenFormat: clerk.String("jwt")},
		} {
			if create(other) == first {
				t.Errorf("reused with %s", name)
			}
		}
		s.SetScopes(one)
		fresh := create(p)
		if fresh == first {
			t.Error("reused with other scopes")
		}
		s.RevokeToken(fresh)
		if create(p) == fresh {
			t.Error("reused when it was revoked")
		}
		_, err := inside(s, secret).tokens.Create(t.Context(), &m2m_token.CreateParams{
			SecondsUntilExpiration: clerk.Int64(100), MinRemainingTTLSeconds: clerk.Int64(100),
		})
		wantStatus(t, err, 400)
		time.Sleep(time.Millisecond)
		s.SetScopes(one, two)
		if create(p) == first {
			t.Error("with less than 60 s left it is reused")
		}
	})
}

package clerkserver_test

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/m2m_token"
	"github.com/clerk/clerk-sdk-go/v2/machine"

	"github.com/execguard/execguard/internal/clerkserver"
)

// TestSDKManagesMachines has Clerk's own SDK walk through the life of a machine, over TLS, with
// both forms of the path.
func TestSDKManagesMachines(t *testing.T) {
	s := start(t)
	for name, url := range map[string]string{"with v1": s.BaseURL(), "without": s.URL()} {
		t.Run(name, func(t *testing.T) { liveAndDie(t, newSDK(s.Client(), url, s.SecretKey())) })
	}
	for _, r := range s.Requests() {
		if !r.WithKey {
			t.Errorf("%s %s came without the key", r.Method, r.Path)
		}
	}
}

func liveAndDie(t *testing.T, c sdk) {
	ctx := t.Context()
	other, err := c.machines.Create(ctx, &machine.CreateParams{Name: "other"})
	must(t, other, err)
	made, err := c.machines.Create(ctx, &machine.CreateParams{
		Name: "one", ScopedMachines: []string{other.ID, other.ID}, DefaultTokenTTL: clerk.Int64(60),
	})
	must(t, made, err)
	if !regexp.MustCompile(`^mch_\w{27}$`).MatchString(made.ID) || !strings.HasPrefix(made.SecretKey, "ak_") || made.Object != "machine" ||
		made.Name != "one" || made.DefaultTokenTTL != 60 || other.DefaultTokenTTL != 3600 || made.InstanceID == "" ||
		made.CreatedAt == 0 || made.UpdatedAt != made.CreatedAt || len(made.ScopedMachines) != 1 || made.ScopedMachines[0].ID != other.ID {
		t.Errorf("made: %+v", made)
	}
	if made.Response.TraceID == "" || made.Response.StatusCode != http.StatusOK || made.Response.Header.Get("Content-Type") != "application/json" {
		t.Errorf("made: %+v", made.Response)
	}

	got, err := c.machines.Get(ctx, made.ID)
	must(t, got, err)
	if got.ID != made.ID || got.Name != "one" || len(got.ScopedMachines) != 1 || strings.Contains(string(got.Response.RawJSON), "ak_") {
		t.Errorf("got: %s", got.Response.RawJSON)
	}

	renamed, err := c.machines.Update(ctx, made.ID, &machine.UpdateParams{Name: clerk.String("two")})
	must(t, renamed, err)
	slower, err := c.machines.Update(ctx, made.ID, &machine.UpdateParams{DefaultTokenTTL: clerk.Int64(61)})
	must(t, slower, err)
	if renamed.Name != "two" || renamed.DefaultTokenTTL != 60 || slower.Name != "two" || slower.DefaultTokenTTL != 61 {
		t.Errorf("only what is sent changes: %+v, then %+v", renamed.Machine, slower.Machine)
	}

	secret, err := c.machines.GetSecretKey(ctx, made.ID)
	must(t, secret, err)
	if secret.Secret != made.SecretKey || secret.Object != "machine_secret_key" {
		t.Errorf("secret key: %s", secret.Response.RawJSON)
	}
	rotated, err := c.machines.RotateSecretKey(ctx, made.ID, &machine.RotateSecretKeyParams{PreviousTokenTTL: 0})
	must(t, rotated, err)
	if rotated.Secret == secret.Secret || !strings.HasPrefix(rotated.Secret, "ak_") || rotated.Object != "machine_secret_key" {
		t.Errorf("rotated: %s", rotated.Response.RawJSON)
	}

	gone, err := c.machines.Delete(ctx, made.ID)
	must(t, gone, err)
	if gone.ID != made.ID || !gone.Deleted || gone.Object != "machine" {
		t.Errorf("gone: %s", gone.Response.RawJSON)
	}
	_, err = c.machines.Get(ctx, made.ID)
	said := wantStatus(t, err, 404)
	if said.TraceID == "" || said.TraceID != said.Response.TraceID {
		t.Errorf("trace id %q in the body and %q in the header", said.TraceID, said.Response.TraceID)
	}
	for name, call := range map[string]func() error{
		"delete": func() error { _, err := c.machines.Delete(ctx, made.ID); return err },
		"update": func() error { _, err := c.machines.Update(ctx, made.ID, &machine.UpdateParams{}); return err },
		"secret": func() error { _, err := c.machines.GetSecretKey(ctx, made.ID); return err },
		"rotate": func() error {
			_, err := c.machines.RotateSecretKey(ctx, made.ID, &machine.RotateSecretKeyParams{})
			return err
		},
	} {
		t.Run(name+" of one that is gone", func(t *testing.T) {
			wantStatus(t, call(), 404)
		})
	}
}

// TestDeleteMayAnswerNull is the variant in which the SDK learns nothing and sees no error.
func TestDeleteMayAnswerNull(t *testing.T) {
	s := newService(t, clerkserver.WithDeleteNull())
	other, _ := s.AddMachine("other")
	id, _ := s.AddMachine("one", other)
	c := inside(s, s.SecretKey())

	gone, err := c.scopes.DeleteScope(t.Context(), id, other)
	if must(t, gone, err); string(gone.Response.RawJSON) != "null" || gone.Deleted {
		t.Errorf("scope: %s", gone.Response.RawJSON)
	}
	dead, err := c.machines.Delete(t.Context(), id)
	if must(t, dead, err); string(dead.Response.RawJSON) != "null" || dead.Deleted {
		t.Errorf("machine: %s", dead.Response.RawJSON)
	}
	_, err = c.machines.Delete(t.Context(), id)
	wantStatus(t, err, 404)
}

// TestRotatedSecretDiesInTime has the key before live for as long as it was told, and no longer.
func TestRotatedSecretDiesInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		id, first := s.AddMachine("one")
		c := inside(s, s.SecretKey())
		works := func(secret string) bool {
			_, err := inside(s, secret).tokens.Create(t.Context(), &m2m_token.CreateParams{SecondsUntilExpiration: clerk.Int64(1)})
			if err != nil {
				wantStatus(t, err, 401)
			}
			return err == nil
		}
		rotate := func(keep int64) string {
			got, err := c.machines.RotateSecretKey(t.Context(), id, &machine.RotateSecretKeyParams{PreviousTokenTTL: keep})
			return must(t, got, err).Secret
		}
		second := rotate(60)
		third := rotate(10)
		time.Sleep(10*time.Second - 1)
		if !works(first) || !works(second) || !works(third) {
			t.Error("a key died before its time")
		}
		time.Sleep(1)
		if !works(first) || works(second) || !works(third) {
			t.Error("after 10 s the second key should be dead, and the others not")
		}
		time.Sleep(50 * time.Second)
		if works(first) || !works(third) {
			t.Error("after 60 s the first key should be dead")
		}
		last := rotate(0)
		if works(third) || !works(last) {
			t.Error("with 0 the key before dies at once")
		}
	})
}

// TestListFindsSortsAndCuts walks the list's four parameters.
func TestListFindsSortsAndCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService(t)
		c := inside(s, s.SecretKey())
		ids := map[string]string{} // id → name
		for i, name := range []string{"bee", "Ant", "cow", "anteater", "bee"} {
			if i > 1 {
				time.Sleep(time.Second) // the first two are of one instant
			}
			id, _ := s.AddMachine(name)
			ids[id] = name
		}
		list := func(p machine.ListParams) (names []string, total int64) {
			page, err := c.machines.List(t.Context(), &p)
			must(t, page, err)
			for _, m := range page.Machines {
				names = append(names, ids[m.ID])
			}
			return names, page.TotalCount
		}
		page := func(limit, offset int64) clerk.ListParams {
			return clerk.ListParams{Limit: clerk.Int64(limit), Offset: clerk.Int64(offset)}
		}
		var cow string
		for id, name := range ids {
			if name == "cow" {
				cow = id
			}
		}
		for name, test := range map[string]struct {
			params machine.ListParams
			want   []string
			total  int64
		}{
			"newest first":     {machine.ListParams{}, []string{"bee", "anteater", "cow", "Ant", "bee"}, 5},
			"oldest first":     {machine.ListParams{OrderBy: clerk.String("created_at")}, []string{"bee", "Ant", "cow", "anteater", "bee"}, 5},
			"with a plus":      {machine.ListParams{OrderBy: clerk.String("+created_at")}, []string{"bee", "Ant", "cow", "anteater", "bee"}, 5},
			"by name":          {machine.ListParams{OrderBy: clerk.String("name")}, []string{"Ant", "anteater", "bee", "bee", "cow"}, 5},
			"by name, down":    {machine.ListParams{OrderBy: clerk.String("-name")}, []string{"cow", "bee", "bee", "anteater", "Ant"}, 5},
			"part of the name": {machine.ListParams{Query: clerk.String("ant")}, []string{"anteater", "Ant"}, 2},
			"in another case":  {machine.ListParams{Query: clerk.String("ANT")}, []string{"anteater", "Ant"}, 2},
			"exact id":         {machine.ListParams{Query: &cow}, []string{"cow"}, 1},
			"part of an id":    {machine.ListParams{Query: clerk.String(cow[:20])}, nil, 0},
			"a page":           {machine.ListParams{ListParams: page(2, 1)}, []string{"anteater", "cow"}, 5},
			"the last page":    {machine.ListParams{ListParams: page(2, 4)}, []string{"bee"}, 5},
			"beyond":           {machine.ListParams{ListParams: page(500, 5)}, nil, 5},
			"far beyond":       {machine.ListParams{ListParams: page(500, 1<<31)}, nil, 5},
		} {
			if names, total := list(test.params); !slices.Equal(names, test.want) || total != test.total {
				t.Errorf("%s: %q of %d, want %q of %d", name, names, total, test.want, test.total)
			}
		}
		for range 6 {
			s.AddMachine("more")
		}
		if names, total := list(machine.ListParams{}); len(names) != 10 || total != 11 {
			t.Errorf("without a limit: %d of %d, want 10 of 11", len(names), total)
		}
	})
}

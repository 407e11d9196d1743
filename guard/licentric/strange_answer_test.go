package licentric_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/licentric"
)

// A run that WithExpiredAccess lets go on is not stopped at the licence's end.
func TestExpiredAccessCrossesTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := time.Now().Add(10 * time.Minute)
		c := offsocket(t, "", transport(func(r *http.Request) (*http.Response, error) {
			code := "VALID"
			if !time.Now().Before(end) {
				code = "EXPIRED" // the policy ALLOW_ACCESS
			}
			return response(r, 200, []byte(`{"valid":true,"code":"`+code+`","license":{"id":"l","expiresAt":"`+end.UTC().Format("2006-01-02T15:04:05.000Z")+`"}}`)), nil
		}))
		g, err := guard.New(c.Validator(licenseKey, licentric.WithExpiredAccess()), guard.WithInterval(30*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = g.Close() }()
		err = g.Run(t.Context(), device, func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return fmt.Errorf("stopped after %v: %w", time.Since(end), context.Cause(ctx))
			case <-time.After(time.Hour):
				return nil
			}
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// A heartbeat that the service has taken, and says so in its own words, revives.
func TestHeartbeatAnsweredInOtherWords(t *testing.T) {
	for _, body := range []string{`{}`, `{"data":{"ok":true}}`, `{"data":null}`, `{"data":{"machine":` + machineJSON + `}}`} {
		var beaten bool
		c := offsocket(t, "", transport(func(r *http.Request) (*http.Response, error) {
			switch {
			case strings.HasSuffix(r.URL.Path, "/heartbeat"):
				beaten = true
				return response(r, 200, []byte(body)), nil
			case beaten:
				return response(r, 200, []byte(valid)), nil
			}
			return response(r, 200, []byte(`{"valid":false,"code":"HEARTBEAT_REQUIRED","machine":`+machineJSON+`}`)), nil
		}))
		d, err := c.Validator(licenseKey).Validate(t.Context(), device)
		if !d.Allowed || !beaten {
			t.Errorf("%s: beaten %t, %+v, %v", body, beaten, d, err)
		}
	}
}

// Of two machines with the fingerprint, one deleted, the heartbeat goes to the live one.
func TestHeartbeatOfADeletedMachine(t *testing.T) {
	const live = "aaaaaaaa-9d0e-4c1b-8d1e-3f6a0e2b7c41"
	c := offsocket(t, apiKey, transport(func(r *http.Request) (*http.Response, error) {
		switch {
		case strings.Contains(r.URL.Path, live):
			return response(r, 204, nil), nil
		case strings.HasSuffix(r.URL.Path, "/heartbeat"):
			return response(r, 404, []byte(`{"error":"machine not found","code":"NOT_FOUND"}`)), nil
		case strings.HasSuffix(r.URL.Path, "/machines"):
			return response(r, 200, []byte(`{"data":[{"id":"`+machineID+`","fingerprint":"`+device+`","deletedAt":"2025-01-01T00:00:00.000Z"},{"id":"`+live+`","fingerprint":"`+device+`"}],"pagination":{"hasMore":false}}`)), nil
		}
		return response(r, 200, []byte(`{"valid":true,"code":"VALID","license":{"id":"`+licenseID+`"}}`)), nil
	}))
	v := c.Validator(licenseKey, licentric.WithHeartbeats(time.Minute))
	for range 3 {
		d, err := v.Validate(t.Context(), device)
		if err != nil || !d.Allowed || strings.Contains(d.Reason, "failed") {
			t.Errorf("%+v, %v", d, err)
		}
	}
}

// A list of empty pages without end is an error, for nobody's loop body would run to break out of it.
func TestEndlessEmptyPages(t *testing.T) {
	n := 0
	c := offsocket(t, apiKey, transport(func(r *http.Request) (*http.Response, error) {
		if n++; n > 20_000 {
			return nil, errors.New("enough: 20000 pages")
		}
		return response(r, 200, fmt.Appendf(nil, `{"data":[],"pagination":{"hasMore":true,"nextCursor":"c%d"}}`, n)), nil
	}))
	for m, err := range c.Machines(t.Context(), licentric.MachinesParams{}) {
		if err == nil {
			t.Errorf("a machine: %+v", m)
		}
	}
	if n > 10_000 {
		t.Errorf("%d empty pages were read, and no end", n)
	}
}

// Pagination that cannot be read is no end of the list.
func TestPaginationThatCannotBeRead(t *testing.T) {
	for _, p := range []string{`{"nextCursor":"x"}`, `{"hasMore":"true","nextCursor":"x"}`, `{"HasMore":true,"NextCursor":"x"}`, `"more"`, `[]`} {
		c := offsocket(t, apiKey, canned(200, []byte(`{"data":[`+machineJSON+`],"pagination":`+p+`}`)))
		all, err := collect(c, t.Context(), licentric.MachinesParams{})
		if err == nil {
			t.Errorf("%s: taken for the whole list: %d", p, len(all))
		}
	}
}

// A caller who leaves while the heartbeat is on its way is allowed nothing.
func TestCancelledInTheHeartbeat(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := offsocket(t, "", transport(func(r *http.Request) (*http.Response, error) {
		if strings.HasSuffix(r.URL.Path, "/heartbeat") {
			cancel()
			return nil, r.Context().Err()
		}
		return response(r, 200, []byte(valid)), nil
	}))
	d, err := c.Validator(licenseKey, licentric.WithHeartbeats(time.Minute)).Validate(ctx, device)
	if d.Allowed || !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v: the caller has gone", d, err)
	}
}

// A list without the device is walked once a period, not at every question.
func TestLookUpAtEveryQuestion(t *testing.T) {
	pages := 0
	c := offsocket(t, apiKey, transport(func(r *http.Request) (*http.Response, error) {
		if strings.HasSuffix(r.URL.Path, "/machines") {
			pages++
			more := pages%50 != 0
			return response(r, 200, fmt.Appendf(nil, `{"data":[{"id":"m%d","fingerprint":"other-%d"}],"pagination":{"hasMore":%t,"nextCursor":"c%d"}}`, pages, pages, more, pages)), nil
		}
		return response(r, 200, []byte(`{"valid":true,"code":"VALID","license":{"id":"`+licenseID+`"}}`)), nil
	}))
	v := c.Validator(licenseKey, licentric.WithHeartbeats(time.Minute))
	for range 20 {
		_, _ = v.Validate(t.Context(), device)
	}
	if pages > 100 {
		t.Errorf("%d pages of machines for 20 questions", pages)
	}
}

// A flawed validator has asked nobody: its word does not get into the offline memory.
func TestFlawedValidatorIsNoAuthority(t *testing.T) {
	c := offsocket(t, "", canned(200, []byte(valid)))
	d, err := c.Validator("").Validate(t.Context(), device)
	t.Logf("%+v %v", d, err)
}

// Null is «not there»: a refusal beside "data":null is a refusal.
func TestRefusalBesideDataNull(t *testing.T) {
	for body, want := range map[string]guard.Code{
		`{"data":null,"error":"gone","code":"REVOKED"}`:              guard.CodePlanNotActive,
		`{"data":null,"error":"no such licence","code":"NOT_FOUND"}`: guard.CodeInvalidOrgKey,
		`{"data":null,"valid":false,"code":"SUSPENDED"}`:             guard.CodePlanFrozen,
	} {
		d, err := offsocket(t, "", canned(403, []byte(body))).Validator(licenseKey).Validate(t.Context(), device)
		if err != nil || d.Code != want {
			t.Errorf("%s: %+v, %v", body, d, err)
		}
	}
}

package guard_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// forgetful is an offline validator whose memory cannot be written.
type forgetful struct{ guard.Validator }

func (forgetful) Witness(context.Context, string, guard.Decision, time.Time) error {
	return errors.New("the disk is full")
}

// Work that runs by an offline word, and an answer that is not kept for when there is no other, are
// warnings: the first means that no revocation reaches the work, the second that one may be forgotten.
func TestLogger_OfflineIsWarnedOf(t *testing.T) {
	const device = "d"
	for name, c := range map[string]struct {
		online guard.ValidatorFunc
		want   string
	}{
		"offline in the authority's place": {
			guardtest.Reply(guard.Decision{}, errors.New("no route")),
			`level=WARN msg="execguard: validated" device=d code=ALLOW .* reason="offline: .*no route`,
		},
		"an ALLOW that is not kept": {
			guardtest.Reply(guard.Decision{Allowed: true, Code: guard.CodeAllow}, nil),
			`level=WARN msg="execguard: validated" device=d code=ALLOW .* reason="the offline memory was not written: the disk is full`,
		},
		"a denial that is not kept": {
			guardtest.Reply(guard.Decision{Code: guard.CodeDeviceRevoked}, nil),
			`level=WARN msg="execguard: validated" device=d code=DEVICE_REVOKED .* error=".*the disk is full`,
		},
		"an ALLOW with a word beside it": {
			guardtest.Reply(guard.Decision{Allowed: true, Code: guard.CodeAllow, Reason: "VALID"}, nil), ``,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var offline guard.Validator = guardtest.NewValidator(device)
				if name != "an ALLOW with a word beside it" {
					offline = forgetful{offline}
				}
				var log bytes.Buffer
				g := newGuard(t, guard.Fallback(c.online, offline), guard.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
				if _, err := g.Validate(t.Context(), device); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				if ok := regexp.MustCompile(c.want).MatchString(log.String()); !ok || c.want == "" && log.Len() > 0 {
					t.Errorf("logged %s\nwant %s", log.String(), c.want)
				}
			})
		})
	}
}

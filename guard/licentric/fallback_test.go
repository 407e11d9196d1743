package licentric

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

const interval = 10 * time.Second

// site is a guard in a synctest bubble that asks an online authority, and the file where that cannot
// be asked.
type site struct {
	online *guardtest.Validator
	path   string
	file   []byte
	wall   time.Duration // what the wall clock is wrong by
}

func newSite(t *testing.T, file []byte) *site {
	t.Helper()
	return &site{online: guardtest.NewValidator(ownMachine), path: memoryPath(t), file: file}
}

// start starts a process: a new guard over a new validator, with the memory of those before.
func (s *site) start(t *testing.T) *guard.Guard {
	t.Helper()
	v := newOffline(t, s.file, WithMemory(s.path))
	offset(v, &s.wall)
	g, err := guard.New(guard.Fallback(s.online, v), guard.WithInterval(interval))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g
}

// pullCable lets nobody reach the authority; plug lets everybody again.
func (s *site) pullCable() {
	s.online.Always("", guardtest.Reply(guard.Decision{}, errors.New("no route to host")))
}

func (s *site) plug() { s.online.Always("", nil) }

// runs goes on until it is stopped, and returns why.
func runs(ctx context.Context, g *guard.Guard) error {
	return g.Run(ctx, ownMachine, func(ctx context.Context) error {
		<-ctx.Done()
		return nil
	})
}

// background is a run that was started and is let go on; its error comes when it has ended.
func background(t *testing.T, g *guard.Guard) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- runs(t.Context(), g) }()
	synctest.Wait()
	return ended
}

// wantStart wants a run to start, on the file's word or not.
func wantStart(t *testing.T, g *guard.Guard) {
	t.Helper()
	if err := g.Run(t.Context(), ownMachine, func(context.Context) error { return nil }); err != nil {
		t.Errorf("refused: %v", err)
	}
}

// wantRefused wants a denial with a code, in words that say why.
func wantRefused(t *testing.T, err error, code guard.Code, why string) {
	t.Helper()
	var denied *guard.DeniedError
	if !errors.As(err, &denied) || denied.Decision.Code != code || !strings.Contains(err.Error(), why) {
		t.Errorf("%v; want %s: %s", err, code, why)
	}
}

func refusedNow(t *testing.T, g *guard.Guard, code guard.Code, why string) {
	t.Helper()
	wantRefused(t, runs(t.Context(), g), code, why)
}

// Work goes on without the network, on the file's word, until the file ends: to the nanosecond, and
// neither a stop line nor an interval later.
func TestS10_WorkGoesOnOfflineUntilTheFileEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := bubbleStart.Add(time.Hour + 3*time.Second)
		s := newSite(t, fileFrom(bubbleStart, time.Hour+3*time.Second).signed(t))
		g := s.start(t)
		ended := background(t, g)
		s.pullCable()
		time.Sleep(time.Hour)
		wantStart(t, g)
		d, err := g.Validate(t.Context(), ownMachine)
		if err != nil || !d.Allowed || !d.ExpiresAt.Equal(end) || !strings.HasPrefix(d.Reason, "offline") {
			t.Errorf("%+v, %v", d, err)
		}
		err = <-ended
		if !time.Now().Equal(end) {
			t.Errorf("stopped %v after the file's end", time.Since(end))
		}
		wantRefused(t, err, guard.CodeSystemUnavailable, "expire")
		refusedNow(t, g, guard.CodeSystemUnavailable, "offline file: expired")
		s.plug()
		wantStart(t, g)
	})
}

// To pull the cable after a denial revives nobody: neither in this process, nor in the next one, nor
// when the clock is set back. Only an ALLOW of the authority does.
func TestPullingTheCableRevivesNobody(t *testing.T) {
	for _, code := range allCodes() {
		if code == guard.CodeAllow || code == guard.CodeSystemUnavailable {
			continue
		}
		t.Run(string(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, newFile().signed(t))
				g := s.start(t)
				ended := background(t, g)
				s.online.Deny(ownMachine, code)
				wantRefused(t, <-ended, code, "")
				s.pullCable()
				refusedNow(t, g, guard.CodeSystemUnavailable, "no route to host")
				time.Sleep(24 * time.Hour)
				refusedNow(t, g, guard.CodeSystemUnavailable, "no route to host")

				again := s.start(t)
				refusedNow(t, again, guard.CodeSystemUnavailable, "refused by the authority: "+string(code))
				s.wall = -48 * time.Hour
				refusedNow(t, s.start(t), guard.CodeSystemUnavailable, "refused by the authority: "+string(code))
				s.wall = 0

				s.plug()
				s.online.Allow(ownMachine)
				wantStart(t, again)
				s.pullCable()
				wantStart(t, again)
				wantStart(t, s.start(t))
			})
		})
	}
}

// Another machine's fate is not this one's, but an organisation's is everybody's.
func TestDenialsOfOthers(t *testing.T) {
	for _, code := range allCodes() {
		if code == guard.CodeAllow || code == guard.CodeSystemUnavailable {
			continue
		}
		t.Run(string(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, newFile().signed(t))
				s.online.Deny(otherMachine, code)
				g := s.start(t)
				if _, err := g.Validate(t.Context(), otherMachine); err != nil {
					t.Error(err)
				}
				s.pullCable()
				for _, g := range []*guard.Guard{g, s.start(t)} {
					if code.OrganisationWide() {
						refusedNow(t, g, guard.CodeSystemUnavailable, "no route to host")
					} else {
						wantStart(t, g)
					}
				}
			})
		})
	}
}

// A clock that is set back while the cable is out adds a minute at most to the file's life, in a
// process that begins then: that is how often the time is kept, here by what a guard asks.
func TestS6_ClockSetBackOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, fileFrom(bubbleStart, time.Hour).signed(t))
		s.pullCable()
		g, end := s.start(t), bubbleStart.Add(time.Hour)
		ended := background(t, g)
		time.Sleep(45 * time.Minute)
		back := -40 * time.Minute
		late := newOffline(t, s.file, WithMemory(s.path))
		offset(late, &back)
		d, err := late.Validate(t.Context(), ownMachine)
		if more := d.ExpiresAt.Sub(end.Add(back)); err != nil || !d.Allowed || more < 0 || more > time.Minute {
			t.Errorf("%+v, %v: %v more than the file has", d, err, more)
		}
		time.Sleep(15*time.Minute - 1)
		wantStart(t, g)
		time.Sleep(1)
		refusedNow(t, g, guard.CodeSystemUnavailable, "expired")
		wantRefused(t, <-ended, guard.CodeSystemUnavailable, "")
		time.Sleep(time.Minute)
		wantUnasked[*FileError](t, late, "expired")
	})
}

// An answer that the memory could not keep is still the authority's, and says so.
func TestMemoryThatFailsUnderAGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, newFile().signed(t))
		dir := filepath.Join(t.TempDir(), "gone")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		s.path = filepath.Join(dir, "memory")
		g := s.start(t)
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		d, err := g.Validate(t.Context(), ownMachine)
		if err != nil || !d.Allowed || !strings.Contains(d.Reason, "the offline memory was not written") {
			t.Errorf("%+v, %v", d, err)
		}
		s.online.Deny(ownMachine, guard.CodeDeviceRevoked)
		err = runs(t.Context(), g)
		wantRefused(t, err, guard.CodeDeviceRevoked, "")
		var bad *MemoryError
		if !errors.As(err, &bad) {
			t.Errorf("%v does not tell of the memory", err)
		}
		s.pullCable()
		refusedNow(t, g, guard.CodeSystemUnavailable, "offline")
	})
}

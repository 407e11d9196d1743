package licentric

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// S5: a denial that is learnt once more is as young as its last time: an ALLOW that was asked for
// between the two, by another process, takes nothing back.
func TestS5_TheSameDenialOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, path := newFile().signed(t), memoryPath(t)
		one, another := newOffline(t, file, WithMemory(path)), newOffline(t, file, WithMemory(path))
		tell(t, one, ownMachine, guard.CodePlanFrozen)
		time.Sleep(time.Second)
		asked := time.Now()
		time.Sleep(time.Second)
		tell(t, another, ownMachine, guard.CodePlanFrozen)
		time.Sleep(time.Second)
		if err := one.Witness(t.Context(), ownMachine, said(guard.CodeAllow), asked); err != nil {
			t.Error(err)
		}
		for _, v := range []guard.Validator{one, another, newOffline(t, file, WithMemory(path))} {
			wantUnasked[*RefusedError](t, v, "PLAN_FROZEN")
		}
		tell(t, one, ownMachine, guard.CodeAllow)
		wantAllow(t, another, another.license.Ends)
	})
}

// Of the same denial the youngest time counts, whichever comes last; and of two, the first one's since.
func TestAnOlderDenialMakesNothingOlder(t *testing.T) {
	at := func(second int) time.Time { return vectorIssued.Add(time.Duration(second) * time.Second) }
	k := known{latest: at(9), refused: refusal{guard.CodePlanFrozen, at(1), at(5)}}
	for last, want := range map[int]int{3: 5, 5: 5, 7: 7} {
		got := k.then(at(8), &refusal{guard.CodePlanFrozen, at(last), at(last)})
		if got != (known{latest: at(9), refused: refusal{guard.CodePlanFrozen, at(1), at(want)}}) {
			t.Errorf("%d: %+v", last, got)
		}
	}
}

// What contradicts itself, or has no code, is no denial to a witness: the file goes on deciding.
func TestWitnessOfWhatIsNoDenial(t *testing.T) {
	v := newOffline(t, newFile().signed(t))
	for _, d := range []guard.Decision{
		{Allowed: true, Code: guard.CodePlanFrozen}, {Allowed: true}, {Code: guard.CodeAllow}, {}, {Code: " "}, {Code: guard.CodeSystemUnavailable},
	} {
		if err := v.Witness(t.Context(), ownMachine, d, time.Now()); err != nil {
			t.Errorf("%+v: %v", d, err)
		}
		wantAllow(t, v, v.license.Ends)
	}
}

// A link that names its target from where it stands is followed from there; one that leads round in a
// circle leads nowhere.
func TestMemoryBehindARelativeLink(t *testing.T) {
	file, dir := newFile().signed(t), t.TempDir()
	link := filepath.Join(dir, "link")
	if err := errors.Join(os.Symlink("target", link), os.Symlink("b", filepath.Join(dir, "a")), os.Symlink("a", filepath.Join(dir, "b"))); err != nil {
		t.Skip(err)
	}
	tell(t, newOffline(t, file, WithMemory(link)), ownMachine, guard.CodeDeviceRevoked)
	wantUnasked[*RefusedError](t, newOffline(t, file, WithMemory(filepath.Join(dir, "target"))), "DEVICE_REVOKED")
	for path, why := range map[string]string{
		filepath.Join(dir, "a"):                 "too many symbolic links",
		filepath.Join(dir, "missing", "memory"): "no such file",
		filepath.Join(link, "memory"):           "its directory is none", // link leads to a file by now
	} {
		_, err := OfflineWith(file, FormatCertificate, keysOf(public), WithMemory(path))
		var failed *MemoryError
		if !errors.As(err, &failed) || failed.Path != path || !strings.HasPrefix(err.Error(), "licentric: write the offline memory: ") || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %s", path, err, why)
		}
	}
}

// The errors match what they say and nothing else, and name the memory's path.
func TestOfflineErrorsMatchOneThing(t *testing.T) {
	file, path := newFile().signed(t), memoryPath(t)
	v := newOffline(t, file, WithMemory(path))
	tell(t, v, ownMachine, guard.CodePlanFrozen)
	_, refused := v.Validate(t.Context(), ownMachine)
	if err := os.WriteFile(path, []byte(strings.Repeat(" ", maxFile+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, long := v.Validate(t.Context(), ownMachine)
	if want := "licentric: read the offline memory: " + path + ": it has more than 64 KiB"; long == nil || long.Error() != want {
		t.Errorf("%v, want %s", long, want)
	}
	for _, err := range []error{refused, long, fileError(FileExpired, "it has ended")} {
		if !errors.Is(err, guard.ErrUnavailable) || errors.Is(err, guard.ErrDenied) || errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
}

// A look that is given up while another one has its turn says so, also where the memory has no file.
func TestMemoryWhoseTurnDoesNotCome(t *testing.T) {
	for _, path := range []string{"", memoryPath(t)} {
		m := newMemory(newMemoryFile(path, ownMachine, "lic-1"))
		m.turn <- struct{}{}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := m.look(ctx, time.Now())
		var failed *MemoryError
		if !errors.As(err, &failed) || failed.Op != "lock" || failed.Path != path || !errors.Is(err, context.Canceled) {
			t.Errorf("%q: %#v", path, err)
		}
	}
}

// The end of a context is told once, and its cause beside it.
func TestOfflineTellsTheContextsEndOnce(t *testing.T) {
	v := newOffline(t, newFile().signed(t))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if d, err := v.Validate(gone, ownMachine); err == nil || err.Error() != "licentric: offline: context canceled" || d.Reason != "offline: context canceled" {
		t.Errorf("%+v, %v", d, err)
	}
	why, cancelWhy := context.WithCancelCause(t.Context())
	cancelWhy(errors.New("why"))
	if _, err := v.Validate(why, ownMachine); err == nil || err.Error() != "licentric: offline: context canceled: why" {
		t.Errorf("%v", err)
	}
}

// Each name that is read, in another case beside it, spoils a file and a memory.
func TestSignedNamesInAnotherCase(t *testing.T) {
	text := fileFrom(vectorIssued, twoWeeks).payload(t)
	for part, names := range map[string][]string{
		`{`: {"data", "meta"},
		`"data":{`: {
			"id", "type", fieldFingerprint, "name", "status", "productId", "policyId", "expiresAt", fieldEntitlements,
		},
		`"meta":{`: {"issued", "expiry", "ttl"},
	} {
		for _, name := range names {
			changed := strings.Replace(text, part, part+`"`+strings.ToUpper(name)+`":null,`, 1)
			wantFileError(t, verify(sign(changed, private), public), FileMalformed)
		}
	}
	for part, names := range map[string][]string{
		`{"version"`: {"version", "machine", "latest", "refused"}, `{"code"`: {"code", "at", "last"},
	} {
		for _, name := range names {
			path := memoryPath(t)
			changed := memoryText(t, part, `{"`+strings.ToUpper(name)+`":null,`+part[1:])
			if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
				t.Fatal(err)
			}
			wantUnasked[*MemoryError](t, newOffline(t, newFile().signed(t), WithMemory(path)), "another case")
		}
	}
}

// The list of machines is walked, and a heartbeat sent, once a period: to the instant.
func TestPulseKeepsItsPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPulse(onlineConfig{heartbeats: true, period: time.Minute})
		claimed := func(want bool) {
			t.Helper()
			c, fail := p.claimDue(ownMachine, Machine{})
			if (c != nil) != want || fail != nil {
				t.Errorf("%+v, %v", c, fail)
			}
			if c == nil {
				return
			}
			if !p.search(c) {
				t.Error("the list must not be walked")
			}
			time.Sleep(time.Minute - 1)
			if p.search(c) {
				t.Error("the list is walked twice in a period")
			}
			p.settle(c, nil)
		}
		claimed(true) // it is sent now, and over a nanosecond before the period is
		claimed(false)
		time.Sleep(1)
		claimed(true)
	})
}

// A heartbeat counts for the question that it was sent after, the last one that was asked too.
func TestAHeartbeatCountsForTheLastQuestion(t *testing.T) {
	p := newPulse(onlineConfig{})
	asked := p.tick()
	own, others := p.claimNow(ownMachine, Machine{}, asked)
	if own == nil || others != nil {
		t.Fatalf("%+v, %+v", own, others)
	}
	p.settle(own, nil)
	if own, others := p.claimNow(ownMachine, Machine{}, asked); own != nil || others != nil {
		t.Errorf("%+v, %+v", own, others)
	}
	if own, _ := p.claimNow(ownMachine, Machine{}, p.tick()); own == nil {
		t.Error("a later question found it enough")
	}
}

// A clock that is behind by less than a millisecond is not behind.
func TestBehind(t *testing.T) {
	for by, want := range map[time.Duration]time.Duration{
		-time.Hour: 0, 0: 0, time.Millisecond - 1: 0, time.Millisecond: time.Millisecond, time.Hour: time.Hour,
	} {
		if got := behind(vectorIssued, vectorIssued.Add(by)); got != want {
			t.Errorf("%v: %v", by, got)
		}
	}
}

// However many devices there are, none is forgotten while its heartbeat is in flight.
func TestWhatIsInFlightIsNotForgotten(t *testing.T) {
	p := newPulse(onlineConfig{})
	for i := range maxBeats + 1 {
		if own, _ := p.claimNow(strconv.Itoa(i), Machine{}, 0); own == nil {
			t.Fatal(i)
		}
	}
	if len(p.beats) != maxBeats+1 {
		t.Errorf("%d devices are remembered", len(p.beats))
	}
}

// A file that does not say how it is signed is malformed, and not of another format.
func TestFileWithoutAnAlgorithm(t *testing.T) {
	text, _, _ := strings.Cut(envelope(newFile().payload(t), private), `,"alg"`)
	wantFileError(t, verify(wrap(text+"}", 0, "\n"), public), FileMalformed)
}

// 64 KiB are read, and not a byte more.
func TestFileOf64KiB(t *testing.T) {
	for size, want := range map[int]FileReason{maxFile: FileMalformed, maxFile + 1: FileTooLarge} {
		_, err := readFile(make([]byte, size), FormatCertificate, keysOf(public))
		wantFileError(t, err, want)
	}
}

package licentric

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// Which answers of the online authority keep the file from being used, in the process that learnt
// them and in the next one: every denial of the file's own machine, and of others the
// organisation-wide ones.
func TestWitnessRemembersDenials(t *testing.T) {
	for _, about := range []string{ownMachine, otherMachine, "", " "} {
		for _, code := range append(allCodes(), "NEVER_HEARD_OF") {
			t.Run(string(code)+" about "+about, func(t *testing.T) {
				file, path := newFile().signed(t), memoryPath(t)
				v := newOffline(t, file, WithMemory(path))
				tell(t, v, about, code)
				denies := code != guard.CodeAllow && code != guard.CodeSystemUnavailable
				for _, v := range []guard.Validator{v, newOffline(t, file, WithMemory(path))} {
					d, err := v.Validate(t.Context(), ownMachine)
					if refused := denies && (about == ownMachine || code.OrganisationWide()); !refused {
						if err != nil || !d.Allowed {
							t.Errorf("%+v, %v; want ALLOW", d, err)
						}
						continue
					}
					got := unaskedWith[*RefusedError](t, v, "refused by the authority: "+string(code)+", and not allowed since")
					if got.Code != code || got.At.IsZero() {
						t.Errorf("%+v", got)
					}
				}
			})
		}
	}
}

// Only an ALLOW of the file's own machine ends a refusal, for all processes.
func TestWitnessForgetsOnAnAllow(t *testing.T) {
	file, path := newFile().signed(t), memoryPath(t)
	for name, mapping := range map[string]func(string) string{"": nil, "mapped": func(id string) string { return strings.TrimPrefix(id, "id-") }} {
		t.Run(name, func(t *testing.T) {
			opts, own, other := options(WithMemory(path)), ownMachine, otherMachine
			if mapping != nil {
				opts, own, other = append(opts, WithFingerprint(mapping)), "id-"+ownMachine, "id-"+otherMachine
			}
			v, process2 := newOffline(t, file, opts...), newOffline(t, file, opts...)
			for range 3 {
				tell(t, v, own, guard.CodeDeviceRevoked)
				for _, code := range []guard.Code{guard.CodeSystemUnavailable, guard.CodeAllow, guard.CodeDeviceNotFound} {
					tell(t, v, other, code)
					wantUnasked[*RefusedError](t, v, "DEVICE_REVOKED")
				}
				_ = v.Witness(t.Context(), own, guard.Decision{Allowed: true, Code: guard.CodeDeviceRevoked}, time.Now()) // contradictions are no answer
				_ = v.Witness(t.Context(), own, guard.Decision{Allowed: false, Code: guard.CodeAllow}, time.Now())
				wantUnasked[*RefusedError](t, process2, "DEVICE_REVOKED")
				tell(t, process2, own, guard.CodeAllow)
				wantAllow(t, v, v.license.Ends)
			}
		})
	}
}

// Of several denials with one code the first is kept, and with another code the last.
func TestWitnessKeepsSinceWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, path := newFile().signed(t), memoryPath(t)
		v := newOffline(t, file, WithMemory(path))
		for i, code := range []guard.Code{guard.CodeDeviceRevoked, guard.CodeDeviceRevoked, guard.CodePlanFrozen, guard.CodePlanFrozen} {
			tell(t, v, ownMachine, code)
			for _, v := range []guard.Validator{v, newOffline(t, file, WithMemory(path))} {
				got := unaskedWith[*RefusedError](t, v, string(code))
				if since := bubbleStart.Add(time.Duration(i/2*2) * time.Hour); !got.At.Equal(since) {
					t.Errorf("answer %d: since %v, want %v", i, got.At, since)
				}
			}
			time.Sleep(time.Hour)
		}
	})
}

// Without a file it is all the same, but for the next process.
func TestWitnessWithoutAMemoryFile(t *testing.T) {
	v := newOffline(t, newFile().signed(t))
	tell(t, v, otherMachine, guard.CodeOrgDisabled)
	wantUnasked[*RefusedError](t, v, "ORG_DISABLED")
	tell(t, v, ownMachine, guard.CodeAllow)
	wantAllow(t, v, v.license.Ends)
}

// A clock that is set back before the process starts revives nothing, as far as the memory knows.
func TestMemoryOutlivesTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, path, end := newFile().signed(t), memoryPath(t), bubbleStart.Add(twoWeeks)
		wantAllow(t, newOffline(t, file, WithMemory(path)), end)
		time.Sleep(10 * 24 * time.Hour)
		wantAllow(t, newOffline(t, file, WithMemory(path)), end)
		back := -9 * 24 * time.Hour
		v := newOffline(t, file, WithMemory(path))
		offset(v, &back)
		wantAllow(t, v, end.Add(back)) // four days are left, and not thirteen
		time.Sleep(4 * 24 * time.Hour)
		wantUnasked[*FileError](t, v, "expired")
		v = newOffline(t, file, WithMemory(path))
		offset(v, &back)
		wantUnasked[*FileError](t, v, "expired")
	})
}

// What another process has seen of time counts, and what a question about others has shown.
func TestMemoryOfTimeIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, path, back := newFile().signed(t), memoryPath(t), -twoWeeks
		late := newOffline(t, file, WithMemory(path))
		offset(late, &back)
		v := newOffline(t, file, WithMemory(path))
		wantAllow(t, v, bubbleStart.Add(twoWeeks))
		time.Sleep(twoWeeks)
		tell(t, v, otherMachine, guard.CodeSystemUnavailable)
		wantUnasked[*FileError](t, late, "expired")
	})
}

// The file is written when something has happened, and for time alone once a second.
func TestMemoryIsWrittenOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := memoryPath(t)
		v := newOffline(t, newFile().signed(t), WithMemory(path))
		written := func() os.FileInfo {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			return info
		}
		wantAllow(t, v, v.license.Ends)
		last, writes := written(), 1
		for range 600 {
			time.Sleep(time.Second / 10)
			wantAllow(t, v, v.license.Ends)
			if now := written(); !os.SameFile(last, now) {
				last, writes = now, writes+1
			}
		}
		if writes != 61 {
			t.Errorf("written %d times in a minute", writes)
		}
		for i, code := range []guard.Code{guard.CodeDeviceRevoked, guard.CodeOrgDisabled, guard.CodeOrgDisabled, guard.CodeAllow, guard.CodeAllow} {
			tell(t, v, ownMachine, code)
			now := written()
			if due := i != 2 && i != 4; due == os.SameFile(last, now) {
				t.Errorf("%s, answer %d: written: %t", code, i, !due)
			}
			last = now
		}
	})
}

func TestMemoryFileIsPrivateAndWhole(t *testing.T) {
	path := memoryPath(t)
	v := newOffline(t, newFile().signed(t), WithMemory(path))
	tell(t, v, ownMachine, guard.CodeDeviceRevoked)
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 2 || entries[0].Name() != "memory.json" || entries[1].Name() != "memory.json.lock" {
		t.Errorf("%v, %v", entries, err)
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(text), ownMachine) || !strings.Contains(string(text), `"version":1`) {
		t.Errorf("%s, %v", text, err)
	}
}

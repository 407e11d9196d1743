package licentric

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/gofrs/flock"
)

// memoryText is a memory's content with some of it replaced.
func memoryText(t testing.TB, pairs ...string) string {
	t.Helper()
	f := newMemoryFile("x", ownMachine, "lic-1")
	text, err := f.encode(known{latest: vectorIssued, refused: refusal{guard.CodePlanFrozen, vectorIssued, vectorIssued}})
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer(pairs...).Replace(string(text))
}

// A memory that makes no sense is not mended and not overlooked: nothing is allowed, not even after
// an ALLOW, until somebody has looked at it.
func TestMemoryThatMakesNoSense(t *testing.T) {
	whole := memoryText(t)
	begin, _, _ := strings.Cut(whole, `{"code"`)
	for name, text := range map[string]string{
		"empty":                   "",
		"half":                    whole[:len(whole)/2],
		"not JSON":                "PLAN_FROZEN",
		"nothing":                 "null ",
		"two":                     whole + whole,
		"a name twice":            memoryText(t, `"version":1,`, `"version":1,"version":1,`),
		"a name in another case":  memoryText(t, `"refused"`, `"Refused"`),
		"another version":         memoryText(t, `"version":1`, `"version":2`),
		"no version":              memoryText(t, `"version":1,`, ``),
		"version a text":          memoryText(t, `"version":1`, `"version":"1"`),
		"another machine's":       memoryText(t, newMemoryFile("x", ownMachine, "lic-1").machine, newMemoryFile("x", otherMachine, "lic-1").machine),
		"nobody's":                memoryText(t, `"machine":"`, `"m":"`),
		"no time":                 memoryText(t, `"latest"`, `"l"`),
		"time null":               memoryText(t, `"latest":"2026-01-01T00:00:00Z"`, `"latest":null`),
		"time without a zone":     memoryText(t, `"latest":"2026-01-01T00:00:00Z"`, `"latest":"2026-01-01T00:00:00"`),
		"refused null":            begin + "null}",
		"refused a text":          begin + `"PLAN_FROZEN"}`,
		"refused without a code":  memoryText(t, `"code":"PLAN_FROZEN"`, `"c":""`),
		"refused with a blank":    memoryText(t, `"PLAN_FROZEN"`, `" "`),
		"refused at no time":      memoryText(t, `"at":"2026-01-01T00:00:00Z"`, `"at":7`),
		"broken UTF-8":            memoryText(t, "PLAN_FROZEN", "PLAN\xff"),
		"too long":                whole + strings.Repeat(" ", 64<<10),
		"zeros, after a bad disk": strings.Repeat("\x00", 100),
	} {
		t.Run(name, func(t *testing.T) {
			path := memoryPath(t)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			v := newOffline(t, newFile().signed(t), WithMemory(path))
			bad := unaskedWith[*MemoryError](t, v, "read the offline memory")
			if bad.Op != "read" || bad.Path != path || strings.Contains(bad.Error(), "PLAN_FROZEN") {
				t.Errorf("%v", bad)
			}
			for _, code := range []guard.Code{guard.CodeDeviceRevoked, guard.CodeAllow} {
				if err := v.Witness(t.Context(), ownMachine, said(code), time.Now()); !errors.As(err, &bad) {
					t.Errorf("%s: %v", code, err)
				}
				wantUnasked[*MemoryError](t, v, "read the offline memory")
			}
			if now, err := os.ReadFile(path); err != nil || string(now) != text {
				t.Errorf("it was changed to %q, %v", now, err)
			}
		})
	}
}

// A memory in a place that is none: nothing is allowed, and the process still knows of a denial.
func TestMemoryInABadPlace(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Mkdir(filepath.Join(dir, "directory"), 0o700)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "directory")
	v := newOffline(t, newFile().signed(t), WithMemory(path))
	if bad := unaskedWith[*MemoryError](t, v, "read"); bad.Op != "read" || bad.Path != path {
		t.Errorf("%s: %v", path, bad)
	}
	gone := filepath.Join(dir, "gone")
	if err := os.Mkdir(gone, 0o700); err != nil {
		t.Fatal(err)
	}
	v = newOffline(t, newFile().signed(t), WithMemory(filepath.Join(gone, "memory")))
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	if bad := unaskedWith[*MemoryError](t, v, "lock"); !errors.Is(bad, fs.ErrNotExist) {
		t.Errorf("%v hides what is beneath", bad)
	}
}

// A path that cannot be right is found on the day it is written, not on the day the cable is pulled.
func TestMemoryWithoutADirectory(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, beneath := range map[string]error{filepath.Join(dir, "missing", "memory"): fs.ErrNotExist, filepath.Join(file, "memory"): nil} {
		_, err := OfflineWith(newFile().signed(t), FormatCertificate, []ed25519.PublicKey{public}, WithMemory(path))
		bad := (*MemoryError)(nil)
		if !errors.As(err, &bad) || bad.Path != path || beneath != nil && !errors.Is(err, beneath) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// A denial that could not be written counts at once, and is written as soon as that can be.
func TestMemoryThatFailsForAWhile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file, path := newFile().signed(t), filepath.Join(dir, "memory")
	v := newOffline(t, file, WithMemory(path))
	wantAllow(t, v, v.license.Ends)
	if err := os.Rename(dir, dir+"way"); err != nil {
		t.Fatal(err)
	}
	if err := v.Witness(t.Context(), ownMachine, said(guard.CodeDeviceRevoked), time.Now()); !errors.Is(err, guard.ErrUnavailable) {
		t.Errorf("the denial was kept nowhere: %v", err)
	}
	wantUnasked[*MemoryError](t, v, "lock")
	if err := os.Rename(dir+"way", dir); err != nil {
		t.Fatal(err)
	}
	wantUnasked[*RefusedError](t, v, "DEVICE_REVOKED")
	wantUnasked[*RefusedError](t, newOffline(t, file, WithMemory(path)), "DEVICE_REVOKED")

	// An ALLOW that could not be written frees nobody.
	if err := os.Rename(dir, dir+"way"); err != nil {
		t.Fatal(err)
	}
	if err := v.Witness(t.Context(), ownMachine, said(guard.CodeAllow), time.Now()); err == nil {
		t.Error("the ALLOW was kept nowhere")
	}
	if err := os.Rename(dir+"way", dir); err != nil {
		t.Fatal(err)
	}
	wantUnasked[*RefusedError](t, v, "DEVICE_REVOKED")
}

// A write that fails after the lock was had leaves the old file and no litter.
func TestMemoryThatCannotBeReplaced(t *testing.T) {
	path := memoryPath(t)
	if err := replace(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path+".d", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := replace(path+".d", []byte("new")); err == nil {
		t.Error("a directory was replaced")
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 2 {
		t.Errorf("%v, %v", entries, err)
	}
}

// Another process that holds the lock is waited for: up to a second, and no longer than the caller
// wants.
func TestMemoryThatIsLocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := memoryPath(t)
		v := newOffline(t, newFile().signed(t), WithMemory(path))
		other := flock.New(path + ".lock")
		if locked, err := other.TryLock(); !locked || err != nil {
			t.Fatal(locked, err)
		}
		begun := time.Now()
		bad := unaskedWith[*MemoryError](t, v, "another process uses it")
		if took := time.Since(begun); bad.Op != "lock" || took != time.Second || !errors.Is(bad, context.DeadlineExceeded) {
			t.Errorf("%v after %v", bad, took)
		}
		cause := errors.New("no patience")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, cause)
		defer cancel()
		if d, err := v.Validate(ctx, ownMachine); d.Allowed || !errors.Is(err, cause) {
			t.Errorf("%+v, %v", d, err)
		}
		if took := time.Since(begun); took != 1100*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		go func() {
			time.Sleep(500 * time.Millisecond)
			_ = other.Unlock()
		}()
		wantAllow(t, v, v.license.Ends)
	})
}

// Who waits for another question of the same process gives up with its context too.
func TestMemoryThatIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newOffline(t, newFile().signed(t))
		v.memory.turn <- struct{}{}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if d, err := v.Validate(ctx, ownMachine); d.Code != guard.CodeSystemUnavailable || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%+v, %v", d, err)
		}
		if err := v.Witness(ctx, ownMachine, said(guard.CodeDeviceRevoked), time.Now()); err == nil {
			t.Error("the denial had no turn")
		}
		<-v.memory.turn
		wantUnasked[*RefusedError](t, v, "DEVICE_REVOKED") // all the same it is known
	})
}

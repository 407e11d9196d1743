package licentric

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// Short sessions, each with the clock set back to the beginning, use a file up all the same.
func TestShortSessionsWithTheClockSetBackNeverEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, path, by := fileFrom(bubbleStart, time.Hour).signed(t), memoryPath(t), time.Duration(0)
		used := 0
		for range 600 {
			v := newOffline(t, file, WithMemory(path))
			offset(v, &by)
			if d, _ := v.Validate(t.Context(), ownMachine); d.Allowed {
				used++
			}
			time.Sleep(59 * time.Second)
			if d, _ := v.Validate(t.Context(), ownMachine); d.Allowed {
				used++
			}
			by -= 59 * time.Second // the process is killed, the clock set back by as much
		}
		if used > 2*70 {
			t.Errorf("a file of one hour was used for %d half-sessions over %v", used, time.Since(bubbleStart))
		}
	})
}

// A memory behind a symbolic link is kept where the link leads, and the link stays one.
func TestMemoryBehindASymlink(t *testing.T) {
	file, dir, volume := newFile().signed(t), t.TempDir(), t.TempDir()
	target, link := filepath.Join(volume, "memory"), filepath.Join(dir, "memory")
	if err := os.Symlink(target, link); err != nil {
		t.Skip(err)
	}
	tell(t, newOffline(t, file, WithMemory(link)), ownMachine, guard.CodeDeviceRevoked)
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v %v", info.Mode(), err)
	}
	wantUnasked[*RefusedError](t, newOffline(t, file, WithMemory(target)), "DEVICE_REVOKED")
}

// Two licences on one machine cannot share a memory: the ALLOW of one would free the other.
func TestTwoLicencesOneMemory(t *testing.T) {
	path := memoryPath(t)
	one, two := newFile().signed(t), newFile().with("data", object{"id": "lic-2"}).signed(t)
	first, second := newOffline(t, one, WithMemory(path)), newOffline(t, two, WithMemory(path))
	tell(t, first, ownMachine, guard.CodePlanNotActive)
	_ = second.Witness(context.Background(), ownMachine, said(guard.CodeAllow), time.Now())
	next := newOffline(t, one, WithMemory(path))
	if d, err := next.Validate(t.Context(), ownMachine); d.Allowed {
		t.Errorf("%+v, %v: the licence was revoked", d, err)
	}
}

// S5 across processes: an ALLOW that was asked for before another process learnt a denial frees nobody.
func TestS5_AStaleAllowFreesAnotherProcessesDenial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, path := newFile().signed(t), memoryPath(t)
		slow := guard.Fallback(guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) {
			time.Sleep(2 * time.Second) // decided before the revocation, on its way for long
			return said(guard.CodeAllow), nil
		}), newOffline(t, file, WithMemory(path)))
		quick := guard.Fallback(guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) {
			return said(guard.CodeDeviceRevoked), nil
		}), newOffline(t, file, WithMemory(path)))
		done := make(chan struct{})
		go func() { defer close(done); _, _ = slow.Validate(t.Context(), ownMachine) }()
		time.Sleep(time.Second)
		_, _ = quick.Validate(t.Context(), ownMachine)
		<-done
		next := guard.Fallback(guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) {
			return guard.Decision{}, errors.New("cable pulled")
		}), newOffline(t, file, WithMemory(path)))
		if d, _ := next.Validate(t.Context(), ownMachine); d.Allowed {
			t.Errorf("revived: %+v", d)
		}
	})
}

// A denial whose code has only signs that cannot be shown is kept like any other, and an ALLOW takes it back.
func TestUnprintableCodeSpoilsTheMemory(t *testing.T) {
	file, path := newFile().signed(t), memoryPath(t)
	v := newOffline(t, file, WithMemory(path))
	_ = v.Witness(t.Context(), ownMachine, guard.Decision{Code: "\x00"}, time.Now())
	if d, _ := v.Validate(t.Context(), ownMachine); d.Allowed {
		t.Error("allowed after a denial")
	}
	if err := v.Witness(t.Context(), ownMachine, said(guard.CodeAllow), time.Now()); err != nil {
		t.Errorf("no ALLOW gets through any more: %v", err)
	}
	wantAllow(t, newOffline(t, file, WithMemory(path)), v.license.Ends)
}

// A relative path stays the same file after a change of directory.
func TestRelativeMemory(t *testing.T) {
	file := newFile().signed(t)
	t.Chdir(t.TempDir())
	v := newOffline(t, file, WithMemory("memory"))
	wantAllow(t, v, v.license.Ends)
	here, _ := os.Getwd()
	t.Chdir(t.TempDir())
	tell(t, v, ownMachine, guard.CodeDeviceRevoked)
	t.Chdir(here)
	wantUnasked[*RefusedError](t, newOffline(t, file, WithMemory("memory")), "DEVICE_REVOKED")
}

// A denial whose turn at the Witness did not come reaches the file with the next one.
func TestADenialWhoseTurnDidNotComeIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, path := newFile().signed(t), memoryPath(t)
		inner := newOffline(t, file, WithMemory(path))
		slow := &slowWitness{offline: inner}
		slow.wait.Store(int64(700 * time.Millisecond))
		f := guard.Fallback(guard.ValidatorFunc(func(_ context.Context, id string) (guard.Decision, error) {
			if id == ownMachine {
				return said(guard.CodeDeviceRevoked), nil
			}
			return said(guard.CodeAllow), nil
		}), slow)
		go func() { _, _ = f.Validate(context.Background(), otherMachine) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := f.Validate(ctx, ownMachine); err == nil { // patience: 500 ms
			t.Error("the turn has come")
		}
		slow.wait.Store(0)
		time.Sleep(time.Minute)
		_, _ = f.Validate(t.Context(), otherMachine) // the disk has been fine for a minute
		next := newOffline(t, file, WithMemory(path))
		if d, _ := next.Validate(t.Context(), ownMachine); d.Allowed {
			t.Errorf("revived by a restart: %+v", d)
		}
	})
}

type slowWitness struct {
	*offline
	wait atomic.Int64 // nanoseconds
}

func (s *slowWitness) Witness(ctx context.Context, id string, d guard.Decision, asked time.Time) error {
	time.Sleep(time.Duration(s.wait.Load()))
	return s.offline.Witness(ctx, id, d, asked)
}

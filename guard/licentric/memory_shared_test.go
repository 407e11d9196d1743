package licentric

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// Two processes, many questions and answers at a time: the last word stands, and nobody is lost.
func TestMemorySideBySide(t *testing.T) {
	file, path := newFile().signed(t), memoryPath(t)
	processes := []*offline{newOffline(t, file, WithMemory(path)), newOffline(t, file, WithMemory(path))}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 20 {
				v, ctx := processes[i%2], context.Background()
				if d, err := v.Validate(ctx, ownMachine); d.Allowed == (err != nil) {
					t.Errorf("%+v, %v", d, err)
				}
				code := guard.CodeAllow
				if n%2 == 0 {
					code = guard.CodePlanFrozen
				}
				if err := v.Witness(ctx, ownMachine, said(code), time.Now()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	tell(t, processes[0], ownMachine, guard.CodePlanFrozen)
	for _, v := range append(processes, newOffline(t, file, WithMemory(path))) {
		wantUnasked[*RefusedError](t, v, "PLAN_FROZEN")
	}
	tell(t, processes[1], ownMachine, guard.CodeAllow)
	for _, v := range append(processes, newOffline(t, file, WithMemory(path))) {
		wantAllow(t, v, v.license.Ends)
	}
}

// A denial that is learnt while an ALLOW waits to be kept is the last word.
func TestMemoryKeepsTheYoungerDenial(t *testing.T) {
	for _, path := range []string{"", memoryPath(t)} {
		synctest.Test(t, func(t *testing.T) {
			m := newMemory(newMemoryFile(path, ownMachine, "lic-1"))
			m.turn <- struct{}{}
			var wg sync.WaitGroup
			wg.Go(func() { _, _ = m.allow(t.Context(), time.Now(), 0) })
			synctest.Wait()
			wg.Go(func() { _ = m.refuse(t.Context(), time.Now(), guard.CodeDeviceRevoked) })
			synctest.Wait()
			<-m.turn
			wg.Wait()
			if k, err := m.look(t.Context(), time.Now()); err != nil || k.refused.code != guard.CodeDeviceRevoked {
				t.Errorf("%+v, %v", k, err)
			}
		})
	}
}

// Nor is one lost that is learnt while an older one is being written.
func TestMemorySettlesWhatItHasWritten(t *testing.T) {
	m, older, younger := newMemory(nil), &refusal{code: guard.CodePlanFrozen}, &refusal{code: guard.CodePlanFrozen}
	m.denial = younger
	if m.settled(older); m.pending() != younger {
		t.Error("the younger denial is gone")
	}
	if m.settled(younger); m.pending() != nil {
		t.Error("the denial waits for ever")
	}
}

// Deleted in the course of a process, the memory is what the process knows.
func TestMemoryDeletedMeanwhile(t *testing.T) {
	file, path := newFile().signed(t), memoryPath(t)
	v := newOffline(t, file, WithMemory(path))
	tell(t, v, ownMachine, guard.CodeDeviceRevoked)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wantUnasked[*RefusedError](t, v, "DEVICE_REVOKED")
	wantUnasked[*RefusedError](t, newOffline(t, file, WithMemory(path)), "DEVICE_REVOKED") // it was written again
	if err := errors.Join(os.Remove(path), os.Remove(path+".lock")); err != nil {
		t.Fatal(err)
	}
	next := newOffline(t, file, WithMemory(path))
	wantAllow(t, next, next.license.Ends) // a missing one is a fresh start
}

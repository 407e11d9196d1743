package licentric

import (
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"github.com/execguard/execguard/guard"
)

// A pipe in the memory's place must not make the validator wait for somebody who writes into it.
func TestMemoryThatIsAPipe(t *testing.T) {
	path := memoryPath(t)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	v := newOffline(t, newFile().signed(t), WithMemory(path))
	wantUnasked[*MemoryError](t, v, "no regular file")
}

// A look at the memory, and a change of it, leave no file open: a service asks for months.
func TestMemoryLeavesNoFileOpen(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which would close what nobody else does
	v := newOffline(t, newFile().signed(t), WithMemory(memoryPath(t)))
	opened := func() int {
		t.Helper()
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		return len(entries)
	}
	wantAllow(t, v, v.license.Ends) // the first one writes too
	before := opened()
	for range 20 {
		wantAllow(t, v, v.license.Ends)
		tell(t, v, ownMachine, guard.CodePlanFrozen)
		tell(t, v, ownMachine, guard.CodeAllow)
	}
	if after := opened(); after > before+5 { // others in this process come and go
		t.Errorf("%d files are open, %d were before", after, before)
	}
}

// A memory of 64 KiB is read; TestMemoryThatMakesNoSense has longer ones.
func TestMemoryOf64KiB(t *testing.T) {
	path := memoryPath(t)
	text := memoryText(t)
	text += strings.Repeat(" ", maxFile-len(text))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	wantUnasked[*RefusedError](t, newOffline(t, newFile().signed(t), WithMemory(path)), "PLAN_FROZEN")
}

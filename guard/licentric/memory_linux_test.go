package licentric

import (
	"syscall"
	"testing"
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

package licentric

import (
	"context"
	"syscall"
	"testing"
	"time"
)

// A lock that is a pipe is not waited for: opening it would block whatever ctx says.
func TestLockThatIsAPipe(t *testing.T) {
	path := memoryPath(t)
	if err := syscall.Mkfifo(path+".lock", 0o600); err != nil {
		t.Skip(err)
	}
	v := newOffline(t, newFile().signed(t), WithMemory(path))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); _, _ = v.Validate(ctx, ownMachine) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Error("Validate does not return although its context is over")
		if fd, err := syscall.Open(path+".lock", syscall.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
			<-done
			_ = syscall.Close(fd)
		}
	}
}

//go:build unix

package grpcmw_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
)

// suspendedVariable has this test binary, started again by itself, be the server that is suspended.
const suspendedVariable = "EXECGUARD_TEST_SUSPENDED"

// TestPlaySuspended is that server: it serves until its input ends.
func TestPlaySuspended(t *testing.T) {
	if os.Getenv(suspendedVariable) == "" {
		t.Skip("this is the other process of TestS6_ASuspendedServerEndsItsStreams")
	}
	a := newAuthority(t, guard.WithInterval(200*time.Millisecond), guard.WithTimeout(100*time.Millisecond))
	fmt.Fprintln(os.Stdout, serve(t, calls{}, guarded(a, grpcmw.Fixed(device))...))
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// S6: a process that is stopped for longer than the stop bound ends its streams when it goes on, though
// the authority would allow them still: for a while nobody could have stopped them.
func TestS6_ASuspendedServerEndsItsStreams(t *testing.T) {
	process, address := startSuspended(t)
	conn := dial(t, address)
	s, err := open(t.Context(), conn, both)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SendMsg(text("hello")); err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(new(message)); err != nil {
		t.Fatal(err)
	}
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	<-time.After(600 * time.Millisecond) // twice the stop bound
	if err := process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	resumed := time.Now()
	err = s.RecvMsg(new(message))
	t.Logf("ended %v after the process was continued", time.Since(resumed))
	if late := time.Since(resumed); late > 2*time.Second { // what the machine may take, not the guard
		t.Errorf("ended only %v after the process was continued", late)
	}
	wantWire(t, err, wire{code: codes.Aborted, reason: "SYSTEM_UNAVAILABLE", phase: "run", retry: -1})
	if _, err := call(t.Context(), conn, "again"); err != nil {
		t.Errorf("then %v: the authority allows it", err)
	}
}

func startSuspended(t *testing.T) (process *os.Process, address string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run", "^TestPlaySuspended$")
	cmd.Env = append(os.Environ(), suspendedVariable+"=1")
	cmd.Stderr = os.Stderr
	stdin, errIn := cmd.StdinPipe()
	stdout, errOut := cmd.StdoutPipe()
	if errIn != nil || errOut != nil {
		t.Fatal(errIn, errOut)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = stdin.Close()
		_, _ = io.Copy(io.Discard, stdout)
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the server says nothing: %v", err)
	}
	return cmd.Process, strings.TrimSpace(line)
}

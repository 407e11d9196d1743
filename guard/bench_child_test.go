package guard_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// roleVariable tells this test binary, started again by itself, what to be instead of tests.
const roleVariable = "EXECGUARD_TEST_ROLE"

// roles are what it can be. A benchmark's authority is a process of its own, so that B/op, the
// processor time and the garbage collector are the measured side's alone.
var roles = map[string]func(net.Listener) error{
	"authority": serveAuthority,
}

// playRole returns false in a process that is to test. In one that has a role it serves on
// loopback, says where on its standard output, and returns true when its standard input ends,
// which it also does when whoever started it has died.
func playRole() bool {
	role, ok := os.LookupEnv(roleVariable)
	if !ok {
		return false
	}
	serve, ok := roles[role]
	if !ok {
		panic("no role " + role)
	}
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() { panic(serve(ln)) }()
	_, _ = fmt.Fprintln(os.Stdout, ln.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	return true
}

// startChild starts a process in a role, to end with the benchmark, and returns its address.
func startChild(b *testing.B, role string) (addr string) {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(b.Context(), self)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	stdin, errIn := cmd.StdinPipe()
	stdout, errOut := cmd.StdoutPipe()
	if errIn != nil || errOut != nil {
		b.Fatal(errIn, errOut)
	}
	cmd.Cancel = stdin.Close
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Wait() })
	addr, err = bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatalf("the %s said no address: %v", role, err)
	}
	return strings.TrimSpace(addr)
}

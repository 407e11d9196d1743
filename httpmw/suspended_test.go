//go:build unix

package httpmw_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/httpmw"
)

// suspendedVariable has this test binary, started again by itself, be the server that is suspended.
const suspendedVariable = "EXECGUARD_TEST_SUSPENDED"

// TestPlaySuspended is that server: it serves live streams until its input ends.
func TestPlaySuspended(t *testing.T) {
	if os.Getenv(suspendedVariable) == "" {
		t.Skip("this is the other process of TestS6_ASuspendedServerCutsItsStreams")
	}
	g, _ := newGuard(t, guard.WithInterval(200*time.Millisecond), guard.WithTimeout(100*time.Millisecond))
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: patience, Handler: guarded(g, live, httpmw.WithLastEvent(func(p httpmw.Problem) []byte {
		return []byte("data: " + p.Code + "\n\n")
	}))}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	fmt.Fprintln(os.Stdout, "http://"+l.Addr().String())
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = s.Close()
	<-served
}

// S6: a process that is stopped for longer than the stop bound cuts its streams when it goes on, though
// the authority would allow them still: for a while nobody could have stopped them.
func TestS6_ASuspendedServerCutsItsStreams(t *testing.T) {
	process, url := startSuspended(t)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp := get(t, client, url)
	in := bufio.NewReader(resp.Body)
	if line, err := in.ReadString('\n'); err != nil || line != "data: hello\n" {
		t.Fatalf("the stream begins with %q, %v", line, err)
	}
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	<-time.After(600 * time.Millisecond) // twice the stop bound
	if err := process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	resumed := time.Now()
	rest, err := io.ReadAll(in)
	if err == nil || !strings.Contains(string(rest), "data: SYSTEM_UNAVAILABLE\n\n") {
		t.Errorf("the stream went on with %q, %v; want a last event and a cut", rest, err)
	}
	t.Logf("cut %v after the process was continued", time.Since(resumed))
	if late := time.Since(resumed); late > 2*time.Second { // what the machine may take, not the guard
		t.Errorf("cut only %v after the process was continued", late)
	}
	if again := get(t, client, url); again.StatusCode != http.StatusOK {
		t.Errorf("then %d: the authority allows it", again.StatusCode)
	}
}

func startSuspended(t *testing.T) (process *os.Process, url string) {
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

package asynqmw_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// holdRedis is the role of a process that has started a Redis and does not come to end it.
func holdRedis() {
	s, err := startRedis()
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(os.Stdout, s.addr)
	select {}
}

// Tests that panic, or are killed, leave no redis-server behind, not even one that is suspended.
func TestRedisEndsWithWhoeverStartedIt(t *testing.T) {
	if !ownRedis(t).stops() {
		t.Skip("needs a redis-server")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), roleVariable+"=redis")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		conn, err := net.Dial("tcp", strings.TrimSpace(addr)) //nolint:noctx // it is refused, or it is not
		if err != nil {
			return
		}
		conn.Close()
		select {
		case <-again.C:
		case <-limit.C:
			t.Fatal("redis-server still listens")
		}
	}
}

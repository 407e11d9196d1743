//go:build unix

package asynqmw_test

import (
	"os"
	"os/exec"
	"syscall"
)

// processes tells that other processes can be suspended here.
const processes = true

// tied runs a command that is killed when the standard input ends, which it also does when
// whoever holds its other end has died. The command has the process's id. Its directory goes with it.
const tied = `dir=$1; shift; exec 3<&0; { read -r _ <&3; kill -9 $$; rm -rf "$dir"; } >/dev/null 2>&1 & exec 3<&-; exec "$@" </dev/null`

// tiedCommand is a command that ends with the end of what it is given as standard input. It is in
// a process group of its own: an interrupt at a terminal is not for it.
func tiedCommand(dir, path string, args ...string) *exec.Cmd {
	cmd := exec.Command("sh", append([]string{"-c", tied, "sh", dir, path}, args...)...) //nolint:noctx // it ends by its tie
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

func suspend(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

func resume(p *os.Process) error { return p.Signal(syscall.SIGCONT) }

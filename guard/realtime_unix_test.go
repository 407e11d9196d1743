//go:build unix

package guard_test

import (
	"net"
	"syscall"
)

// shrinkQueue leaves as little room as there can be for connections that nobody has accepted. To
// listen again on a socket that listens changes just that.
func shrinkQueue(l *net.TCPListener) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	var listened error
	if err := raw.Control(func(fd uintptr) { listened = syscall.Listen(int(fd), 0) }); err != nil {
		return err
	}
	return listened
}

//go:build !unix

package guard_test

import (
	"errors"
	"net"
)

// shrinkQueue is there where a queue can be shrunk.
func shrinkQueue(*net.TCPListener) error { return errors.ErrUnsupported }

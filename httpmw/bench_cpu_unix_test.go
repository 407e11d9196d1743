//go:build unix

package httpmw_test

import (
	"syscall"
	"time"
)

// processorTime is how long this process has had a core, on all of them together.
func processorTime() (spent time.Duration, ok bool) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, false
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), true
}

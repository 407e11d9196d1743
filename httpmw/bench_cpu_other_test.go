//go:build !unix

package httpmw_test

import "time"

// processorTime is not to be had here without a module of its own; the metrics made of it are
// left out.
func processorTime() (spent time.Duration, ok bool) { return 0, false }

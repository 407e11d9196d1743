//go:build !unix

package main

import "time"

// processorTime is not to be had here without a module of its own; what is made of it shows as 0.
func processorTime() time.Duration { return 0 }

// Command authorities runs one and the same guarded job under three authorities, MachineID,
// Licentric and Clerk, and under a signed file without any network. Each of them stops it.
//
//	go run ./examples/authorities
//
// It needs nothing outside and no account: the three services are local ones, on loopback
// sockets. With the hosted services the lines of validators.go are the same, without the base
// URL. The licence file is in this project's own format, which is not the vendor's.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// The numbers are those of a demonstration. A hosted service is asked every ten seconds or less often.
const (
	interval = 400 * time.Millisecond
	timeout  = 600 * time.Millisecond
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := demonstrate(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "authorities:", err)
		os.Exit(1)
	}
}

// demonstrate tells every chapter. Any other course of events than the promised one is an error.
func demonstrate(ctx context.Context, out io.Writer) error {
	for _, chapter := range []func(context.Context, *desk) error{
		underMachineID, underLicentric, underClerk, underFile, underLicentricAndFile,
	} {
		d := &desk{out: out}
		err := chapter(ctx, d)
		d.close()
		if err != nil {
			return err
		}
	}
	return nil
}

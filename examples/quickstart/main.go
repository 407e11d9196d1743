// Command quickstart shows what a guard does, in a few seconds: a job is allowed, revoked while
// it runs and stopped; a start is refused; an outage of the authority stops work, unless a retry
// was asked for; and a device that is restored works again.
//
//	go run ./examples/quickstart
//
// It needs nothing outside. The authority is the embedded one, served over HTTP on a loopback
// port and asked through the MachineID client, as the hosted service would be. With
// MACHINEID_ORG_KEY and MACHINEID_DEVICE_ID set the hosted service is asked instead; the device
// is revoked and restored there only with -allow-revoke, and outages are not shown.
//
// Each line is one event: the seconds gone by, what happened, the decision's code and its
// request id. The status is 0 if all went as the guard promises.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	allowRevoke := flag.Bool("allow-revoke", false,
		"with MACHINEID_ORG_KEY set: revoke and restore the device MACHINEID_DEVICE_ID at the hosted service")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := quickstart(ctx, newReport(os.Stdout), *allowRevoke)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func quickstart(ctx context.Context, r *report, allowRevoke bool) error {
	if os.Getenv("MACHINEID_ORG_KEY") != "" {
		return hosted(ctx, r, time.Second, allowRevoke)
	}
	return local(ctx, r, 500*time.Millisecond)
}

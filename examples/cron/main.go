// Command cron shows a schedule whose jobs run only while an authority allows it: a backup is cut in
// mid-run when its device is revoked, the ticks that follow are refused, a report is caught up when the device is
// allowed again, once, and Stop cancels what runs and waits for it.
//
//	go run ./examples/cron
//
// It needs nothing outside: the authority is the embedded one, in the same process, and its changes reach
// the guard as hints. The status is 0 if all went as cronwrap promises.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
)

const (
	device = "worker:demo:nightly:01" // runs the jobs

	// patience ends a story in which something does not come, or goes on. The story takes about ten seconds.
	patience = 30 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := demonstrate(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cron:", err)
		os.Exit(1)
	}
}

// demonstrate runs a schedule, revokes its device and allows it again. Any other outcome than the one that cronwrap
// promises is an error.
func demonstrate(ctx context.Context, out io.Writer) error {
	org, err := register(ctx)
	if err != nil {
		return err
	}
	g, err := guard.New(org)
	if err != nil {
		return err
	}
	defer g.Close()
	defer org.Subscribe(g.Hint)() // without it, the guard would ask once an interval
	return newStory(out, org, g).tell(ctx, patience)
}

// register makes an organisation of an embedded authority that knows the device.
func register(ctx context.Context) (*authority.Organisation, error) {
	a, err := authority.New()
	if err != nil {
		return nil, err
	}
	org, err := a.AddOrganisation(ctx, "org_cron_demo", authority.PlanFree)
	if err != nil {
		return nil, err
	}
	_, err = org.Register(ctx, device)
	return org, err
}

// Command agent is the loop of an agent that calls tools, under a guard. Before each call it
// asks guard.Checkpoint whether it still may: its device is revoked while a tool is at work, the
// next tool is not called, and the agent puts in order what it had begun.
//
//	go run ./examples/agent
//
// It needs nothing outside: the authority is the embedded one, in the same process, and its
// changes reach the guard as hints. It does not take back what a tool had done before.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
)

const device = "agent:demo:support:01"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := demonstrate(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}

// runAgent calls the tools of the plan one after the other, for as long as it may.
func runAgent(ctx context.Context, g *guard.Guard, d *desk, plan []tool) error {
	return g.Run(ctx, device, func(ctx context.Context) error {
		d.lockTicket()
		defer d.unlockTicket(ctx)
		for _, t := range plan {
			if err := guard.Checkpoint(ctx); err != nil {
				return err // revoked, or nobody could say that it is not: t is not called
			}
			if err := t.call(ctx); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
		}
		return nil
	})
}

// demonstrate has an agent work at a desk and revokes it in the middle of its plan. Any other
// outcome than the one that the guard promises is an error.
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

	d := newDesk(out)
	working, done := context.WithCancel(ctx)
	revoked := make(chan error, 1)
	go func() { revoked <- d.revokeWhileDrafting(working, org) }()
	ended := runAgent(ctx, g, d, d.plan())
	done()
	if err := <-revoked; err != nil {
		return errors.Join(err, ended)
	}
	return d.account(ended)
}

// register makes an organisation of an embedded authority that knows the device.
func register(ctx context.Context) (*authority.Organisation, error) {
	a, err := authority.New()
	if err != nil {
		return nil, err
	}
	org, err := a.AddOrganisation(ctx, "org_agent_demo", authority.PlanFree)
	if err != nil {
		return nil, err
	}
	_, err = org.Register(ctx, device)
	return org, err
}

// account says what was called, what was not, and why the agent ended as it did.
func (d *desk) account(ended error) error {
	var denied *guard.DeniedError
	if !errors.As(ended, &denied) || denied.Decision.Code != guard.CodeDeviceRevoked {
		return errors.Join(errors.New("the device was revoked, and yet the agent was not stopped for it"), ended)
	}
	var called, not []string
	for _, t := range d.plan() {
		if d.wasCalled(t.name) {
			called = append(called, t.name)
		} else {
			not = append(not, t.name)
		}
	}
	d.say("called", strings.Join(called, ", "))
	d.say("not called", strings.Join(not, ", "))
	d.say("because", fmt.Sprintf("%s, request %s", denied.Decision.Code, denied.Decision.RequestID))
	if d.wasCalled("send_mail") {
		return errors.New("send_mail was called after the device had been revoked")
	}
	return nil
}

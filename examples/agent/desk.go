package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/execguard/execguard/contextx"
	"github.com/execguard/execguard/guard/authority"
)

// tool is something that an agent can call, and that the world can see.
type tool struct {
	name string
	call func(ctx context.Context) error
}

// desk is where the agent works: its tools, and a record of what they did.
type desk struct {
	began    time.Time
	drafting chan struct{} // closed when draft_reply has begun

	mu     sync.Mutex // what follows is used by the agent and by who revokes it
	out    io.Writer
	called []string
}

func newDesk(out io.Writer) *desk {
	return &desk{began: time.Now(), drafting: make(chan struct{}), out: out}
}

// plan is what a model might have answered: five calls, the last two of which nobody can undo.
func (d *desk) plan() []tool {
	return []tool{
		{"read_ticket", d.tool("read_ticket", "ticket 42: «my parcel is lost»")},
		{"look_up_order", d.tool("look_up_order", "order 7, sent on Monday, 80 euros")},
		{"draft_reply", d.draftReply},
		{"send_mail", d.tool("send_mail", "a mail is on its way to the customer")},
		{"refund_order", d.tool("refund_order", "80 euros are on their way to the customer")},
	}
}

// tool makes a tool that takes a while and stops when it is told to.
func (d *desk) tool(name, effect string) func(context.Context) error {
	return func(ctx context.Context) error {
		d.begin(name)
		select {
		case <-time.After(300 * time.Millisecond):
			d.say(name, effect)
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// draftReply stands for the many tools that do not look at their context: it goes on although
// it has been told to stop. Only the checkpoint after it keeps the mail from being sent.
func (d *desk) draftReply(context.Context) error {
	d.begin("draft_reply")
	close(d.drafting)
	<-time.After(900 * time.Millisecond)
	d.say("draft_reply", "finished, for it does not look at its context")
	return nil
}

// revokeWhileDrafting is somebody else, who has seen enough.
func (d *desk) revokeWhileDrafting(ctx context.Context, org *authority.Organisation) error {
	select {
	case <-d.drafting:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	<-time.After(300 * time.Millisecond)
	if _, err := org.Revoke(ctx, device); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	d.say("(revoked)", device)
	return nil
}

func (d *desk) lockTicket() {
	d.say("(locked)", "ticket 42, so that nobody else answers it")
}

// unlockTicket must work although the agent has been stopped: the context it works under has
// the values of ctx, but an end of its own.
func (d *desk) unlockTicket(ctx context.Context) {
	ctx, cancel := contextx.Cleanup(ctx, time.Second)
	defer cancel()
	select {
	case <-time.After(100 * time.Millisecond):
		d.say("(unlocked)", "ticket 42, for a colleague")
	case <-ctx.Done():
		d.say("(still locked)", context.Cause(ctx).Error())
	}
}

func (d *desk) begin(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.called = append(d.called, name)
}

func (d *desk) wasCalled(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Contains(d.called, name)
}

// say prints one line: the time gone by, what it is about, and the fact.
func (d *desk) say(what, fact string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Fprintf(d.out, "%6.2fs  %-15s%s\n", time.Since(d.began).Seconds(), what, fact)
}

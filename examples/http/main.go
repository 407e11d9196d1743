// Command http shows both sides of httpmw, over real sockets. A server sends a live event stream:
// its caller is revoked, the stream ends with a last event and a connection that is cut, and the
// caller's next request is refused. Then a client is revoked in the middle of a download.
//
//	go run ./examples/http
//
// It needs nothing outside: the authority is the embedded one, in the same process, and its
// changes reach the guard as hints. The status is 0 if all went as httpmw promises.
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

// The devices of the story.
const (
	trader = "agent:demo:trader:01"  // calls the server, and is revoked
	broker = "agent:demo:broker:01"  // calls it too, and is not
	loader = "worker:demo:loader:01" // is this program where it calls others
)

// patience ends a story in which something goes on that should not. The story takes a second, and
// the guard's interval is longer than this: what was stopped by then was stopped by a hint.
const patience = 5 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := demonstrate(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "http:", err)
		os.Exit(1)
	}
}

// demonstrate has a guarded server called and a guarded client call, and revokes both. Any other
// outcome than the one that httpmw promises is an error.
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

// register makes an organisation of an embedded authority that knows the devices.
func register(ctx context.Context) (*authority.Organisation, error) {
	a, err := authority.New()
	if err != nil {
		return nil, err
	}
	org, err := a.AddOrganisation(ctx, "org_http_demo", authority.PlanFree)
	if err != nil {
		return nil, err
	}
	for _, device := range []string{trader, broker, loader} {
		if _, err := org.Register(ctx, device); err != nil {
			return nil, err
		}
	}
	return org, nil
}

// Command selfhosted runs an authority of one's own: MachineID's API on a local port, so that
// any MachineID client, in any language, can be pointed at it. It ends on an interrupt.
//
//	go run ./examples/selfhosted
//
// It prints what to paste into the client's shell: the base URL and, where it made the
// organisation's key itself, the key, and two calls to try by hand.
//
// The devices live in memory: they are gone when it ends. It speaks plain HTTP, so that beyond
// this machine a proxy with TLS belongs in front of it.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/execguard/execguard/guard/authority"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run serves until ctx ends and returns the exit status: 0 when it ended as it was told to, 1
// when something failed, 2 when it was started the wrong way.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	s, err := parse(args, getenv, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2 // parse has said why
	}
	if err := serve(ctx, s, stdout); err != nil {
		fmt.Fprintln(stderr, "selfhosted:", err)
		return 1
	}
	return 0
}

// settings is what the flags and the environment ask for.
type settings struct {
	addr      string
	plan      authority.Plan
	orgKey    string
	generated bool // orgKey is new and known to nobody yet
}

// parse takes flags before the environment, and makes a key where neither has one.
func parse(args []string, getenv func(string) string, stderr io.Writer) (settings, error) {
	var s settings
	var plan string
	flags := flag.NewFlagSet("selfhosted", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&s.addr, "addr", "127.0.0.1:8080", "`host:port` to listen on; port 0 takes a free one")
	flags.StringVar(&s.orgKey, "org-key", "", "the organisation's `key`, org_...; other users of this machine can see it\n"+
		"here, so MACHINEID_ORG_KEY is the better place (default: generated)")
	flags.StringVar(&plan, "plan", string(authority.PlanFree), "the organisation's `plan`: free, pro, scale or max")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	s.plan = authority.Plan(plan)
	err := s.check(flags.Args())
	if err != nil {
		fmt.Fprintln(stderr, "selfhosted:", err)
		flags.Usage()
		return s, err
	}
	if s.orgKey == "" {
		s.orgKey = getenv("MACHINEID_ORG_KEY")
	}
	if s.orgKey == "" {
		s.orgKey, s.generated = "org_"+rand.Text(), true
	}
	return s, nil
}

// check says which flag cannot be meant.
func (s settings) check(rest []string) error {
	switch _, _, err := net.SplitHostPort(s.addr); {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case err != nil:
		return fmt.Errorf("-addr: %w", err)
	case s.plan.Limit() == 0:
		return fmt.Errorf("-plan: unknown plan %q", s.plan)
	}
	return nil
}

// serve answers on s.addr until ctx ends, and then lets the calls under way finish.
func serve(ctx context.Context, s settings, stdout io.Writer) error {
	a, err := authority.New()
	if err != nil {
		return err
	}
	if _, err := a.AddOrganisation(ctx, s.orgKey, s.plan); err != nil {
		return fmt.Errorf("the organisation's key: %w", err) // an error never shows the key itself
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", s.addr)
	if err != nil {
		return err
	}
	// Without these limits one slow client after the other holds a connection for ever.
	srv := &http.Server{
		Handler:           a,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	greet(stdout, s, ln.Addr().String()) // the listener's own address: it knows what port 0 became

	// Serve returns at once when Shutdown begins, so it cannot be what serve waits for.
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	select {
	case err := <-served:
		return err // it ended by itself, so something is wrong
	case <-ctx.Done():
	}
	// ctx has ended; what is under way gets a time of its own.
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(finish); err != nil {
		return errors.Join(err, srv.Close())
	}
	fmt.Fprintln(stdout, "stopped")
	return nil
}

// greet prints what a client has to be told. A key that came from outside is not repeated: what
// a program prints ends up in logs.
func greet(w io.Writer, s settings, addr string) {
	fmt.Fprintf(w, "plan %s: %d devices, in memory until this ends\n", s.plan, s.plan.Limit())
	about, key := "for clients, which need the organisation key in MACHINEID_ORG_KEY too:", ""
	if s.generated {
		about, key = "for clients, with a new organisation key that is shown this once:", " MACHINEID_ORG_KEY="+s.orgKey
	}
	fmt.Fprintf(w, "%s\n\n    export MACHINEID_BASE_URL=http://%s%s\n\n", about, reachable(addr), key)
	fmt.Fprint(w, "to register a device, and to revoke it:\n\n")
	for _, call := range []string{"register", "revoke"} {
		fmt.Fprintf(w, "    curl -H \"x-org-key: $MACHINEID_ORG_KEY\" -H 'content-type: application/json' "+
			"-d '{\"deviceId\":\"agent-01\"}' \"$MACHINEID_BASE_URL/api/v1/devices/%s\"\n", call)
	}
	fmt.Fprintf(w, "\nserving MachineID's API on http://%s\n", addr)
}

// reachable is where a client on this machine finds what listens on addr. An address that stands
// for every one of the machine's, such as 0.0.0.0, is none to connect to.
func reachable(addr string) string {
	a, err := netip.ParseAddrPort(addr)
	if err != nil || !a.Addr().IsUnspecified() {
		return addr
	}
	return fmt.Sprintf("localhost:%d", a.Port())
}

// Command fleet plays a fleet of workers, each with a guard of its own, and measures what it costs: the load on the
// authority second by second, the time from a revocation to the stop, processor and memory.
//
//	go run ./examples/fleet
//	go run ./examples/fleet -devices 100,1000,10000 -interval 10s -timeout 3s -down-from 20s -down-to 35s -chart fleet.png
//
// The first is a small fleet and takes about twenty seconds; the second takes five minutes. It needs nothing outside: the
// authority is the embedded one, served over HTTP on a loopback port, taken away for a while and brought back. All
// workers are in this process and share one http.Transport, so that thousands of them do not need thousands of
// connections; for the rest they know nothing of each other.
//
// The status is 0 if the figures are what the guard promises, 1 if they are not, 2 if it was started the wrong way. How
// much a small fleet may owe to chance and a busy machine to its other work is printed beside them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/execguard/execguard/guard"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run plays what the arguments ask for and returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	s, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2 // parse has said why
	}
	if err := measure(ctx, s, loopback(), newKeeper, stdout); err != nil {
		fmt.Fprintln(stderr, "fleet:", err)
		return 1
	}
	return 0
}

// judged plays one fleet and reports it. Where something is not seen and the machine stood still for longer than can be
// made allowance for, that says nothing, and the fleet is played again, twice at most.
func judged(out io.Writer, play func() (*result, error)) (r *result, unseen, err error) {
	for again := 2; ; again-- {
		if r, err = play(); err != nil {
			return nil, nil, err
		}
		unseen = report(out, r)
		if unseen == nil || r.still() <= latest || again == 0 {
			return r, unseen, nil
		}
		fmt.Fprintf(out, "--- this machine stood still for %v: once more\n", round(r.still()))
	}
}

// newKeeper makes a worker's guard.
func newKeeper(v guard.Validator, opts ...guard.Option) (keeper, error) { return guard.New(v, opts...) }

// measure plays one fleet after the other, prints the table and draws the chart. What was not seen is an error.
func measure(ctx context.Context, s settings, over network, hire hireFunc, out io.Writer) error {
	fmt.Fprintln(out, s)
	var all []*result
	var unseen []error
	for _, size := range s.devices {
		fmt.Fprintf(out, "\n--- %s devices, %d runs each\n", grouped(size), s.runs)
		r, missing, err := judged(out, func() (*result, error) { return play(ctx, s, size, over, hire) })
		if err != nil {
			return fmt.Errorf("%d devices: %w", size, err)
		}
		all, unseen = append(all, r), append(unseen, missing)
	}
	printTable(out, all)
	if s.chart != "" {
		if err := saveChart(s.chart, all); err != nil {
			return err
		}
		fmt.Fprintln(out, "\nchart:", s.chart)
	}
	return errors.Join(unseen...)
}

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// second is the width of the bins in which requests are counted.
const second = time.Second

// settings is what the flags ask for. The times of the outage are counted from an interval after every run
// has started.
type settings struct {
	devices  []int // the sizes of the fleets that are played, one after the other
	runs     int   // of each device, in flight at once
	interval time.Duration
	timeout  time.Duration
	downFrom time.Duration
	downTo   time.Duration
	retries  bool
	chart    string
}

// parse reads the flags. It says on stderr what it refuses.
func parse(args []string, stderr io.Writer) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("fleet", flag.ContinueOnError)
	flags.SetOutput(stderr)
	devices := flags.String("devices", "500", "how many devices the fleet has; several `sizes` (100,1000,10000) are played in turn")
	flags.IntVar(&s.runs, "runs", 2, "how many runs each device has in flight")
	flags.DurationVar(&s.interval, "interval", 2*time.Second, "the guards' interval")
	flags.DurationVar(&s.timeout, "timeout", time.Second, "the guards' timeout")
	flags.DurationVar(&s.downFrom, "down-from", 6*time.Second, "when the authority goes down, counted from an interval after all runs have\n"+
		"started; until then is normal running")
	flags.DurationVar(&s.downTo, "down-to", 9*time.Second, "when it comes back; the same as -down-from for no outage")
	flags.BoolVar(&s.retries, "retries", false, "retry through the outage instead of stopping (guard.WithRetry)")
	flags.StringVar(&s.chart, "chart", "", "draw a chart into this `file`, .png or .svg")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	err := s.size(*devices)
	if err == nil {
		err = s.check(flags.Args())
	}
	if err != nil {
		fmt.Fprintln(stderr, "fleet:", err)
		flags.Usage()
	}
	return s, err
}

// size reads the list of sizes.
func (s *settings) size(list string) error {
	for word := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil || n < 1 || n > 100_000 {
			return fmt.Errorf("-devices: %q is no number from 1 to 100000", word)
		}
		s.devices = append(s.devices, n)
	}
	return nil
}

// check says which flag cannot be meant. What a guard refuses it refuses itself.
func (s *settings) check(rest []string) error {
	whole := func(d time.Duration) bool { return d%second == 0 }
	switch suffix := filepath.Ext(s.chart); {
	case len(rest) > 0:
		return fmt.Errorf("unexpected argument %q", rest[0])
	case s.runs < 1 || s.runs > 1000:
		return errors.New("-runs: must be from 1 to 1000")
	case s.interval < second || !whole(s.interval):
		return errors.New("-interval: must be whole seconds, for requests are counted by the second")
	case s.timeout > s.interval:
		return errors.New("-timeout: must be at most -interval, or slow answers would keep questions further apart")
	case s.downFrom < s.interval || !whole(s.downFrom):
		return errors.New("-down-from: must be whole seconds, and at least -interval, to have seen normal running")
	case s.downTo < s.downFrom || !whole(s.downTo):
		return errors.New("-down-to: must be whole seconds, and not before -down-from")
	case s.chart != "" && suffix != ".png" && suffix != ".svg":
		return errors.New("-chart: must end in .png or .svg")
	}
	return nil
}

// outage is how long the authority is down.
func (s *settings) outage() time.Duration { return s.downTo - s.downFrom }

// budget is how long retries may go on: through the outage and as long again as the guards' back-off may have them wait
// behind it.
func (s *settings) budget() time.Duration {
	if !s.retries {
		return 0
	}
	return 2*s.outage() + s.interval
}

// revokeAt is when every device is revoked: two intervals after the outage, in which all is to be normal again.
func (s *settings) revokeAt() time.Duration {
	if s.outage() == 0 {
		return s.downTo
	}
	return s.downTo + 2*s.interval
}

// bound is the contract's B1: how long after a revocation work may go on.
func (s *settings) bound() time.Duration { return s.interval + s.timeout }

// stopBound is B2: how long after the request of its last ALLOW work may go on.
func (s *settings) stopBound() time.Duration { return s.bound() + s.budget() }

func (s settings) String() string {
	text := fmt.Sprintf("interval %v, timeout %v: a revoked device has stopped after %v", s.interval, s.timeout, s.bound())
	if s.outage() > 0 {
		text += fmt.Sprintf("; the authority is down from %v to %v", s.downFrom, s.downTo)
	}
	if s.retries {
		text += fmt.Sprintf(", with retries for up to %v", s.budget())
	}
	return text
}

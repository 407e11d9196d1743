package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/execguard/execguard/guard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// usual is a fleet with the default figures of a guard.
func usual() settings {
	return settings{
		devices: []int{300}, runs: 2, interval: 10 * time.Second, timeout: 3 * time.Second,
		downFrom: 20 * time.Second, downTo: 35 * time.Second,
	}
}

// measured is what a fleet in a bubble has printed, and what it has not shown.
func measured(t *testing.T, s settings, hire hireFunc) (text string, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		err = measure(t.Context(), s, new(pipes).network(), hire, &out)
		text = out.String()
	})
	return text, err
}

func wantLines(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if !strings.Contains(text, l) {
			t.Errorf("%q is missing in:\n%s", l, text)
		}
	}
}

func TestFleet(t *testing.T) {
	s := usual()
	s.devices = []int{1, 30, 300}
	s.chart = filepath.Join(t.TempDir(), "fleet.svg")
	text, err := measured(t, s, newKeeper)
	if err != nil || strings.Contains(text, "NOT SEEN") {
		t.Errorf("got %v:\n%s", err, text)
	}
	wantLines(t, text, "--- 1 devices", "--- 30 devices", "--- 300 devices", "load: 30.0 requests a second", "600 of 600 runs in flight",
		"outage: 600 runs stopped", "revoke all: 600 runs stopped", " 0 left", "after the revocation: 0 runs started", "chart: "+s.chart)
}

// With retries the runs go through the outage, and the peak behind it is stated.
func TestFleetThatRetries(t *testing.T) {
	s := usual()
	s.retries = true
	text, err := measured(t, s, newKeeper)
	if err != nil {
		t.Errorf("got %v:\n%s", err, text)
	}
	wantLines(t, text, "with retries for up to 40s", "outage: 0 runs stopped", "600 worked on", "peak after the outage, with retries: ")
}

func TestFleetWithoutAnOutage(t *testing.T) {
	s := usual()
	s.downTo = s.downFrom
	text, err := measured(t, s, newKeeper)
	if err != nil || strings.Contains(text, "ok       outage:") || strings.Contains(text, "the authority is down from") {
		t.Errorf("got %v:\n%s", err, text)
	}
}

// A thousand devices are an organisation's, and so are not all of the fleet.
func TestFleetOfSeveralOrganisations(t *testing.T) {
	s := usual()
	s.devices, s.runs, s.downFrom, s.downTo = []int{1001}, 1, s.interval, s.interval
	text, err := measured(t, s, newKeeper)
	if err != nil {
		t.Errorf("got %v:\n%s", err, text)
	}
	wantLines(t, text, "load: 100.1 requests a second", "revoke all: 1,001 runs stopped")
}

// What a guard cannot be made of, and a fleet that does not start, ends before anything is measured.
func TestFleetThatDoesNotStart(t *testing.T) {
	broken := errors.New("no such guard")
	_, err := measured(t, usual(), func(guard.Validator, ...guard.Option) (keeper, error) { return nil, broken })
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	_, err = measured(t, usual(), careless(func(p *poller, _ time.Time, _ time.Duration) {
		p.Validator = guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) {
			return guard.Decision{Code: guard.CodeDeviceNotFound}, nil
		})
	}))
	if err == nil || !strings.Contains(err.Error(), "0 of 600 runs: not all runs had started after 1m0s") {
		t.Errorf("got %v", err)
	}
	s := usual()
	s.timeout = time.Nanosecond
	if _, err = measured(t, s, newKeeper); err == nil || !strings.Contains(err.Error(), "WithTimeout") {
		t.Errorf("got %v", err)
	}
}

// Whenever it is interrupted, everybody goes home.
func TestInterruptEndsTheFleet(t *testing.T) {
	for _, after := range []time.Duration{0, 5 * time.Second, 30 * time.Second, 45 * time.Second, 70 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			why := errors.New("interrupted")
			ctx, interrupt := context.WithTimeoutCause(t.Context(), after, why)
			defer interrupt()
			s := usual()
			s.devices = []int{20}
			if err := measure(ctx, s, new(pipes).network(), newKeeper, io.Discard); !errors.Is(err, why) {
				t.Errorf("after %v: got %v", after, err)
			}
		})
	}
}

func TestHelpAndBadFlags(t *testing.T) {
	for args, says := range map[string]string{
		"-nonsense": "-nonsense", "-devices none": `"none"`, "-devices 0": `"0"`, "-devices 10,100001": `"100001"`, "-devices": "-devices",
		"-runs 0": "-runs", "-runs 1001": "-runs", "-interval 500ms": "-interval", "-interval 1500ms": "-interval", "-timeout 3s": "-timeout",
		"-down-from 1s": "-down-from", "-down-from 6500ms": "-down-from", "-down-to 5s": "-down-to", "-down-to 9001ms": "-down-to",
		"-chart fleet.gif": "-chart", "-chart fleet": "-chart", "10000": `"10000"`,
	} {
		var stdout, stderr bytes.Buffer
		status := run(t.Context(), strings.Fields(args), &stdout, &stderr)
		if status != 2 || stdout.Len() != 0 || !strings.Contains(stderr.String(), says) || !strings.Contains(stderr.String(), "-retries") {
			t.Errorf("%s: status %d, printed %q, complained %q", args, status, &stdout, &stderr)
		}
	}
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), []string{"-h"}, &stdout, &stderr); status != 0 || !strings.Contains(stderr.String(), "-down-from") {
		t.Errorf("help: status %d, %q", status, &stderr)
	}
}

// What fails although it was started the right way is status 1.
func TestFailureIsTheStatus(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	var stdout, stderr bytes.Buffer
	if status := run(ctx, []string{"-devices", "3"}, &stdout, &stderr); status != 1 || !strings.Contains(stderr.String(), "fleet: 3 devices: ") {
		t.Errorf("status %d, %q", status, &stderr)
	}
}

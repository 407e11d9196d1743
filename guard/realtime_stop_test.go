//go:build unix

package guard_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/execguard/execguard/guard/guardtest"
)

// S6 on a real process: it is stopped by SIGSTOP at some moment before, at or after the stop line,
// and continued by SIGCONT. A function whose line has passed meanwhile is told at once, although the
// authority is well and would allow it; Checkpoint says no and nothing starts on the permission of
// before, whatever a timer has had the time to do.
func TestRealTime_StoppedProcess(t *testing.T) {
	if os.Getenv(childVariable) != "" {
		obey(t)
		return
	}
	children := make([]*child, 4)
	for i := range children {
		children[i] = newChild(t)
	}
	found := share(children, (*child).try)
	found.report(t)
	t.Logf("%d lines passed while the process was stopped; told after it was continued: late by %s; %d starts in the 20 ms after that",
		found.across, spread(found.resumed), found.anew)
	if fewest := min(len(found.resumed), found.across, found.anew); fewest < *realTries/10 {
		t.Errorf("in %d tries only %d are of a kind that there must be", *realTries, fewest)
	}
}

// child is the process that is stopped, its authority, and what leads to and fro.
type child struct {
	server  *guardtest.Server
	process *os.Process
	orders  *json.Encoder
	reports *json.Decoder
	pipe    *os.File // of reports
	broken  bool     // something went wrong: no more tries
}

// newChild starts one that ends with the test, however that ends.
func newChild(t *testing.T) *child {
	t.Helper()
	server := guardtest.NewServer(t, guardtest.WithPlainHTTP())
	for i := range len(stoppedParts) + 1 {
		server.Register(deviceName(i))
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Not the test's own context, which would kill it when it is about to end by itself.
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), self, "-test.run=^TestRealTime_StoppedProcess$", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), childVariable+"=1", "MACHINEID_ORG_KEY="+server.Key())
	return (&child{server: server}).start(t, cmd)
}

func (c *child) start(t *testing.T, cmd *exec.Cmd) *child {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	orders, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{write}
	err = cmd.Start()
	_ = write.Close() // it is the child's now
	if err != nil {
		_ = read.Close()
		t.Fatal(err)
	}
	c.process, c.pipe, c.orders, c.reports = cmd.Process, read, json.NewEncoder(orders), json.NewDecoder(read)
	t.Cleanup(func() {
		defer func() { _ = read.Close() }()
		if err := c.end(cmd, orders); err != nil {
			t.Errorf("the child: %v\n%s", err, &out)
		}
	})
	return c
}

// end has the process end by the end of its orders, and kills it where that does not help.
func (c *child) end(cmd *exec.Cmd, orders io.Closer) error {
	orders.Close()
	kill := func() { _ = c.process.Kill() }
	if c.broken {
		kill()
	}
	killer := time.AfterFunc(patience, kill)
	defer killer.Stop()
	return cmd.Wait()
}

// try stops the process once.
func (c *child) try(n int) (found findings) {
	if c.broken {
		return found
	}
	if err := c.stopAndJudge(n, &found); err != nil {
		c.broken = true
		found.complainf("try %d: %v", n, err)
	}
	return found
}

func (c *child) stopAndJudge(n int, found *findings) error {
	road, err := newRoad(c.server, stall{answers: noBytes})
	if err != nil {
		return err
	}
	defer road.close()
	o := order{Try: n, Base: "http://" + road.proxy.address(), Retry: n%2 == 0, Reuse: n/2%2 == 0}
	began := time.Now()
	if err := c.orders.Encode(o); err != nil {
		return err
	}
	if r, err := c.next(); err != nil {
		return err
	} else if r.Void {
		found.void++
		return nil
	}
	h, err := c.halt(o, road, healths[n/8%len(healths)])
	if err != nil {
		return err
	}
	r, err := c.next()
	if err != nil {
		return err
	}
	if !leapt(began) { // the child's instants and ours are compared by the wall clock
		r.judge(o, h, found)
	}
	return nil
}

// health is what becomes of the authority in a try.
type health int

const (
	well   health = iota
	silent        // from some moment on
	slow          // the answers that are missing when the process is stopped come while it is
)

// healths has each as often as it is worth.
var healths = []health{silent, well, silent, slow}

// halt stops the process and continues it. It gives no answer to the question whether the line has
// passed: that is for the child to say.
func (c *child) halt(o order, r *road, authority health) (h halt, err error) {
	bound := o.pace().bound()
	wait := bound + bound/4
	if authority != well {
		pauseFor(rand.N(o.pace().interval), nil)
		if err := r.stall(); err != nil {
			return h, err
		}
	}
	if authority == slow {
		wait = o.pace().timeout
	}
	pauseFor(rand.N(wait), nil)
	h.stopped = time.Now()
	if err := c.process.Signal(syscall.SIGSTOP); err != nil {
		return h, err
	}
	pauseFor(rand.N(2*bound), nil)
	if authority == slow {
		r.proxy.resume()
	}
	err = c.process.Signal(syscall.SIGCONT)
	h.continued = time.Now()
	if err == nil && authority != silent {
		pauseFor(rand.N(o.pace().interval), nil)
		err = c.orders.Encode(order{Try: o.Try, End: true})
	}
	return h, err
}

// next reads a report.
func (c *child) next() (r report, err error) {
	if err := c.pipe.SetReadDeadline(time.Now().Add(3 * patience)); err != nil {
		return r, err
	}
	if err := c.reports.Decode(&r); err != nil {
		return r, err
	}
	return r, r.err()
}

// judge holds what the child saw to the contract.
func (r report) judge(o order, h halt, found *findings) {
	for _, w := range r.Runs {
		found.add(r.Seen.judge(o.pace(), w, h))
	}
	for _, w := range r.Starts {
		found.add(r.Seen.judgeStart(w, o.maxAge()))
		if after := w.Called.Sub(h.continued); after > 0 && after < 20*time.Millisecond {
			found.anew++
		}
	}
}

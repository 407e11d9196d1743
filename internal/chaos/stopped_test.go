//go:build unix

package chaos_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/execguard/execguard/internal/chaos"
)

// childVariable makes TestStoppedProcess the process that is stopped. What it has to know comes on
// the standard input, in JSON, and when that ends the child ends its work and writes what it has
// recorded to reportFile, the first one beyond the standard ones.
const (
	childVariable = "EXECGUARD_TEST_CHAOS_CHILD"
	reportFile    = 3
)

// longestHistory bounds what is judged at once.
const longestHistory = 2 * time.Minute

// charge is what the child has to know.
type charge struct{ Base, Key string }

// S4, S6: a process with work under its guards is stopped and continued at random times, while the
// network fails and devices are revoked. No context is live past its line, or past the continuing.
func TestStoppedProcess(t *testing.T) {
	if os.Getenv(childVariable) != "" {
		beChild(t)
		return
	}
	t.Parallel()
	first := seed()
	for n := range uint64(6) { // on a busy machine a few halts may hit nothing
		t.Logf("-chaos.seed %d", first+n)
		found, halts, over := stopAndContinue(t, first+n)
		report(t, "the stopped process", found)
		t.Logf("%d halts; %d runs were in flight when one began, and had to be stopped when it was over", halts, over)
		if over > 0 && found.Stopped > 0 || t.Failed() {
			return
		}
	}
	t.Error("too little was seen")
}

// stopAndContinue has one process live through a plan and some halts.
func stopAndContinue(t *testing.T, seed uint64) (found chaos.Findings, halted, over int) {
	machine := chaos.NewPulse()
	defer machine.Stop()
	w := newWorld(t, machine, false)
	for _, device := range []string{
		"run", "run-reuse", "run-retry", "run-alone", "keep", "run-many-0", "run-many-1", "run-many-2", "run-many-3",
	} {
		w.register(device)
	}
	process, history := w.bear(t)
	length := min(longestHistory, *mixtureTime)
	var halting sync.WaitGroup
	var halts []chaos.Halt
	halting.Go(func() { halts = halt(t, process, rand.New(rand.NewPCG(seed, 3)), length) })
	cast := w.cast(length)
	cast.Quiet, cast.Allowed = 2*time.Second, 3*time.Second // so that there is work in flight to be halted
	cast.Faults, cast.Seams = []string{"500", "64 MiB body", "answers out of order", "flapping"}, nil
	if err := chaos.Play(t.Context(), chaos.Draw(seed, cast), w.do); err != nil {
		t.Error(err)
	}
	halting.Wait()
	w.heal()
	h := merge(history(), w.finish())
	h.Halts = halts
	return chaos.Check(h), len(halts), resumed(h)
}

// bear starts the child. history has it end, and returns what it has recorded.
func (w *world) bear(t *testing.T) (process *os.Process, history func() chaos.History) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), self, "-test.run=^TestStoppedProcess$", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), childVariable+"=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	orders, err := cmd.StdinPipe()
	must(t, err)
	read, write, err := os.Pipe()
	must(t, err)
	cmd.ExtraFiles = []*os.File{write}
	must(t, cmd.Start())
	_ = write.Close() // it is the child's now
	must(t, json.NewEncoder(orders).Encode(charge{w.base, w.key}))
	return cmd.Process, func() (h chaos.History) {
		orders.Close()
		killer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		defer killer.Stop()
		if err := json.NewDecoder(read).Decode(&h); err != nil {
			t.Errorf("the child's report: %v", err)
		}
		_ = read.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the child: %v\n%s", err, &out)
		}
		return h
	}
}

// beChild works until it is told to end.
func beChild(t *testing.T) {
	orders := json.NewDecoder(os.Stdin)
	var c charge
	must(t, orders.Decode(&c))
	machine := chaos.NewPulse()
	defer machine.Stop()
	w := &world{t: t, key: c.Key, base: c.Base, recorder: chaos.NewRecorder(machine)}
	w.over, w.end = context.WithCancel(context.Background())
	w.runLanes()
	w.keepLane("keep")
	_, _ = io.Copy(io.Discard, orders.Buffered())
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent closes it, or is no more
	must(t, json.NewEncoder(os.NewFile(reportFile, "report")).Encode(w.finish()))
}

// halt stops a process and continues it, again and again.
func halt(t *testing.T, process *os.Process, random *rand.Rand, length time.Duration) (halts []chaos.Halt) {
	some := func(most time.Duration) {
		_ = pause(t.Context(), time.Duration(random.Int64N(int64(most))))
	}
	_ = pause(t.Context(), 500*ms) // for the child to begin
	for began := time.Now(); time.Since(began) < length-500*ms; {
		some(400 * ms)
		h := chaos.Halt{Stopped: time.Now()}
		must(t, process.Signal(syscall.SIGSTOP))
		some(2 * pace.Bound())
		must(t, process.Signal(syscall.SIGCONT))
		h.Continued = time.Now()
		halts = append(halts, h)
	}
	return halts
}

// merge is the child's history, and what its parent saw of the authority. Instants of two processes
// are compared by the wall clock.
func merge(child, parent chaos.History) chaos.History {
	for _, v := range parent.Verdicts {
		v.Asked, v.Given = v.Asked.Round(0), v.Given.Round(0)
		child.Verdicts = append(child.Verdicts, v)
	}
	for _, c := range parent.Changes {
		c.From, c.To = c.From.Round(0), c.To.Round(0)
		child.Changes = append(child.Changes, c)
	}
	return child
}

// resumed counts the runs that were in flight when a halt began, and were stopped within the tolerance
// after it.
func resumed(h chaos.History) (n int) {
	for _, w := range h.Runs {
		for _, halt := range h.Halts {
			after := w.Told.Sub(halt.Continued)
			if w.Began.Before(halt.Stopped) && !w.Own && after > 0 && after < h.Tolerance {
				n++
			}
		}
	}
	return n
}

//go:build unix

package guard_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/machineid"
)

// childVariable makes TestRealTime_StoppedProcess the process that is stopped. It gets its orders
// on the standard input and reports on the first file beyond the standard ones, both in JSON.
const (
	childVariable = "EXECGUARD_TEST_STOPPED_PROCESS"
	reportFile    = 3
)

// order tells the child to make a try, or to end the one that is under way. There is no next try
// before the last one was reported.
type order struct {
	Try   int
	End   bool
	Base  string // where the authority is
	Retry bool
	Reuse bool
}

// report is what the child sends back: that the functions have been called, and then what it saw.
type report struct {
	Try    int
	Err    string
	Began  bool
	Void   bool // nor will they be: errTooBusy
	Seen   sightings
	Runs   []seenRun
	Starts []seenStart
}

func (o order) pace() pace {
	const ms = time.Millisecond
	p := pace{interval: 40 * ms, timeout: 30 * ms}
	if o.Retry {
		p.budget = 30 * ms
	}
	return p
}

// maxAge is how old a permission may be on which a run starts.
func (o order) maxAge() time.Duration {
	if o.Reuse {
		return o.pace().interval
	}
	return 0
}

// obey makes the tries that it is ordered to make, until there are no more orders.
func obey(t *testing.T) {
	machine := newPulse()
	defer machine.stop()
	orders := make(chan order)
	go readOrders(t, orders)
	reports := json.NewEncoder(os.NewFile(reportFile, "reports"))
	for o := range orders {
		if o.End {
			continue // the try was over already
		}
		r, err := o.obey(machine, orders, reports)
		switch {
		case err == errTooBusy:
			r.Void = true
		case err != nil:
			r.Err = err.Error()
		}
		if err := reports.Encode(r); err != nil {
			t.Errorf("reports: %v", err)
		}
	}
}

// readOrders reads until the parent closes the pipe, or is no more.
func readOrders(t *testing.T, to chan<- order) {
	defer close(to)
	from := json.NewDecoder(os.Stdin)
	for {
		var o order
		if err := from.Decode(&o); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Errorf("orders: %v", err)
			return
		}
		to <- o
	}
}

// obey makes one try.
func (o order) obey(machine *pulse, orders <-chan order, reports *json.Encoder) (report, error) {
	r := report{Try: o.Try}
	client, err := machineid.FromEnv(machineid.WithBaseURL(o.Base))
	if err != nil {
		return r, err
	}
	defer client.CloseIdleConnections()
	var opts []guard.Option
	if o.Reuse {
		opts = append(opts, guard.WithReuse(o.maxAge()))
	}
	record := newRecorder(client, o.pace(), machine)
	st, err := newStage(record, o.Try/4, opts...)
	if err != nil {
		return r, err
	}
	defer st.guard.Close()
	runs, err := st.start(stoppedParts)
	if err == nil {
		err = reports.Encode(report{Try: o.Try, Began: true})
	}
	if err != nil {
		st.end()
	}
	r.Starts = o.await(st, orders)
	st.guard.Close()
	record.land()
	r.Seen = record.stop(st.observed)
	for _, w := range runs {
		r.Runs = append(r.Runs, *w)
	}
	return r, err
}

// stoppedParts are the parts of the runs in the process that is stopped.
var stoppedParts = []string{listeners[0], listeners[2], partChecks, partReturns}

// await waits for the runs to end, and ends them when it is ordered to. Beside them others start, of
// one more device.
func (o order) await(st *stage, orders <-chan order) []seenStart {
	var knocking sync.WaitGroup
	var starts [2][]seenStart // two callers, so that there is something to share
	for i := range starts {
		knocking.Go(func() { starts[i] = st.knock(deviceName(len(stoppedParts))) })
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-st.done:
	case <-timer.C:
	case <-orders: // to end it, or no more at all
	}
	st.end()
	<-st.done
	knocking.Wait()
	return slices.Concat(starts[:]...)
}

func (r report) err() error {
	if r.Err == "" {
		return nil
	}
	return fmt.Errorf("try %d: %s", r.Try, r.Err)
}

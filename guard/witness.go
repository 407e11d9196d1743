package guard

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/execguard/execguard/contextx"
)

// Witness is an offline Validator that keeps what the online authority said, so that it outlives the
// process: a signed file with a memory beside it, say, that a denial makes unusable until the
// authority has allowed the device again.
type Witness interface {
	Validator

	// Witness is told of an answer by which the online authority has decided about a device: a
	// denial with its code, or an ALLOW that is younger than every denial learnt. Fallback calls it
	// on the goroutine of the question and waits for it, for one answer after the other, so that the
	// last one told is the last word in this process. asked is when the question was sent, with the
	// monotonic reading: an ALLOW takes back no denial that was learnt later, be it by another process
	// (S5). ctx has the values of the question's, does not end with it, and ends soon. An error says
	// that the answer is not kept; it changes no decision.
	Witness(ctx context.Context, deviceID string, online Decision, asked time.Time) error
}

// testimony is one answer for a Witness.
type testimony struct {
	deviceID string
	online   Decision
	asked    time.Time
}

// tellFunc is the method of a Witness.
type tellFunc func(ctx context.Context, deviceID string, online Decision, asked time.Time) error

// witnessTime is the most that keeping an answer may delay it, and leastWitnessTime what there is
// for it even where the caller has no time left: a denial is one whenever it is learnt.
const (
	witnessTime      = time.Second
	leastWitnessTime = 100 * time.Millisecond
)

// notKept is what is said of an answer that a Witness could not keep.
const notKept = "the offline memory was not written"

// witness calls a Witness, for one answer at a time.
type witness struct {
	tell tellFunc // nil: there is none
	once sync.Once
	turn chan struct{} // holds a token while the Witness is called

	mu   sync.Mutex
	owed map[string]testimony // denials whose turn did not come, by device; under mu
}

// told tells the Witness of an answer if, when its turn comes, the answer still counts. Whether it
// counts is asked in any case, and no other answer gets in between.
func (w *witness) told(ctx context.Context, t testimony, counts func() bool) error {
	if w.tell == nil {
		counts()
		return nil
	}
	ctx, cancel := contextx.Cleanup(ctx, w.patience(ctx))
	defer cancel()
	w.once.Do(func() { w.turn = make(chan struct{}, 1) }) // here and not before, so that it is of the caller's synctest bubble
	select {
	case w.turn <- struct{}{}:
		defer func() {
			w.catchUp(ctx)
			<-w.turn
		}()
	case <-ctx.Done():
		if counts() {
			w.owe(t)
		}
		return context.Cause(ctx)
	}
	if !counts() {
		return nil
	}
	if t.online.Allowed {
		w.owe(t) // what its own device owed is over, and must not be told after it
	}
	w.catchUp(ctx)
	return witnessed(ctx, w.tell, t)
}

// owe keeps a denial whose turn did not come for whoever has the next one: a denial that is never
// told would be forgotten when the process ends. Beyond maxRefused the Witness is not told. An ALLOW is
// not kept, but settles the debt of its own device.
func (w *witness) owe(t testimony) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.owed == nil {
		w.owed = make(map[string]testimony)
	}
	before, known := w.owed[t.deviceID]
	switch {
	case !t.online.Allowed && (known || len(w.owed) < maxRefused):
		w.owed[t.deviceID] = t
	case t.online.Allowed && !before.online.Code.OrganisationWide():
		delete(w.owed, t.deviceID)
	}
}

// catchUp tells what is owed. It is called by who has the turn.
func (w *witness) catchUp(ctx context.Context) {
	w.mu.Lock()
	owed := w.owed
	w.owed = nil
	w.mu.Unlock()
	for _, t := range owed {
		if witnessed(ctx, w.tell, t) != nil {
			w.owe(t) // whose denial it was has been told that it is not kept; it may be yet
		}
	}
}

// patience is how long an answer may wait to be kept: half of the time left, so that it is not late.
func (w *witness) patience(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return witnessTime
	}
	return min(witnessTime, max(leastWitnessTime, time.Until(deadline)/2))
}

// witnessed calls a Witness, whose panic must not cost the answer.
func witnessed(ctx context.Context, tell tellFunc, t testimony) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("the Witness panicked: " + panicText(p))
		}
	}()
	err = tell(ctx, t.deviceID, t.online, t.asked)
	if err != nil && isNil(err) {
		err = fmt.Errorf("the error is a nil %T", err) // whoever looks into it will panic
	}
	return err
}

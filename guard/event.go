package guard

import (
	"context"
	"sync"
	"time"

	"github.com/execguard/execguard/contextx"
)

// EventKind says what an Event tells.
type EventKind string

// The kinds of events. Every EventStarted is followed by one EventStopped or EventFinished.
const (
	EventValidated EventKind = "validated" // a question to the authority was answered, or given up
	EventStarted   EventKind = "started"   // a function is about to be called
	EventRefused   EventKind = "refused"   // a run was denied, or the guard was closed, before the start
	EventStopped   EventKind = "stopped"   // a function that had been told to stop has returned
	EventFinished  EventKind = "finished"  // a function has returned that had not been told to stop
	EventOverran   EventKind = "overran"   // a function goes on, one timeout after it was told to stop
	EventHinted    EventKind = "hinted"    // Hint was called
)

// Event is one fact. Started, refused, stopped and finished are told on the goroutine that
// called Run, in order, and are never lost. The others are told soon, from one goroutine through
// a bounded queue, so that «started» may come before the «validated» that it stands on; what did
// not fit is counted in Dropped.
type Event struct {
	Kind     EventKind
	DeviceID string   // "" for a hint that concerns every device
	Decision Decision // what allowed or denied; with its request id
	// AllowedBy is the request id of the ALLOW that a run started on, for started, stopped, finished and overran.
	AllowedBy string
	// Err is the denial or ErrClosed for refused, stopped and overran, the function's own error
	// for finished, and for validated why the authority could not be asked.
	Err error
	// Took is how long the call to the authority took for validated, the wait for started and
	// refused, and the function for stopped, finished and overran.
	Took    time.Duration
	At      time.Time     // when it happened: observers may be told later
	After   time.Duration // stopped and overran: how long the function went on after it was told
	Dropped uint64        // events that the queue has lost since the guard was made
}

// queueLength bounds the events that wait for a slow observer.
const queueLength = 1024

// events tells the observers. The goroutine that empties the queue ends when it is empty.
type events struct {
	observers []func(context.Context, Event)
	timeout   time.Duration

	mu      sync.Mutex
	queue   []Event
	telling bool // the goroutine is there
	dropped uint64
}

// tell tells the observers now, on the caller's goroutine. The context they get has the values
// of ctx, does not end with it, and ends after the guard's timeout: who waits on it waits no longer.
func (e *events) tell(ctx context.Context, ev Event) {
	if e == nil {
		return
	}
	e.mu.Lock()
	ev.Dropped = e.dropped
	e.mu.Unlock()
	if ev.At.IsZero() {
		ev.At = time.Now()
	}
	ctx, cancel := contextx.Cleanup(ctx, e.timeout)
	defer cancel()
	for _, observe := range e.observers {
		tellOne(ctx, observe, ev)
	}
}

// tellOne keeps an observer's panic from the work that is guarded.
func tellOne(ctx context.Context, observe func(context.Context, Event), ev Event) {
	defer func() { _ = recover() }()
	observe(ctx, ev)
}

// enqueue has the observers told soon, and never blocks.
func (e *events) enqueue(ev Event) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) >= queueLength {
		e.dropped++
		return
	}
	ev.At = time.Now()
	e.queue = append(e.queue, ev)
	if !e.telling {
		e.telling = true
		go e.drain()
	}
}

// validated has the observers told of an answer. An Event is large: on the stack of every call to
// the authority it would make that grow.
//
//go:noinline
func (e *events) validated(id string, v *verdict, took time.Duration) {
	if e != nil {
		e.enqueue(Event{Kind: EventValidated, DeviceID: id, Decision: v.Decision, Err: v.reason, Took: took})
	}
}

// drain tells what is queued until the queue is empty. An observer that ends its goroutine
// (runtime.Goexit) costs a new one, and no event but the one it was told.
func (e *events) drain() {
	emptied := false
	defer func() {
		if !emptied {
			go e.drain()
		}
	}()
	for {
		ev, ok := e.next()
		if !ok {
			emptied = true
			return
		}
		e.tell(context.Background(), ev)
	}
}

// next takes the oldest event; where there is none, the goroutine that asked has to end.
func (e *events) next() (Event, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) == 0 {
		e.queue, e.telling = nil, false
		return Event{}, false
	}
	ev := e.queue[0]
	e.queue = e.queue[1:]
	return ev, true
}

// lost is how many events did not fit into the queue.
func (e *events) lost() uint64 {
	if e == nil {
		return 0
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.dropped
}

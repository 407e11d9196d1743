package guard

import (
	"context"
	"errors"
	"sync"
)

var (
	errNoRunner = errors.New("guard: the Runner is nil")
	errNotRun   = errors.New("guard: the Runner returned without calling the function")
)

// Session is a run of work that begins in one function and ends in another. Begin makes it; its
// methods may be called from several goroutines at once.
type Session struct {
	once  sync.Once
	over  chan struct{} // closed by End
	work  error         // what End was given first; written before over is closed
	ended chan struct{} // closed when Run has returned
	err   error         // what it returned; written before ended is closed
}

// Begin is Run for work that cannot be one function call: an answer's body that is read later, a
// stream that is handed on. Like Run it waits for the authority and returns what Run returns where
// the work must not start. Otherwise it returns the context that the work has to obey, which ends as
// a function's would, and the Session, to be ended with the work. A goroutine holds the run open until
// then. With an error the context and the Session are nil.
//
// A Session that is forgotten ends with ctx. After a denial nothing but End ends it, because the work may go
// on, as Run waits for a function, and it is told of when it overruns: AfterStop is where to see to its
// end. r must call its function once. ExampleBegin shows a body that is read under a guard.
func Begin(ctx context.Context, r Runner, deviceID string) (context.Context, *Session, error) {
	if isNil(r) {
		return nil, nil, errNoRunner
	}
	s := &Session{over: make(chan struct{}), ended: make(chan struct{}), err: errUnwound}
	started := make(chan context.Context, 1)
	go s.run(ctx, r, deviceID, started)
	select {
	case run := <-started:
		return run, s, nil
	case <-s.ended:
	}
	select {
	case run := <-started: // and it has ended at once
		return run, s, nil
	default:
		if s.err == nil {
			return nil, nil, errNotRun
		}
		return nil, nil, s.err
	}
}

func (s *Session) run(ctx context.Context, r Runner, deviceID string, started chan<- context.Context) {
	defer close(s.ended)
	s.err = r.Run(ctx, deviceID, func(ctx context.Context) error {
		select {
		case started <- ctx:
		default: // a Runner that calls again and again
			return s.work
		}
		select {
		case <-s.over:
		case <-ctx.Done():
			if err := startCause(ctx); !errors.Is(err, ErrDenied) && !errors.Is(err, ErrClosed) {
				s.End(err) // unless it was called
			}
			<-s.over
		}
		return s.work
	})
}

// End ends the run, with what the work came to: nil, or its error. Only the first call counts. End
// does not block.
func (s *Session) End(work error) {
	s.once.Do(func() {
		s.work = work
		close(s.over)
	})
}

// Wait waits until the run is over, and returns what Run returned: the denial where the device was
// denied before the run was over, and otherwise what End was given, or the cause of the context that
// ended first. A denial that is learnt while End is called may be before it or after. Wait blocks until
// End is called, or the caller's context has ended without a denial, and for the guard's observers.
func (s *Session) Wait() error {
	<-s.ended
	return s.err
}

// String keeps fmt from looking into the session, and into what End was given.
func (s *Session) String() string { return "guard.Session" }

// GoString is String, for %#v.
func (s *Session) GoString() string { return s.String() }

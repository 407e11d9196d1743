package licentric

import (
	"context"
	"sync"
	"time"

	"github.com/execguard/execguard/guard"
)

// refusal is a denial by the online authority since which it has not allowed. The zero refusal is
// none.
type refusal struct {
	code guard.Code
	at   time.Time // since when it is so
	last time.Time // when it was learnt last: a question that was sent before it can take nothing back (S5)
}

// known is what outlives a question, and with a file the process.
type known struct {
	latest  time.Time // seen on any clock
	refused refusal

	unwritten bool // it stands in no file
}

// memory keeps what is known, beside a file where there is one. Processes share the file: what
// another has written counts as if it had been learnt here.
type memory struct {
	file *memoryFile   // whose nil is none: nothing outlives the process
	turn chan struct{} // holds a token while known and the file are in use

	known known // what the file said last, or would say; by turns

	mu     sync.Mutex
	denial *refusal // learnt and not in known yet, since its turn has not come or the file failed; under mu
}

func newMemory(file *memoryFile) *memory {
	return &memory{file: file, turn: make(chan struct{}, 1)}
}

// look returns what is known, and takes note that it is latest now.
func (m *memory) look(ctx context.Context, latest time.Time) (known, error) {
	return m.update(ctx, latest, func(*refusal, known) bool { return false })
}

// refuse remembers a denial. From its first step on the process knows of it, whatever becomes of
// the file.
func (m *memory) refuse(ctx context.Context, latest time.Time, code guard.Code) error {
	m.mu.Lock()
	m.denial = &refusal{code: code, at: latest, last: latest}
	m.mu.Unlock()
	_, err := m.look(ctx, latest)
	return err
}

// allow forgets the denials that were known when it was called, but for those that some process has
// learnt since the question was sent, which was that long ago. One that comes meanwhile stays.
func (m *memory) allow(ctx context.Context, latest time.Time, ago time.Duration) (known, error) {
	before := m.pending()
	return m.update(ctx, latest, func(denial *refusal, k known) bool {
		return denial == before && !k.refused.last.After(k.latest.Add(-ago))
	})
}

func (m *memory) pending() *refusal {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.denial
}

// settled takes note that a denial stands in known, or is forgotten; a younger one does not yet.
func (m *memory) settled(denial *refusal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.denial == denial {
		m.denial = nil
	}
}

// update brings what is known up to date, in the file too. freed tells of the denial that is pending
// whether it and all older ones are forgotten.
func (m *memory) update(ctx context.Context, latest time.Time, freed func(denial *refusal, k known) bool) (known, error) {
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return known{}, m.file.failed("lock", context.Cause(ctx))
	}
	unlock, err := m.file.lock(ctx)
	if err != nil {
		return known{}, err
	}
	defer unlock()
	old, err := m.file.read(m.known)
	if err != nil {
		return known{}, err
	}
	denial := m.pending()
	next := old.then(latest, denial)
	if freed(denial, next) {
		next.refused = refusal{}
	}
	if err := m.file.write(old, next); err != nil {
		return known{}, err
	}
	m.known = next
	m.settled(denial)
	return next, nil
}

// then is what is known after a look at the clock, and a denial, if there was one. Of several the
// first one is kept that says the same.
func (k known) then(latest time.Time, denial *refusal) known {
	if latest.After(k.latest) {
		k.latest = latest
	}
	switch {
	case denial == nil:
	case denial.code != k.refused.code:
		k.refused = *denial
	case denial.last.After(k.refused.last):
		k.refused.last = denial.last
	}
	return k
}

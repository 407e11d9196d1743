package authority

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Store keeps organisations. It is what a database has to implement; New without WithStore
// keeps them in memory. It never sees an organisation's key: id is made from one half of the
// key's SHA-256, as 32 hexadecimal digits, and Record.Proof from the other.
//
// A Store is used from several goroutines at once. Each method should return when ctx ends,
// with an error. A failure of Load makes Validate answer SYSTEM_UNAVAILABLE. The error's text is
// for callers in process: over HTTP goes none of it, and the Authority logs nothing, so that a
// Store had better log what fails.
type Store interface {
	// Create stores a new organisation; where id is taken it changes nothing and returns an
	// error that matches ErrExists.
	Create(ctx context.Context, id string, r Record) error
	// Load returns the organisation as the last finished Update left it, or an error that
	// matches ErrNotFound. Neither side changes a Record that Load has handed out.
	Load(ctx context.Context, id string) (Record, error)
	// Update calls change with a copy that change may alter, maps included, and stores the
	// copy as one step: no other Update of the same organisation comes in between, and an
	// error of change, which is returned unaltered or wrapped, stores nothing. change looks
	// at nothing but its argument and may be called again after a conflict.
	Update(ctx context.Context, id string, change func(r *Record) error) error
}

// Record is all there is to know about one organisation. Its fields have JSON names, so that
// a Store may keep it as a document.
type Record struct {
	Proof       string            `json:"proof"` // the half of the key's digest that id does not show
	Plan        Plan              `json:"plan"`
	State       State             `json:"state"`
	Removed     bool              `json:"removed,omitzero"` // the key answers ORG_NOT_FOUND for ever
	Devices     map[string]Device `json:"devices"`          // by id, active and revoked
	Revocations uint64            `json:"revocations"`      // how many there have been; orders them
}

// Device is a registered device, in a Record and in a Listing.
type Device struct {
	ID           string    `json:"deviceId"`
	Status       string    `json:"status"` // "active" or "revoked"; nothing but "active" is allowed
	RegisteredAt time.Time `json:"registeredAt"`
	RevokedAt    time.Time `json:"revokedAt,omitzero"`
	// Revocation numbers the revocations of the organisation, from 1. «Newest first» goes by
	// it and not by RevokedAt, because clocks are set back and batches share an instant.
	Revocation uint64 `json:"revocation,omitzero"`
}

// memory is the Store that New uses by itself.
type memory struct {
	mu    sync.RWMutex     // guards slots, not what is in them
	slots map[string]*slot // never shrinks: a removed organisation keeps its tombstone
}

// slot holds one organisation. Records are replaced and never altered, so that Load takes no
// lock that an Update holds: a validate does not wait for a batch.
type slot struct {
	mu     sync.Mutex // one Update at a time
	record atomic.Pointer[Record]
}

// The methods of memory take ctx's end as their callers' wish, before they begin: no lock here
// is held for longer than a change of one organisation takes.

func newMemory() *memory { return &memory{slots: make(map[string]*slot)} }

func (m *memory) Create(ctx context.Context, id string, r Record) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.slots[id] != nil {
		return ErrExists
	}
	s := new(slot)
	s.record.Store(&r)
	m.slots[id] = s
	return nil
}

func (m *memory) Load(ctx context.Context, id string) (Record, error) {
	s, err := m.slot(ctx, id)
	if err != nil {
		return Record{}, err
	}
	return *s.record.Load(), nil
}

func (m *memory) Update(ctx context.Context, id string, change func(*Record) error) error {
	s, err := m.slot(ctx, id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// The copy is what makes an error of change, or a panic in it, leave nothing half done.
	next := *s.record.Load()
	next.Devices = maps.Clone(next.Devices)
	if err := change(&next); err != nil {
		return err
	}
	s.record.Store(&next)
	return nil
}

// slot finds an organisation; it is nobody's to alter but through its own lock.
func (m *memory) slot(ctx context.Context, id string) (*slot, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if s := m.slots[id]; s != nil {
		return s, nil
	}
	return nil, ErrNotFound
}

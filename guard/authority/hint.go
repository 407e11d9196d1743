package authority

import "sync"

const (
	everyDevice = "" // as Guard.Hint understands it
	// maxPending bounds what a listener that blocks can make the authority remember.
	maxPending = 1024
)

// hub knows who listens to which organisation. Its lock is never held while a hint runs, and
// no lock of a store is held while it is called.
type hub struct {
	mu   sync.Mutex
	subs map[string]map[*subscription]struct{} // by the organisation's id; no empty sets
}

// newHub makes a hub that knows of nobody.
func newHub() *hub { return &hub{subs: make(map[string]map[*subscription]struct{})} }

// subscribe adds a listener. The same function may listen twice; each time is a listener.
func (h *hub) subscribe(id string, hint func(string)) (cancel func()) {
	s := &subscription{hint: hint}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.subs[id] == nil {
		h.subs[id] = make(map[*subscription]struct{})
	}
	h.subs[id][s] = struct{}{}
	return func() {
		h.drop(id, s)
		s.cancel()
	}
}

// drop takes the listener out, and the organisation's set with the last one, so that the map
// is no larger than what is listened to.
func (h *hub) drop(id string, s *subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subs[id], s)
	if len(h.subs[id]) == 0 {
		delete(h.subs, id)
	}
}

// tell leaves the hints with each listener and returns without waiting for any.
func (h *hub) tell(id string, devices []string) {
	if len(devices) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs[id] {
		s.add(devices)
	}
}

// subscription is one listener. A goroutine for the life of each would have to be closed by
// somebody; one that ends when there is nothing to tell need not be.
type subscription struct {
	hint func(deviceID string)

	mu        sync.Mutex          // guards what follows; not held while hint runs
	pending   map[string]struct{} // what hint has not been told; everyDevice stands alone
	telling   bool                // a goroutine is at it
	cancelled bool
}

// add remembers what is to be told and sees that somebody tells it.
func (s *subscription) add(devices []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancelled {
		return
	}
	if s.pending == nil {
		s.pending = make(map[string]struct{})
	}
	for _, d := range devices {
		if _, all := s.pending[everyDevice]; all {
			break
		}
		if d == everyDevice || len(s.pending) >= maxPending {
			clear(s.pending)
			d = everyDevice
		}
		s.pending[d] = struct{}{}
	}
	if !s.telling {
		s.telling = true
		go s.tell()
	}
}

// tell hands over what is pending until nothing is. A hint may end its goroutine
// (runtime.Goexit, as a test's FailNow does); another one then takes over.
func (s *subscription) tell() {
	finished := false
	defer func() {
		if !finished {
			go s.tell()
		}
	}()
	for {
		device, ok := s.next()
		if !ok {
			finished = true
			return
		}
		s.call(device)
	}
}

// next takes one hint off what is pending. With the last one gone the goroutine ends; under the
// same lock, so that no hint is added between the look and the end.
func (s *subscription) next() (device string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for device := range s.pending {
		delete(s.pending, device)
		return device, true
	}
	s.telling = false
	return "", false
}

// call runs the hint. A listener's panic is the listener's: it must not end the process of
// everybody who relies on this authority.
func (s *subscription) call(device string) {
	defer func() { _ = recover() }()
	s.hint(device)
}

// cancel drops what is pending. It does not wait for a call that runs: a hint may cancel itself.
func (s *subscription) cancel() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancelled = true
	s.pending = nil
}

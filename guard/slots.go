package guard

import (
	"container/list"
	"sync"
)

// slots bounds the calls to the authority that are in flight (L4). It is a semaphore with two
// queues: devices with work in flight go first, and starts may have three quarters of the slots,
// so that a storm of them cannot starve the work that runs. golang.org/x/sync/semaphore has one
// queue and wakes goroutines; here nobody waits on a goroutine, a device is handed its slot.
//
// Invariant: a device waits only while there is no slot that it may take.
type slots struct {
	mu       sync.Mutex // a leaf: nothing else is locked under it
	all      int
	starting int // how many of them starts may have
	used     int
	started  int    // how many of those starts have
	hung     [2]int // of those given up that have not returned: starts' and urgent ones
	urgent   list.List
	starts   list.List
}

func (s *slots) init(n int) {
	s.all, s.starting = n, n-n/4
	if n > 1 {
		s.starting = min(s.starting, n-1)
	}
}

// take takes a slot for d and returns true, or returns false and queues d, if it may wait.
func (s *slots) take(d *device, urgent, wait bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free(urgent) {
		s.use(urgent, 1)
		return true
	}
	if wait {
		s.enqueue(d, urgent)
	}
	return false
}

func (s *slots) free(urgent bool) bool {
	return s.used < s.all && (urgent || s.started < s.starting)
}

func (s *slots) use(urgent bool, n int) {
	s.used += n
	if !urgent {
		s.started += n
	}
}

// hang counts calls that were given up and keep their slots until they return.
func (s *slots) hang(urgent bool, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := 0
	if urgent {
		i = 1
	}
	s.hung[i] += n
}

// stuck tells whether no start can be sent before a call returns that nobody can make return.
func (s *slots) stuck() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hung[0] >= s.starting || s.hung[0]+s.hung[1] >= s.all
}

// leave takes d out of its queue.
func (s *slots) leave(d *device) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dequeue(d)
}

// give gives a slot back that had been taken as urgent or not. Where a device waits for one, it
// is returned with the slot, and which kind it is.
func (s *slots) give(urgent bool) (next *device, nextUrgent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.use(urgent, -1)
	for _, nextUrgent := range []bool{true, false} {
		if front := s.queue(nextUrgent).Front(); front != nil && s.free(nextUrgent) {
			d := front.Value.(*device)
			s.dequeue(d)
			s.use(nextUrgent, 1)
			return d, nextUrgent
		}
	}
	return nil, false
}

func (s *slots) queue(urgent bool) *list.List {
	if urgent {
		return &s.urgent
	}
	return &s.starts
}

func (s *slots) enqueue(d *device, urgent bool) { d.place = s.queue(urgent).PushBack(d) }

// dequeue takes d out of whichever queue it stands in.
func (s *slots) dequeue(d *device) {
	if d.place != nil {
		s.urgent.Remove(d.place) // removes nothing of another list
		s.starts.Remove(d.place)
		d.place = nil
	}
}

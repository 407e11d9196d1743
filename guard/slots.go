package guard

import (
	"container/list"
	"sync"
)

// slots bounds the calls to the authority that are in flight (L4). It is a semaphore with two
// queues: devices with work in flight go first, and a quarter of the slots is theirs alone, so
// that a storm of starts cannot starve the work that runs. golang.org/x/sync/semaphore has one
// queue and wakes goroutines; here nobody waits on a goroutine, a device is handed its slot.
//
// Invariant: a device waits only while there is no slot that it may take.
type slots struct {
	mu     sync.Mutex // a leaf: nothing else is locked under it
	free   int
	kept   int // how many free slots starts must leave
	urgent list.List
	starts list.List
}

// place is where a device stands in a queue; guarded by slots.mu.
type place struct {
	queue *list.List // nil: in none
	at    *list.Element
}

func (s *slots) init(n int) {
	s.free, s.kept = n, n/4
	if n > 1 {
		s.kept = max(s.kept, 1)
	}
}

// take takes a slot for d and returns true, or returns false and queues d, if it may wait.
func (s *slots) take(d *device, urgent, wait bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free > 0 && (urgent || s.free > s.kept) {
		s.free--
		return true
	}
	if wait {
		s.enqueue(d, urgent)
	}
	return false
}

// promote moves a device that waits among the starts to where those with work in flight wait.
// Where a slot is free for those it takes it and returns true.
func (s *slots) promote(d *device) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.place.queue != &s.starts {
		return false
	}
	s.dequeue(d)
	if s.free > 0 {
		s.free--
		return true
	}
	s.enqueue(d, true)
	return false
}

// leave takes d out of its queue.
func (s *slots) leave(d *device) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dequeue(d)
}

// give gives a slot back. Where a device waits for it, it is returned with the slot.
func (s *slots) give() *device {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, queue := range []*list.List{&s.urgent, &s.starts} {
		front := queue.Front()
		if front == nil || queue == &s.starts && s.free < s.kept {
			continue
		}
		d := front.Value.(*device)
		s.dequeue(d)
		return d
	}
	s.free++
	return nil
}

func (s *slots) enqueue(d *device, urgent bool) {
	queue := &s.starts
	if urgent {
		queue = &s.urgent
	}
	d.place = place{queue: queue, at: queue.PushBack(d)}
}

func (s *slots) dequeue(d *device) {
	if d.place.queue != nil {
		d.place.queue.Remove(d.place.at)
	}
	d.place = place{}
}

package guard

import (
	"hash/maphash"
	"iter"
	"runtime"
	"slices"
	"sync"
)

// registry finds a device by its id. It is cut into stripes, and a stripe's lock is the lock of
// all its devices: so a device is found, and found to be there still, under the lock that its
// run needs anyway, and runs of different devices seldom wait for each other. A lock of each
// device's own would cost a second one on every way, and a state «forgotten meanwhile».
type registry struct {
	seed    maphash.Seed
	stripes []stripe
}

type stripe struct {
	mu      sync.Mutex
	devices map[string]*device
	_       [48]byte // keeps neighbours off one cache line
}

// init makes some stripes for each processor: a guard is small, and there may be many.
func (r *registry) init() {
	n := 4
	for n < 4*runtime.GOMAXPROCS(0) {
		n *= 2
	}
	r.seed, r.stripes = maphash.MakeSeed(), make([]stripe, n)
}

func (r *registry) stripe(id string) *stripe {
	return &r.stripes[maphash.String(r.seed, id)%uint64(len(r.stripes))]
}

// lock finds the device and holds its lock; nil, and it holds none, where there is no such device.
func (r *registry) lock(id string) *device {
	s := r.stripe(id)
	s.mu.Lock()
	d := s.devices[id]
	if d == nil {
		s.mu.Unlock()
	}
	return d
}

// get finds the device, or makes it. The caller holds the stripe's lock.
func (s *stripe) get(g *Guard, id string) *device {
	d := s.devices[id]
	if d == nil {
		d = &device{guard: g, stripe: s, id: id, hintedAt: -g.interval, wakeAt: never}
		d.first.device, d.live = d, &d.first
		if s.devices == nil {
			s.devices = map[string]*device{}
		}
		s.devices[id] = d
	}
	return d
}

// one returns the device with that id, or nothing.
func (r *registry) one(id string) []*device {
	s := r.stripe(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.devices[id]; d != nil {
		return []*device{d}
	}
	return nil
}

// all returns the devices that are there now.
func (r *registry) all() []*device {
	var ds []*device
	for i := range r.stripes {
		s := &r.stripes[i]
		s.mu.Lock()
		for _, d := range s.devices {
			ds = append(ds, d)
		}
		s.mu.Unlock()
	}
	return ds
}

// few is how many devices are looked at under one lock.
const few = 64

// chunks yields the devices that are there, a few of one stripe at a time. The caller takes their lock, and
// looks whether they are still there.
func (r *registry) chunks() iter.Seq[[]*device] {
	return func(yield func([]*device) bool) {
		var ds []*device
		for i := range r.stripes {
			ds = r.stripes[i].list(ds[:0])
			for chunk := range slices.Chunk(ds, few) {
				if !yield(chunk) {
					return
				}
			}
		}
	}
}

// list adds the stripe's devices to ds.
func (s *stripe) list(ds []*device) []*device {
	s.mu.Lock()
	defer s.mu.Unlock()
	ds = slices.Grow(ds, len(s.devices))
	for _, d := range s.devices {
		ds = append(ds, d)
	}
	return ds
}

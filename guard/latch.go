package guard

import "sync"

// maxRefused is how many devices a latch remembers by name, so that strangers' ids cannot fill the
// memory. What is forgotten is forgotten to the safe side.
const maxRefused = 10_000

// latch remembers whom the authority has refused and not allowed since (S5). Time has no part in
// it: a call is as old as the number of denials that had been learnt when it began.
type latch struct {
	mu      sync.Mutex
	learnt  uint64             // how many denials
	wide    refusal            // the latest that holds for every device but those in freed
	refused map[string]refusal // by device, learnt after wide; goes before freed
	// freed are the devices that were allowed since wide. When there are maxRefused, older are what
	// there were, and what was older still is refused again.
	freed, older map[string]struct{}
}

// refusal is a denial: the how-manieth it was, from 1, and the authority's code.
type refusal struct {
	seq  uint64
	code Code
}

// begin returns the age of a call to the authority that is about to begin.
func (l *latch) begin() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.learnt
}

// refuse notes a denial. One that concerns the organisation holds for every device; so does one
// beyond those that can be remembered, because whoever it was about must stay refused.
func (l *latch) refuse(deviceID string, code Code) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.learnt++
	_, known := l.refused[deviceID]
	switch {
	case code.OrganisationWide():
		l.refuseAll(code)
	case !known && len(l.refused) >= maxRefused:
		l.refuseAll("")
	default:
		if l.refused == nil {
			l.refused = make(map[string]refusal)
		}
		l.refused[deviceID] = refusal{l.learnt, code}
	}
}

// refuseAll is refuse for every device. The lock is held.
func (l *latch) refuseAll(code Code) {
	l.wide = refusal{l.learnt, code}
	l.refused, l.freed, l.older = nil, nil, nil
}

// allow notes an ALLOW, the answer to a call of that age, and tells whether it counts: one that was
// asked for before a denial was learnt does not.
func (l *latch) allow(deviceID string, begun uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if begun < l.wide.seq || begun < l.refused[deviceID].seq {
		return false
	}
	delete(l.refused, deviceID)
	if l.wide.seq != 0 {
		l.free(deviceID)
	}
	return true
}

// free exempts the device from the latest denial of all. The lock is held.
func (l *latch) free(deviceID string) {
	if _, ok := l.freed[deviceID]; ok {
		return
	}
	if l.freed == nil || len(l.freed) >= maxRefused {
		l.freed, l.older = make(map[string]struct{}), l.freed
	}
	l.freed[deviceID] = struct{}{}
}

// holds says why the device may not be allowed by anybody but the authority; "" where it may.
func (l *latch) holds(deviceID string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r, ok := l.refused[deviceID]; ok {
		return "the authority has refused the device (" + string(r.code) + ") and not allowed it since"
	}
	_, free := l.freed[deviceID]
	_, still := l.older[deviceID]
	switch {
	case l.wide.seq == 0 || free || still:
		return ""
	case l.wide.code == "":
		return "the authority has refused more devices than are remembered by name, and not allowed this one since"
	}
	return "the authority has refused every device (" + string(l.wide.code) + ") and not allowed this one since"
}

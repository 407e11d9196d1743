package licentric

import (
	"net/http"
	"strings"
	"sync"
	"time"
)

// maxBeats is how many devices are remembered. Beyond it some device is forgotten, which costs it
// a heartbeat before its time.
const maxBeats = 10_000

// pulse remembers, for each fingerprint, when the last heartbeat was sent.
type pulse struct {
	period time.Duration

	mu       sync.Mutex // over everything below
	order    uint64     // counts questions and heartbeats, in the order in which they were sent
	demanded bool       // by every device: an option or the service said so
	beats    map[string]*beat
}

// beat is what is remembered of one device, under the lock of its pulse.
type beat struct {
	machineID string    // "": not known
	sent      time.Time // when the last one was sent that the service has taken; zero: none was
	place     uint64    // its place in the order
	rest      time.Time // the service wants to be left alone until then
	searched  time.Time // when the list of machines was last walked for it; zero: it was not
	failure   *Error    // why the last one failed; nil: it did not
	flight    *claim    // the one in flight, or nil
}

// claim is the right to send one heartbeat. All but over belongs to who has it, until it is over.
type claim struct {
	beat      *beat
	machineID string // as far as it is known
	sent      time.Time
	place     uint64
	failure   *Error
	over      chan struct{} // closed when it is
}

func newPulse(cfg onlineConfig) *pulse {
	p := &pulse{period: usualPeriod, demanded: cfg.heartbeats, beats: map[string]*beat{}}
	if cfg.period > 0 {
		p.period = cfg.period
	}
	return p
}

// tick is the place in the order of a question that is about to be sent.
func (p *pulse) tick() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.order++
	return p.order
}

// claimDue is for a device that was found valid: a claim, where the last heartbeat is older than
// the period and none is in flight. While the service wants to be left alone there is none, and
// the failure in which it said so stands.
func (p *pulse) claimDue(fingerprint string, m Machine) (*claim, *Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.demanded && p.beats[fingerprint] == nil && !beats(m) {
		return nil, nil
	}
	b := p.of(fingerprint, m)
	switch {
	case b.flight != nil, !b.sent.IsZero() && since(b.sent) < p.period:
		return nil, nil
	case time.Now().Before(b.rest):
		return nil, b.failure
	}
	return p.claim(b), nil
}

// claimNow is for a device that was denied for want of a heartbeat by an answer to the question
// asked: a claim, or another's that is in flight, or neither, where one was sent after that
// question and taken.
func (p *pulse) claimNow(fingerprint string, m Machine, asked uint64) (own, others *claim) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.demanded = true // the policy is the licence's, and so every device's
	b := p.of(fingerprint, m)
	switch {
	case b.flight != nil:
		return nil, b.flight
	case b.place > asked:
		return nil, nil
	}
	return p.claim(b), nil
}

// claim must be called with the lock held, as must of.
func (p *pulse) claim(b *beat) *claim {
	p.order++
	b.flight = &claim{beat: b, machineID: b.machineID, sent: time.Now(), place: p.order, over: make(chan struct{})}
	return b.flight
}

// of returns what is remembered of a device, and learns what its machine is.
func (p *pulse) of(fingerprint string, m Machine) *beat {
	b := p.beats[fingerprint]
	if b == nil {
		p.makeRoom()
		b = &beat{}
		p.beats[fingerprint] = b
	}
	if m.ID != "" {
		b.machineID = m.ID
	}
	return b
}

// makeRoom forgets any device that has no heartbeat in flight.
func (p *pulse) makeRoom() {
	for fingerprint, b := range p.beats {
		if len(p.beats) < maxBeats {
			return
		}
		if b.flight == nil {
			delete(p.beats, fingerprint)
		}
	}
}

// settle ends a claim. A failure leaves the device as due as it was.
func (p *pulse) settle(c *claim, fail *Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := c.beat
	b.flight, b.failure, b.rest = nil, fail, time.Time{}
	switch {
	case fail == nil:
		b.machineID, b.sent, b.place = c.machineID, c.sent, c.place
	case fail.Status == http.StatusNotFound && b.machineID == c.machineID:
		b.machineID = "" // it is another one by now
	case fail.RetryAfter > 0:
		b.rest = time.Now().Add(fail.RetryAfter)
	}
	c.failure = fail
	close(c.over)
}

// search tells whether the list of machines may be walked for the machine of a claim: it may be long,
// and is walked once a period for a machine that is not in it.
func (p *pulse) search(c *claim) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := c.beat
	if !b.searched.IsZero() && since(b.searched) < p.period {
		return false
	}
	b.searched = time.Now()
	return true
}

// beats tells whether the service shows that it knows of heartbeats of the machine. A status that
// says that none has come yet does not count: to send one might be to begin something that the
// policy does not ask for.
func beats(m Machine) bool {
	status := m.HeartbeatStatus != "" && !strings.EqualFold(m.HeartbeatStatus, "NOT_STARTED")
	return status || !m.LastHeartbeatAt.IsZero()
}

// since is the time since then by whichever clock has moved further: the monotonic one stands
// still while a machine is suspended, and the other may be set back.
func since(then time.Time) time.Duration {
	now := time.Now()
	return max(now.Sub(then), now.Round(0).Sub(then.Round(0)))
}

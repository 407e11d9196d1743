package clerk

import (
	"container/list"
	"crypto/sha256"
	"sync"
	"time"
)

// tokenCache remembers whose the tokens are that were verified lately. A nil one remembers nothing.
// It has tokens by their hash alone: what is in memory may be dumped.
type tokenCache struct {
	ttl  time.Duration
	most int
	now  func() clocks

	mu      sync.Mutex
	byHash  map[tokenHash]*list.Element // of *remembered; under mu
	oldest  *list.List                  // the same, in the order of coming; under mu
	forgets uint64                      // how often something was to be forgotten; under mu
	asking  map[tokenHash]*asking       // what is being verified; under mu
}

// asking is a token that is being verified, by as many calls as that.
type asking struct {
	calls int
	noes  int // answers meanwhile by which it is not good
}

// question is one verification.
type question struct {
	hash    tokenHash
	asked   clocks
	forgets uint64 // when it began
	noes    int    // when it began
}

type tokenHash [sha256.Size]byte

// remembered is one token that was verified.
type remembered struct {
	hash      tokenHash
	tokenID   string
	machineID string
	until     clocks // by whichever clock comes first
}

// clocks is what the two clocks show. A machine that was suspended has only the wall clock to tell
// it; a wall clock that was set back, only the monotonic one (S6).
type clocks struct {
	mono time.Duration // since the cache was made
	wall time.Time
}

func (r clocks) add(d time.Duration) clocks { return clocks{mono: r.mono + d, wall: r.wall.Add(d)} }

// over tells whether end has come by either clock.
func (r clocks) over(end clocks) bool { return r.mono >= end.mono || !r.wall.Before(end.wall) }

// bothClocks makes a clock of both. What time.Now returns holds the two, and Sub prefers the monotonic.
func bothClocks() func() clocks {
	begun := time.Now()
	return func() clocks {
		now := time.Now()
		return clocks{mono: now.Sub(begun), wall: now.Round(0)}
	}
}

func newTokenCache(ttl time.Duration, most int) *tokenCache {
	return &tokenCache{
		ttl: ttl, most: most, now: bothClocks(),
		byHash: map[tokenHash]*list.Element{}, oldest: list.New(), asking: map[tokenHash]*asking{},
	}
}

// find returns whose token it is, if that is still known.
func (c *tokenCache) find(token string) (machineID string, ok bool) {
	if c == nil {
		return "", false
	}
	hash := sha256.Sum256([]byte(token))
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byHash[hash]
	if !ok {
		return "", false
	}
	t := entry(e)
	if c.now().over(t.until) {
		c.drop(e)
		return "", false
	}
	return t.machineID, true
}

// begin is what a verification notes before it asks: when that is, for trust counts from then, and how
// much had been forgotten and refused. end must follow.
func (c *tokenCache) begin(token string) question {
	if c == nil {
		return question{}
	}
	hash := sha256.Sum256([]byte(token))
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.asking[hash]
	if a == nil {
		a = &asking{}
		c.asking[hash] = a
	}
	a.calls++
	return question{hash: hash, asked: c.now(), forgets: c.forgets, noes: a.noes}
}

func (c *tokenCache) end(q question) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.asking[q.hash]
	if a.calls--; a.calls == 0 {
		delete(c.asking, q.hash)
	}
}

// refuse drops a token that is no good, also for who has asked before and is answered afterwards (S5).
func (c *tokenCache) refuse(q question) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asking[q.hash].noes++
	if e, ok := c.byHash[q.hash]; ok {
		c.drop(e)
	}
}

// put remembers a token. When something was to be forgotten since its verification began, this may be
// it, and it is not remembered; nor is one that was refused meanwhile, or that RevokeToken could not name.
func (c *tokenCache) put(q question, t Token) {
	if c == nil || checkID(t.ID, tokenPrefix) != nil {
		return
	}
	left := c.ttl
	if !t.ExpiresAt.IsZero() {
		left = min(left, t.ExpiresAt.Sub(q.asked.wall)) // and no more on the monotonic clock either (S10)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if q.forgets != c.forgets || q.noes != c.asking[q.hash].noes {
		return
	}
	if e, ok := c.byHash[q.hash]; ok {
		c.drop(e)
	}
	if c.oldest.Len() >= c.most {
		c.drop(c.oldest.Front())
	}
	c.byHash[q.hash] = c.oldest.PushBack(&remembered{hash: q.hash, tokenID: t.ID, machineID: t.Subject, until: q.asked.add(left)})
}

// forget drops the tokens of which f is true, and what is being verified meanwhile.
func (c *tokenCache) forget(f func(t *remembered) bool) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgets++
	for e := c.oldest.Front(); e != nil; {
		next := e.Next()
		if f(entry(e)) {
			c.drop(e)
		}
		e = next
	}
}

func (c *tokenCache) forgetAll() { c.forget(func(*remembered) bool { return true }) }

// drop is called with mu held.
func (c *tokenCache) drop(e *list.Element) {
	c.oldest.Remove(e)
	delete(c.byHash, entry(e).hash)
}

func entry(e *list.Element) *remembered {
	t, _ := e.Value.(*remembered) // nothing else is put into the list
	return t
}

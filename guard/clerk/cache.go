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
	return &tokenCache{ttl: ttl, most: most, now: bothClocks(), byHash: map[tokenHash]*list.Element{}, oldest: list.New()}
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
// much had been forgotten.
func (c *tokenCache) begin() (asked clocks, epoch uint64) {
	if c == nil {
		return clocks{}, 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now(), c.forgets
}

// put remembers a token whose verification began then. When something was to be forgotten since, this
// may be it, and it is not remembered.
func (c *tokenCache) put(token string, t Token, asked clocks, epoch uint64) {
	if c == nil {
		return
	}
	left := c.ttl
	if !t.ExpiresAt.IsZero() {
		left = min(left, t.ExpiresAt.Sub(asked.wall)) // and no more on the monotonic clock either (S10)
	}
	hash := sha256.Sum256([]byte(token))
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch != c.forgets {
		return
	}
	if e, ok := c.byHash[hash]; ok {
		c.drop(e)
	}
	if c.oldest.Len() >= c.most {
		c.drop(c.oldest.Front())
	}
	c.byHash[hash] = c.oldest.PushBack(&remembered{hash: hash, tokenID: t.ID, machineID: t.Subject, until: asked.add(left)})
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

package guard

import (
	"hash/maphash"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	undecidedAMinute = 10      // records of each code: nobody could say, the guard is closed, and doubtful answers
	rememberedAnHour = 1 << 16 // devices whose refusal was logged; of more, every refusal is
)

// throttle says which warnings are logged, as WithLogger tells, and counts the others. It has no timer:
// a minute and an hour begin with the first event that they are needed for, and end with the first after them.
//
// It keeps hashes, not ids: an id is as long as its sender likes. That two devices are taken for one happens
// by chance alone, once in 2^64, because nobody knows the seed.
type throttle struct {
	seed maphash.Seed

	mu      sync.Mutex
	minute  time.Time         // when it began; zero: there is none
	logged  map[Code]int      // in the minute, of doubtful answers, and of what nobody has decided
	held    map[Code]uint64   // in the minute, of everything; orOther bounds the keys
	hour    time.Time         // when it began; zero: there is none
	refused map[uint64]uint64 // the devices whose refusal was logged in the hour, and its code
}

// heldBack is how many records of a code were held back.
type heldBack struct {
	code  Code
	count uint64
}

func newThrottle() *throttle { return &throttle{seed: maphash.MakeSeed()} }

// pass tells whether e is to be logged, and what was held back before where it is time to tell. Where nobody
// wants e logged, nothing is held back.
func (t *throttle) pass(e *Event, wanted bool) (pass bool, told []heldBack) {
	limited := wanted && e.Kind != EventStopped && e.level() == slog.LevelWarn
	t.mu.Lock()
	defer t.mu.Unlock()
	if !limited && t.minute.IsZero() && t.hour.IsZero() {
		return true, nil // as it is nearly always
	}
	now := time.Now()
	told = t.turn(now)
	if e.Kind == EventStarted || e.Kind == EventValidated && e.Decision.Allowed {
		delete(t.refused, t.hash(e.DeviceID))
	}
	if !limited || t.admit(e, now) {
		return true, told
	}
	begin(&t.minute, &t.held, now)
	t.held[e.Decision.Code.orOther()]++
	return false, told
}

// turn ends the minute and the hour that are over.
func (t *throttle) turn(now time.Time) (told []heldBack) {
	if !t.minute.IsZero() && now.Sub(t.minute) >= time.Minute {
		for _, code := range slices.Sorted(maps.Keys(t.held)) {
			told = append(told, heldBack{code, t.held[code]})
		}
		t.minute, t.logged, t.held = time.Time{}, nil, nil
	}
	if !t.hour.IsZero() && now.Sub(t.hour) >= time.Hour {
		t.hour, t.refused = time.Time{}, nil
	}
	return told
}

// admit tells whether a warning is the first of its kind.
func (t *throttle) admit(e *Event, now time.Time) bool {
	code := e.Decision.Code
	if e.Kind == EventValidated || code == "" || code == CodeSystemUnavailable {
		code = code.orOther()
		begin(&t.minute, &t.logged, now)
		t.logged[code]++
		return t.logged[code] <= undecidedAMinute
	}
	begin(&t.hour, &t.refused, now)
	device, with := t.hash(e.DeviceID), t.hash(string(code))
	if known, ok := t.refused[device]; ok && known == with {
		return false
	}
	if _, ok := t.refused[device]; ok || len(t.refused) < rememberedAnHour {
		t.refused[device] = with
	}
	return true
}

func (t *throttle) hash(s string) uint64 { return maphash.String(t.seed, s) }

// begin makes sure that a time runs, and that what is kept in it has a map.
func begin[K comparable, V any](since *time.Time, kept *map[K]V, now time.Time) {
	if since.IsZero() {
		*since = now
	}
	if *kept == nil {
		*kept = map[K]V{}
	}
}

package licentric

import "github.com/execguard/execguard/guard"

// MaxBeats is how many devices a validator remembers.
const MaxBeats = maxBeats

// Remembered is how many devices v remembers.
func Remembered(v guard.Validator) int {
	p := v.(*validator).pulse
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.beats)
}

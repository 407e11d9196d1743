package licentric

import (
	"strings"
	"time"
)

// License is what an answer of the service, or an offline file, says about a licence. What it does
// not say is empty. The licence key is not in it, so that a License may be printed (S8).
type License struct {
	ID           string
	Name         string
	Status       string // the vendor's word, such as "ACTIVE" or "SUSPENDED"
	ProductID    string
	PolicyID     string
	ExpiresAt    time.Time // of the licence itself; zero: it names no end
	Entitlements []string  // their codes
	MachineCount int       // how many machines are activated; an offline file does not say

	// Fingerprint, Issued and Ends are of an offline file alone: the machine that it was made for,
	// and its own life, which is shorter than the licence's. It ends at Ends, whatever ExpiresAt says.
	Fingerprint string
	Issued      time.Time
	Ends        time.Time
}

// parseTime reads a time as the service writes it, such as 2026-01-31T12:00:00.000Z: UTC alone, so
// that nobody has to guess what a time without a zone means.
func parseTime(text string) (at time.Time, ok bool) {
	if !strings.HasSuffix(text, "Z") || strings.Contains(text, ",") {
		return time.Time{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	return at, err == nil
}

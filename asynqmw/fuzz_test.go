package asynqmw_test

import (
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/asynqmw"
)

// FuzzParkedUntil: whatever asynq keeps as the text of an archived task, only what we wrote there has it put back.
func FuzzParkedUntil(f *testing.F) {
	at := time.Date(2026, 11, 22, 8, 30, 0, 0, time.UTC)
	for _, text := range []string{
		"", "boom", "asynqmw: parked until ", "asynqmw: parked until tomorrow, if I may", parkedTextUntil(at), "outer: " + parkedTextUntil(at),
		"asynqmw: parked until 2026-02-30T25:61:61Z: no such time", parkedTextUntil(at)[:len(parkedText)+19],
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		due, parked := asynqmw.ParkedUntil(text)
		switch written := parkedText + due.Format("2006-01-02T15:04:05Z"); {
		case !parked && !due.IsZero():
			t.Errorf("%v, and not parked", due)
		case parked && !strings.Contains(text, written):
			t.Errorf("%q, which is not in %q", written, text)
		}
	})
}

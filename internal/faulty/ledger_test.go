package faulty

import (
	"context"
	"slices"
	"sync"
	"testing"
)

func TestLedgerKeepsEveryEntry(t *testing.T) {
	const writers, each = 8, 100
	var l Ledger[int]
	var writing, waiting sync.WaitGroup
	for n := range writers * each {
		waiting.Go(func() {
			if got, err := l.Wait(t.Context(), n+1); err != nil || len(got) <= n {
				t.Errorf("wait(%d): %d entries, %v", n+1, len(got), err)
			}
		})
	}
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				at := l.Add(0)
				l.Amend(at, func(entry *int) { *entry = w*each + i + 1 })
			}
		})
	}
	writing.Wait()
	waiting.Wait()
	got := slices.Sorted(slices.Values(l.All()))
	for i, entry := range got {
		if entry != i+1 {
			t.Fatalf("entry %d is %d", i, entry)
		}
	}
	if len(got) != writers*each || len(l.waiters) != 0 {
		t.Errorf("%d entries, %d waiters left", len(got), len(l.waiters))
	}
}

func TestLedgerHandsOutCopies(t *testing.T) {
	var l Ledger[string]
	l.Add("one")
	waited, _ := l.Wait(t.Context(), 1)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	short, err := l.Wait(ended, 2)
	for _, got := range [][]string{l.All(), waited, short} {
		got[0] = "changed"
	}
	if got := l.All(); err == nil || !slices.Equal(got, []string{"one"}) {
		t.Errorf("%q, %v", got, err)
	}
}

// TestLedgerWithEnoughDoesNotLookAtTheContext: what is there is there.
func TestLedgerWithEnoughDoesNotLookAtTheContext(t *testing.T) {
	var l Ledger[int]
	l.Add(1)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		if _, err := l.Wait(ended, 1); err != nil {
			t.Fatal(err)
		}
	}
}

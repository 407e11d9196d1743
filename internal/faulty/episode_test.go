package faulty

import (
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// open tells whether the other end of a pipe still is. A pipe looks at that before it looks at
// the deadline.
func open(t *testing.T, far net.Conn) bool {
	t.Helper()
	_ = far.SetReadDeadline(time.Unix(1, 0)) // an error where the other end is closed
	_, err := far.Read(make([]byte, 1))
	return errors.Is(err, os.ErrDeadlineExceeded)
}

func TestEpisodeClosesWhatItHolds(t *testing.T) {
	e := newEpisode(row{})
	held, heldFar := net.Pipe()
	forgotten, forgottenFar := net.Pipe()
	e.closing(held)
	e.closing(forgotten)()
	e.end()
	if open(t, heldFar) {
		t.Error("what was held is open")
	}
	if !open(t, forgottenFar) {
		t.Error("what was let go of was closed")
	}
	late, lateFar := net.Pipe()
	e.closing(late)()
	if open(t, lateFar) {
		t.Error("what came after the end is open")
	}
	select {
	case <-e.over:
	default:
		t.Error("the episode is not over")
	}
}

func TestEpisodeNumbersRequests(t *testing.T) {
	const n = 1000
	e := newEpisode(row{})
	var all sync.WaitGroup
	var mu sync.Mutex
	seen := map[int]bool{}
	for range n {
		all.Go(func() {
			i := e.count()
			mu.Lock()
			defer mu.Unlock()
			seen[i] = true
		})
	}
	all.Wait()
	if len(seen) != n || seen[0] || !seen[1] || !seen[n] {
		t.Errorf("%d different numbers, from 1: %t, to %d: %t", len(seen), seen[1], n, seen[n])
	}
}

func TestEpisodePairsRequests(t *testing.T) {
	e := newEpisode(row{})
	if first, second := e.turn(0), e.turn(0); first != second || first == e.turn(1) {
		t.Error("a pair shares its turn, and with nobody else")
	}
}

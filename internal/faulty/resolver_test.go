package faulty

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"
)

func newTestResolver(t *testing.T, mute bool) *resolver {
	t.Helper()
	r, err := newResolver(mute)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func wantNotFound(t *testing.T, c net.Conn, err error) {
	t.Helper()
	if as := (*net.DNSError)(nil); !errors.As(err, &as) || !as.IsNotFound || as.IsTimeout {
		t.Errorf("got %v, %v; want a name that is not found", c, err)
	}
}

func TestResolverKnowsNoName(t *testing.T) {
	r := newTestResolver(t, false)
	defer r.stop()
	for range 3 {
		c, err := r.dial(t.Context())
		wantNotFound(t, c, err)
	}
}

// TestResolverIsNotThrownByGarbage sends what is no question, before one that is.
func TestResolverIsNotThrownByGarbage(t *testing.T) {
	r := newTestResolver(t, false)
	defer r.stop()
	c, err := new(net.Dialer).DialContext(t.Context(), "udp", r.socket.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, text := range []string{"", "x", "eleven byte"} {
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := r.dial(t.Context())
	wantNotFound(t, conn, err)
}

// TestMuteResolverObeysTheContext: the asker's own end is the only one there is.
func TestMuteResolverObeysTheContext(t *testing.T) {
	r := newTestResolver(t, true)
	defer r.stop()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if c, err := r.dial(ctx); err == nil || ctx.Err() == nil {
		t.Errorf("got %v, %v, and the context says %v", c, err, ctx.Err())
	}
}

// TestStoppedResolverLeavesNobodyWaiting stops while questions are on their way, some read and
// some not. Each must be answered at once: the time-out of package net is five seconds.
func TestStoppedResolverLeavesNobodyWaiting(t *testing.T) {
	for range 20 {
		r := newTestResolver(t, true)
		const askers = 4
		r.askers.Add(askers)
		answers := make(chan error, askers)
		start := time.Now()
		for range askers {
			go func() {
				defer r.askers.Done()
				_, err := r.dial(t.Context())
				answers <- err
			}()
		}
		r.stop()
		for range askers {
			wantNotFound(t, nil, <-answers)
		}
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("it took %v", took)
		}
	}
}

func TestNoSuchNameKeepsTheQuestion(t *testing.T) {
	question := []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01")
	reply, ok := noSuchName(question)
	if want := "\x12\x34\x81\x83" + string(question[4:]); !ok || string(reply) != want {
		t.Errorf("got %q, want %q", reply, want)
	}
	if question[2] != 1 {
		t.Error("the question was changed")
	}
}

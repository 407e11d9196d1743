package chaos_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/execguard/execguard/internal/chaos"
)

// talk is a wire before a server that answers each line with itself in capitals.
type talk struct {
	t    *testing.T
	wire *chaos.Wire
}

func newTalk(t *testing.T) *talk {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 1<<10)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					_, _ = c.Write([]byte(strings.ToUpper(string(buf[:n]))))
				}
			}()
		}
	}()
	w, err := chaos.NewWire(l.Addr().String())
	must(t, err)
	t.Cleanup(func() {
		w.Close()
		w.Close() // does nothing more
		l.Close()
		<-ended
		if err := w.Set(chaos.Trouble{}); err != nil {
			t.Errorf("a trouble of a closed wire: %v", err)
		}
	})
	return &talk{t, w}
}

// set begins a trouble.
func (k *talk) set(tr chaos.Trouble) {
	k.t.Helper()
	must(k.t, k.wire.Set(tr))
}

// dial makes a connection that ends with the test. It has a deadline in no time: what does not come over
// loopback within it is held.
func (k *talk) dial() net.Conn {
	k.t.Helper()
	c, err := new(net.Dialer).DialContext(k.t.Context(), "tcp", k.wire.Addr())
	must(k.t, err)
	k.t.Cleanup(func() { c.Close() })
	return c
}

// say sends a word.
func (k *talk) say(c net.Conn, word string) {
	k.t.Helper()
	_, err := c.Write([]byte(word))
	must(k.t, err)
}

// hear wants to read just that within the patience.
func (k *talk) hear(c net.Conn, want string) {
	k.t.Helper()
	must(k.t, c.SetReadDeadline(time.Now().Add(patience)))
	buf := make([]byte, len(want))
	if n, err := io.ReadFull(c, buf); err != nil || string(buf[:n]) != want {
		k.t.Fatalf("heard %q, %v; want %q", buf[:n], err, want)
	}
}

// silent wants nothing to come for a moment.
func (k *talk) silent(c net.Conn) {
	k.t.Helper()
	must(k.t, c.SetReadDeadline(time.Now().Add(60*ms)))
	late := net.Error(nil)
	if n, err := c.Read(make([]byte, 1)); !errors.As(err, &late) || !late.Timeout() {
		k.t.Fatalf("heard %d bytes, %v; want silence", n, err)
	}
}

// gone wants the connection to have ended, with that error.
func (k *talk) gone(c net.Conn, want error) {
	k.t.Helper()
	must(k.t, c.SetReadDeadline(time.Now().Add(patience)))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, want) {
		k.t.Fatalf("heard %d bytes, %v; want %v", n, err, want)
	}
}

// TestTroubles has each of the troubles begin under a connection that is kept, and end.
func TestTroubles(t *testing.T) {
	t.Parallel()
	script := map[string]func(k *talk, kept net.Conn){
		"wire: refused": func(k *talk, kept net.Conn) {
			k.gone(kept, syscall.ECONNRESET)
			if c, err := new(net.Dialer).DialContext(k.t.Context(), "tcp", k.wire.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
				k.t.Errorf("%v, %v; want that it is refused", c, err)
			}
		},
		"wire: reset when asked": func(k *talk, kept net.Conn) {
			k.say(kept, "a")
			if n, err := kept.Read(make([]byte, 1)); err == nil {
				k.t.Errorf("heard %d bytes", n)
			}
			c, err := new(net.Dialer).DialContext(k.t.Context(), "tcp", k.wire.Addr())
			if err == nil { // else the reset has come before the dialler saw its connection
				defer c.Close()
				k.gone(c, syscall.ECONNRESET)
			} else if !errors.Is(err, syscall.ECONNRESET) {
				k.t.Error(err)
			}
		},
		"wire: accepted and silent": func(k *talk, kept net.Conn) {
			k.gone(kept, syscall.ECONNRESET)
			c := k.dial()
			k.say(c, "late")
			k.silent(c)
			k.set(chaos.Trouble{})
			k.hear(c, "LATE")
		},
		"wire: requests vanish": heldBack, "wire: answers vanish": heldBack, "wire: half a handshake": func(k *talk, kept net.Conn) {
			k.gone(kept, syscall.ECONNRESET)
			partly(k, k.dial(), 20)
		},
		"wire: half a header and silence":  func(k *talk, kept net.Conn) { partly(k, kept, 20) },
		"wire: half an answer and silence": func(k *talk, kept net.Conn) { partly(k, kept, 150) },
		"wire: half an answer and the end": func(k *talk, kept net.Conn) {
			k.say(kept, strings.Repeat("x", 150))
			k.hear(kept, strings.Repeat("X", 150))
			k.say(kept, "y")
			k.gone(kept, io.EOF)
		},
		"wire: reset in an answer": func(k *talk, kept net.Conn) {
			k.say(kept, strings.Repeat("x", 151))
			k.hear(kept, strings.Repeat("X", 150))
			k.gone(kept, syscall.ECONNRESET)
		},
		"wire: one byte a second": func(k *talk, kept net.Conn) {
			began := time.Now()
			k.say(kept, "xyz")
			k.hear(kept, "X")
			if took := time.Since(began); took < 900*ms {
				k.t.Errorf("the first byte after %v", took)
			}
			k.set(chaos.Trouble{})
			k.hear(kept, "YZ")
		},
		"wire: slow answers":     func(k *talk, kept net.Conn) { delayed(k, kept, 30*ms) },
		"wire: answers too late": func(k *talk, kept net.Conn) { delayed(k, kept, 300*ms) },
	}
	for _, tr := range chaos.Troubles() {
		t.Run(tr.Name, func(t *testing.T) {
			k := newTalk(t)
			kept := k.dial()
			k.say(kept, "before")
			k.hear(kept, "BEFORE")
			k.set(tr)
			if script[tr.Name] == nil {
				t.Fatal("this trouble has no test")
			}
			script[tr.Name](k, kept)
			k.set(chaos.Trouble{})
			c := k.dial()
			k.say(c, "after")
			k.hear(c, "AFTER")
		})
	}
}

// heldBack: nothing comes before the trouble is over, and all of it then.
func heldBack(k *talk, kept net.Conn) {
	k.say(kept, "held")
	k.silent(kept)
	k.set(chaos.Trouble{Name: "another", Door: chaos.Refuse})
	k.hear(kept, "HELD")
}

// partly: so many bytes come, and the others when the trouble is over.
func partly(k *talk, c net.Conn, n int) {
	k.say(c, strings.Repeat("x", n+5))
	k.hear(c, strings.Repeat("X", n))
	k.silent(c)
	k.set(chaos.Trouble{})
	k.hear(c, "XXXXX")
}

func delayed(k *talk, c net.Conn, d time.Duration) {
	began := time.Now()
	k.say(c, "x")
	k.hear(c, "X")
	if took := time.Since(began); took < d {
		k.t.Errorf("the answer after %v", took)
	}
}

package chaos

import (
	"net"
	"time"
)

// Trouble is one way for a network not to work. The zero value is none.
type Trouble struct {
	Name     string
	Drop     bool // the connections that are there are reset when it begins
	Door     Door // what becomes of new ones
	Requests Flow // what goes from clients to the server
	Answers  Flow // and back
}

// Door is how new connections are treated.
type Door int

// The doors.
const (
	Open   Door = iota
	Silent      // accepted, and then nothing until the trouble is over
	Slam        // accepted and reset
	Refuse      // refused
)

// Flow is what goes through in one direction of a connection. The zero value is all.
type Flow struct {
	Limited bool          // only After bytes since the trouble began go through, and with the next one Then
	After   int           // see Limited
	Then    Then          // see Limited
	Slow    time.Duration // each byte waits for so long
	Delay   time.Duration // what is read at once is handed on so much later
}

// Then is what becomes of a connection through which nothing goes any more.
type Then int

// The ends.
const (
	Hold  Then = iota // the rest is held back until the trouble is over, and goes on then
	Hang              // closed in good order
	Reset             // reset
)

// Troubles lists what a Wire is made to do in tests, each under a name of its own.
func Troubles() []Trouble {
	nothing, few, some := Flow{Limited: true}, Flow{Limited: true, After: 20}, Flow{Limited: true, After: 150}
	with := func(f Flow, then Then) Flow {
		f.Then = then
		return f
	}
	return []Trouble{
		{Name: "wire: refused", Drop: true, Door: Refuse},
		{Name: "wire: reset when asked", Requests: with(nothing, Reset), Door: Slam},
		{Name: "wire: accepted and silent", Drop: true, Door: Silent},
		{Name: "wire: requests vanish", Requests: nothing},
		{Name: "wire: answers vanish", Answers: nothing},
		{Name: "wire: half a header and silence", Answers: few},
		{Name: "wire: half an answer and silence", Answers: some},
		{Name: "wire: half an answer and the end", Answers: with(some, Hang)},
		{Name: "wire: reset in an answer", Answers: with(some, Reset)},
		{Name: "wire: half a handshake", Drop: true, Answers: few},
		{Name: "wire: one byte a second", Answers: Flow{Slow: time.Second}},
		{Name: "wire: slow answers", Answers: Flow{Delay: 30 * time.Millisecond}},
		{Name: "wire: answers too late", Answers: Flow{Delay: 300 * time.Millisecond}},
	}
}

// pump carries one direction until it ends, and closes both then: nobody here closes one half.
func (w *Wire) pump(to, from net.Conn, flow func(Trouble) Flow) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 16<<10)
	var during *spell
	passed := 0 // bytes, during that spell
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		for chunk := buf[:n]; len(chunk) > 0; {
			s := w.now.Load()
			if s != during {
				during, passed = s, 0
			}
			m, ok := s.pass(to, chunk, flow(s.Trouble), passed)
			if !ok {
				return
			}
			chunk, passed = chunk[m:], passed+m
		}
	}
}

// pass hands on as much of a chunk as may go through now, and waits where nothing may. It returns
// how much that was, and whether the connection goes on.
func (s *spell) pass(to net.Conn, chunk []byte, f Flow, passed int) (n int, ok bool) {
	if f.Limited && passed >= f.After {
		switch f.Then {
		case Reset:
			reset(to)
			return 0, false
		case Hang:
			return 0, false
		case Hold:
		}
		<-s.over
		return 0, true
	}
	if f.Limited {
		chunk = chunk[:min(len(chunk), f.After-passed)]
	}
	if f.Slow > 0 {
		chunk = chunk[:1]
	}
	s.wait(max(f.Slow, f.Delay))
	_, err := to.Write(chunk)
	return len(chunk), err == nil
}

// wait waits, but not beyond the end of the trouble.
func (s *spell) wait(d time.Duration) {
	if d == 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.over:
	}
}

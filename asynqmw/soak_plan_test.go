package asynqmw_test

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"github.com/execguard/execguard/guard/authority"
)

// soakMoment is something that happens.
type soakMoment struct {
	at     time.Duration
	redis  bool // it needs Redis
	happen func(t *testing.T)
}

// plan draws all that is to happen.
func (s *soakRun) plan() {
	s.planTasks()
	s.planDenials()
	s.planEnds()
	if s.redis.stops() {
		s.planStops()
	}
	for at := time.Duration(0); at < s.length; at += 200 * time.Millisecond {
		s.events = append(s.events, soakMoment{at, true, s.look})
	}
	slices.SortStableFunc(s.events, func(a, b soakMoment) int { return cmp.Compare(a.at, b.at) })
}

// planTasks has one task in five there at the beginning, and the others come all the time. With
// Serve nobody holds a task: it is back in its queue after the server's shutdown, if that comes before the deadline.
func (s *soakRun) planTasks() {
	hurry := 2 * time.Second
	if s.serve {
		hurry = time.Minute
	}
	for i := range s.tasks {
		at := time.Duration(0)
		if i > s.tasks/5 {
			at = s.somewhen(0, 1)
		}
		s.events = append(s.events, soakMoment{at, true, func(t *testing.T) {
			s.enqueue(t, newSoakTask(s.random, i, s.devices, hurry))
		}})
	}
	for i := range s.tasks / 20 {
		s.events = append(s.events, soakMoment{s.somewhen(0, 1), true, func(t *testing.T) { s.double(t, i) }})
	}
}

// somewhen is a time between two fractions of the whole.
func (s *soakRun) somewhen(from, to float64) time.Duration {
	return time.Duration((from + (to-from)*s.random.Float64()) * float64(s.length))
}

// planDenials has each device revoked in its turn, and restored before its next. In every fifth turn the authority
// answers for no device at all, or the organisation is frozen.
func (s *soakRun) planDenials() {
	turn := 1 / float64(s.revocations+1)
	for i := range s.revocations {
		device, begin := s.devices[i%len(s.devices)], float64(i)*turn
		s.deny(begin, begin+turn*0.3, func() { s.authority.Revoke(device) })
		s.deny(begin+turn*0.6, begin+turn*2.9, func() { s.authority.Unrevoke(device) })
		if i%5 == 4 {
			state := []authority.State{authority.StateUnavailable, authority.StateFrozen}[i%2]
			s.deny(begin, begin+turn*0.3, func() { s.authority.SetState(state) })
			s.deny(begin+turn*0.4, begin+turn*0.9, func() { s.authority.SetState(authority.StateActive) })
		}
	}
}

func (s *soakRun) deny(from, to float64, change func()) {
	s.events = append(s.events, soakMoment{s.somewhen(from, to), false, func(*testing.T) { change() }})
}

// planEnds has workers killed, and every third time one told to shut down.
func (s *soakRun) planEnds() {
	for i := range s.ends {
		slot := s.slots[s.random.IntN(len(s.slots))]
		end := s.kill
		if i%3 == 2 {
			end = s.leave
		}
		s.events = append(s.events, soakMoment{s.somewhen(0.05, 0.95), false, func(t *testing.T) { end(t, slot) }})
	}
}

// planStops has Redis stopped in each of as many parts of the time.
func (s *soakRun) planStops() {
	part := 1 / float64(s.stops)
	for i := range s.stops {
		begin := s.somewhen(float64(i)*part, (float64(i)+0.3)*part)
		length := 2*time.Second + time.Duration(s.random.IntN(3000))*time.Millisecond
		if s.outage > 0 && i == s.stops/2 {
			length = s.outage
		}
		s.events = append(s.events, soakMoment{begin, false, s.stopRedis}, soakMoment{begin + length, false, s.contRedis})
	}
}

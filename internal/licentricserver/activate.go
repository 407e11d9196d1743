package licentricserver

import (
	"net/http"
	"strings"
	"time"
)

// activate makes a machine one that the licence is active on.
func (s *Service) activate(q *question) (reply, *apiError) {
	in := reader{fields: q.fields}
	told := Machine{
		LicenseID:   q.license.ID,
		Fingerprint: in.text("fingerprint", shortestFingerprint, longestFingerprint),
		Name:        in.text("name", 0, longestName),
		Platform:    in.oneOf("platform", "macos", "windows", "linux", "docker", "kubernetes"),
		Hostname:    in.text("hostname", 0, longestName),
		Cores:       in.whole("cores", 1, 1<<20, 0),
	}
	metadata := in.object("metadata")
	if err := in.err(); err != nil {
		return reply{}, err
	}
	if err := s.roomFor(q.license, told.Fingerprint); err != nil {
		return reply{}, err
	}
	m := s.addMachine(told, metadata)
	return reply{status: http.StatusCreated, body: data{m.shape(q.license)}}, nil
}

// roomFor tells why a licence cannot be made active on one more machine.
func (s *Service) roomFor(l *license, fingerprint string) *apiError {
	if err := l.inForce(); err != nil {
		return err
	}
	if s.machine(l.ID, fingerprint) != nil {
		return refuse(http.StatusConflict, "a machine with that fingerprint is active already")
	}
	if l.MaxMachines > 0 && s.count(l.ID) >= l.MaxMachines {
		return refuse(http.StatusUnprocessableEntity, "the licence is active on as many machines as it may be")
	}
	return nil
}

// inForce refuses a licence that is good for nothing any more, or for now.
func (l *license) inForce() *apiError {
	if code := l.standing(); code != codeValid {
		return refuse(http.StatusForbidden, "the licence is "+strings.ToLower(code))
	}
	return nil
}

// heartbeat notes that a machine is alive.
func (s *Service) heartbeat(q *question) (reply, *apiError) {
	m, err := s.ownMachine(q)
	if err == nil {
		err = q.license.inForce()
	}
	if err != nil {
		return reply{}, err
	}
	m.LastHeartbeat = time.Now()
	m.Updated = m.LastHeartbeat
	return s.about(m.shape(q.license)), nil
}

// deactivate is allowed whatever the licence's status: it frees a seat and gives nobody one.
func (s *Service) deactivate(q *question) (reply, *apiError) {
	m, err := s.ownMachine(q)
	if err != nil {
		return reply{}, err
	}
	s.dropMachine(m)
	last := m.shape(q.license)
	last.DeletedAt = stamp(time.Now())
	return s.about(last), nil
}

// about is the answer to a call that changes a machine, in one of two variants.
func (s *Service) about(m *machineBody) reply {
	if s.noContent {
		return reply{status: http.StatusNoContent}
	}
	return reply{status: http.StatusOK, body: data{m}}
}

// ownMachine is the machine of the path, which another licence's customer must not even learn
// to exist.
func (s *Service) ownMachine(q *question) (*machine, *apiError) {
	m := s.machineByID(q.id)
	if m == nil || m.LicenseID != q.license.ID {
		return nil, refuse(http.StatusNotFound, "no such machine")
	}
	return m, nil
}

package clerkserver

import (
	"cmp"
	"net/http"
	"slices"
	"time"
)

// scopeJSON is one machine's access to another, made or gone.
type scopeJSON struct {
	Object        string `json:"object"`
	FromMachineID string `json:"from_machine_id"`
	ToMachineID   string `json:"to_machine_id"`
	CreatedAt     int64  `json:"created_at,omitempty"`
	Deleted       bool   `json:"deleted,omitempty"`
}

// createScope gives a machine access to another, or to itself, for the tokens that it makes from
// now on.
func (s *Service) createScope(c *call) (any, *problem) {
	m, p := s.machine(c.ids[0])
	if p != nil {
		return nil, p
	}
	if p := cmp.Or(c.form.only("to_machine_id"), c.form.required("to_machine_id")); p != nil {
		return nil, p
	}
	to, p := c.form.text("to_machine_id")
	if p != nil {
		return nil, p
	}
	if _, p := s.machine(to); p != nil {
		return nil, p
	}
	switch {
	case slices.Contains(m.scopes, to):
		return nil, refuse(http.StatusConflict, "resource_already_exists", "already exists", "The machine has this scope already.")
	case len(s.reach(m)) >= maxScopes:
		return nil, c.form.refuse("to_machine_id", "form_param_max_length_exceeded", "would be the 151st scope of the machine")
	}
	m.scopes = append(m.scopes, to)
	return scopeJSON{Object: "machine_scope", FromMachineID: m.id, ToMachineID: to, CreatedAt: milliseconds(time.Now())}, nil
}

// deleteScope takes access back. Tokens that have it keep it.
func (s *Service) deleteScope(c *call) (any, *problem) {
	m, p := s.machine(c.ids[0])
	if p != nil {
		return nil, p
	}
	at := slices.Index(s.reach(m), c.ids[1])
	if at < 0 {
		return nil, notFound("scope")
	}
	m.scopes = slices.DeleteFunc(m.scopes, func(id string) bool { return id == c.ids[1] })
	return scopeJSON{Object: "machine_scope", FromMachineID: m.id, ToMachineID: c.ids[1], Deleted: true}, nil
}

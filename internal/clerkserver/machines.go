package clerkserver

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// listJSON is a page of machines.
type listJSON struct {
	Data       []machineJSON `json:"data"`
	TotalCount int           `json:"total_count"` // of all pages
}

// deletedJSON says that a machine is gone.
type deletedJSON struct {
	Object  string `json:"object"`
	ID      string `json:"id"`
	Deleted bool   `json:"deleted"`
}

// listMachines answers a page of the machines that match the query: by their exact id, or by part
// of their name, whose case does not count.
func (s *Service) listMachines(c *call) (any, *problem) {
	limit, p := c.form.integer("limit", 1, 500, 10)
	if p != nil {
		return nil, p
	}
	offset, p := c.form.integer("offset", 0, 1<<31, 0)
	if p != nil {
		return nil, p
	}
	order, p := c.form.order()
	if p != nil {
		return nil, p
	}
	query := string(c.form.members["query"])
	found := slices.DeleteFunc(slices.Collect(maps.Values(s.machines)), func(m *machine) bool {
		return m.id != query && !strings.Contains(strings.ToLower(m.name), strings.ToLower(query))
	})
	slices.SortFunc(found, order)
	page := listJSON{Data: []machineJSON{}, TotalCount: len(found)}
	for _, m := range cut(found, offset, limit) {
		page.Data = append(page.Data, s.show(m))
	}
	return page, nil
}

// order reads order_by. A + that was not escaped has become a space on the way.
func (f form) order() (func(a, b *machine) int, *problem) {
	by := "-created_at"
	if given, ok := f.members["order_by"]; ok {
		by = string(given)
	}
	sign := 1
	if rest, ok := strings.CutPrefix(by, "-"); ok {
		by, sign = rest, -1
	} else {
		by = strings.TrimLeft(by, "+ ")
	}
	switch by {
	case "created_at":
		return func(a, b *machine) int { return sign * a.age(b) }, nil
	case "name":
		return func(a, b *machine) int { return sign * cmp.Or(strings.Compare(a.name, b.name), a.age(b)) }, nil
	}
	return nil, f.refuse("order_by", "form_param_value_invalid", "must be name or created_at, after + or -")
}

// age compares by creation; number tells apart what was made in one instant.
func (m *machine) age(b *machine) int { return cmp.Or(m.created.Compare(b.created), m.number-b.number) }

// cut takes a page out of what was found.
func cut[T any](all []T, offset, limit int64) []T {
	from := min(int(offset), len(all))
	return all[from:min(from+int(limit), len(all))]
}

// createMachine makes a machine, and is the one answer that shows a machine with its secret key.
// A machine that stands twice in scoped_machines is one scope.
func (s *Service) createMachine(c *call) (any, *problem) {
	if p := cmp.Or(c.form.only("name", "scoped_machines", "default_token_ttl"), c.form.required("name")); p != nil {
		return nil, p
	}
	name, p := c.form.name("")
	if p != nil {
		return nil, p
	}
	ttl, p := c.form.integer("default_token_ttl", 1, maxTTL, defaultTTL)
	if p != nil {
		return nil, p
	}
	scopes, p := s.scopes(c.form)
	if p != nil {
		return nil, p
	}
	m := s.newMachine(name, ttl, scopes)
	s.machines[m.id] = m
	shown := s.show(m)
	shown.SecretKey = m.secret
	return shown, nil
}

// scopes reads what a new machine is to have access to.
func (s *Service) scopes(f form) ([]string, *problem) {
	ids, p := f.ids("scoped_machines")
	if p != nil {
		return nil, p
	}
	if len(ids) > maxScopes {
		return nil, f.refuse("scoped_machines", "form_param_max_length_exceeded", "must have at most 150 entries")
	}
	for _, id := range ids {
		if _, ok := s.machines[id]; !ok {
			return nil, f.refuse("scoped_machines", "form_param_value_invalid", "names a machine that is not there")
		}
	}
	return distinct(ids), nil
}

// getMachine answers a machine and those that it has access to.
func (s *Service) getMachine(c *call) (any, *problem) {
	m, p := s.machine(c.ids[0])
	if p != nil {
		return nil, p
	}
	return s.show(m), nil
}

// machine finds a machine by the id in a path.
func (s *Service) machine(id string) (*machine, *problem) {
	if m, ok := s.machines[id]; ok {
		return m, nil
	}
	return nil, notFound("machine")
}

// updateMachine changes what is sent and nothing else. Nothing at all is no error, and still an
// update by its time.
func (s *Service) updateMachine(c *call) (any, *problem) {
	m, p := s.machine(c.ids[0])
	if p != nil {
		return nil, p
	}
	if p := c.form.only("name", "default_token_ttl"); p != nil {
		return nil, p
	}
	name, p := c.form.name(m.name)
	if p != nil {
		return nil, p
	}
	ttl, p := c.form.integer("default_token_ttl", 1, maxTTL, m.ttl)
	if p != nil {
		return nil, p
	}
	m.name, m.ttl, m.updated = name, ttl, time.Now()
	return s.show(m), nil
}

// deleteMachine keeps what it deletes, for RestoreMachine.
func (s *Service) deleteMachine(c *call) (any, *problem) {
	if !s.remove(c.ids[0]) {
		return nil, notFound("machine")
	}
	return deletedJSON{Object: "machine", ID: c.ids[0], Deleted: true}, nil
}

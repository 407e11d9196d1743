package licentric

import (
	"context"
	"errors"
	"iter"
	"net/url"
	"strconv"

	"github.com/execguard/execguard/guard/internal/strictjson"
)

// largestPage is the most machines that the service gives at a time.
const largestPage = 100

// mostEmpty is how many pages in a row may hold nothing although there is more.
const mostEmpty = 100

// MachinesParams says which machines Machines lists. The zero value is all of them.
type MachinesParams struct {
	LicenseID string // of one licence; "": of every licence
	PageSize  int    // how many are asked for at a time, 1 to 100; 0: 100
}

// Machines walks over the machines, page by page, in the service's order; the next page is asked
// for when the one before has been taken. The first error is the last thing that it gives, beside
// a zero Machine. Each range over it begins anew. It needs an API key.
//
// What is activated or deactivated meanwhile may be there or not.
func (c *Client) Machines(ctx context.Context, params MachinesParams) iter.Seq2[Machine, error] {
	return func(yield func(Machine, error) bool) {
		q, query, fail := c.listing(params)
		if fail != nil {
			yield(Machine{}, fail)
			return
		}
		seen, empty := map[string]struct{}{}, 0
		for more := true; more; {
			q.query = query.Encode()
			p, fail := c.page(ctx, q, seen)
			if fail != nil {
				yield(Machine{}, fail)
				return
			}
			if empty++; len(p.machines) > 0 {
				empty = 0
			}
			if empty > mostEmpty { // nobody's loop body runs, so that nobody could break out of it
				yield(Machine{}, (&reply{op: opMachines}).undecided("the list goes on without machines"))
				return
			}
			for _, m := range p.machines {
				if !yield(m, nil) {
					return
				}
			}
			query.Set("cursor", p.next)
			more = p.next != ""
		}
	}
}

// listing is the request for the first page.
func (c *Client) listing(params MachinesParams) (request, url.Values, *Error) {
	q, fail := c.managed(opMachines)
	if fail != nil {
		return q, nil, fail
	}
	if params.PageSize < 0 || params.PageSize > largestPage {
		return q, nil, unasked(opMachines, wordInvalid, "the page size must be 1 to 100, or 0 for 100")
	}
	if params.PageSize == 0 {
		params.PageSize = largestPage
	}
	query := url.Values{"limit": {strconv.Itoa(params.PageSize)}}
	if params.LicenseID != "" {
		id, fail := checkID(opMachines, params.LicenseID)
		if fail != nil {
			return q, nil, fail
		}
		query.Set("licenseId", id)
	}
	return q, query, nil
}

// page is one part of the list.
type page struct {
	machines []Machine
	next     string // the cursor of the next one; "" after the last
}

// page asks for one part of the list. seen are the cursors so far: one that comes again would
// lead round in a circle for ever.
func (c *Client) page(ctx context.Context, q request, seen map[string]struct{}) (page, *Error) {
	r, fail := c.ask(ctx, q)
	if fail != nil {
		return page{}, fail
	}
	p, err := r.page()
	if _, again := seen[p.next]; again && err == nil {
		err = errors.New("the list leads back to a page that was read")
	}
	if err != nil {
		return page{}, r.undecided(err.Error())
	}
	if p.next != "" {
		seen[p.next] = struct{}{}
	}
	return p, nil
}

// page reads one part of the list, or says why there is none.
func (r *reply) page() (page, error) {
	var p page
	entries, ok := r.object.Objects("data", machineMembers()...)
	if !ok {
		return p, errors.New("no list of machines in the answer")
	}
	for _, entry := range entries {
		m, err := machineOf(entry)
		if err != nil {
			return p, err
		}
		p.machines = append(p.machines, m)
	}
	if absent(r.object.Raw("pagination")) {
		return p, nil
	}
	where, err := strictjson.Parse(r.object.Raw("pagination"), "hasMore", "nextCursor")
	more, told := where.Bool("hasMore")
	if err != nil || !told {
		return p, errors.New("the answer does not say whether there is more")
	}
	if more {
		p.next = text(where, "nextCursor")
	}
	if more && p.next == "" {
		return p, errors.New("there is more, but no cursor in the answer")
	}
	return p, nil
}

package clerk

import (
	"context"
	"iter"

	sdk "github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/machine"
	"github.com/execguard/execguard/guard/internal/strictjson"
)

// ListParams say which machines List walks over, and how.
type ListParams struct {
	Query    string // a machine's id, or a part of names; "": all
	OrderBy  string // name or created_at, with + (ascending, as without a sign) or - (descending) before it; "": -created_at
	PageSize int    // machines a request, 1 to 500; 0: 100
}

// List walks over the machines, a page a request, and ends after the first error, which comes with
// the zero Machine. Requests are sent while it is walked, on the goroutine that does, and no more of
// them once the walk is left; each walk begins anew. A machine that is made or deleted meanwhile may
// be missed, and so may its neighbour, but none comes twice. For pages over 8 MiB lower the PageSize.
func (c *Client) List(ctx context.Context, params ListParams, opts ...CallOption) iter.Seq2[Machine, error] {
	return func(yield func(Machine, error) bool) {
		if why := params.wrong(); why != "" {
			yield(Machine{}, mistake(opList, why))
			return
		}
		w := walk{client: c, params: params, reading: c.reading(opts), seen: map[string]struct{}{}}
		for more := true; more; {
			var page []Machine
			var err error
			if page, more, err = w.next(ctx); err != nil {
				yield(Machine{}, err)
				return
			}
			for _, m := range page {
				if !yield(m, nil) {
					return
				}
			}
		}
	}
}

// walk is one walk over the machines.
type walk struct {
	client  *Client
	params  ListParams
	reading reading
	offset  int64
	seen    map[string]struct{} // ids: pages shift when machines are made meanwhile
	stale   int                 // pages on end that held nothing new
}

// next returns the machines of the next page that have not come yet, and whether there is another
// page. A service that overlooks the offset would send the first one for ever.
func (w *walk) next(ctx context.Context) (fresh []Machine, more bool, err error) {
	page, x, err := w.page(ctx)
	if err != nil {
		return nil, false, err
	}
	for _, m := range page.Machines {
		if _, twice := w.seen[m.ID]; !twice {
			w.seen[m.ID] = struct{}{}
			fresh = append(fresh, machineOf(m))
		}
	}
	w.offset += int64(len(page.Machines))
	if w.stale++; len(fresh) > 0 {
		w.stale = 0
	}
	switch more = w.offset < page.TotalCount; {
	case more && len(page.Machines) == 0:
		return nil, false, x.nonsense("an empty page before the end")
	case more && w.stale > maxStale:
		return nil, false, x.nonsense("pages of machines that have all come before")
	}
	return fresh, more, nil
}

// maxStale is how many pages on end may hold nothing new: as many are made on the way by machines that
// are made meanwhile. A service that overlooks the offset has no end of them.
const maxStale = 10

func (w *walk) page(ctx context.Context) (*sdk.MachineList, *exchange, error) {
	c := w.client
	params := &machine.ListParams{OrderBy: unlessEmpty(w.params.OrderBy), Query: unlessEmpty(w.params.Query)}
	params.Limit, params.Offset = sdk.Int64(w.params.limit()), sdk.Int64(w.offset)
	return read(ctx, c, w.reading,
		func() *exchange { return &exchange{op: opList, key: c.key} },
		func(ctx context.Context) (*sdk.MachineList, error) { return c.machines.List(ctx, params) },
		func(o strictjson.Object) string { return wantPage(o, w.params.limit()) })
}

func (p ListParams) limit() int64 {
	if p.PageSize == 0 {
		return 100
	}
	return int64(p.PageSize)
}

// wrong says why the list cannot be asked for.
func (p ListParams) wrong() string {
	switch p.OrderBy {
	case "", "name", "+name", "-name", "created_at", "+created_at", "-created_at":
	default:
		return "the order is none of name and created_at, with + or - before it"
	}
	if p.PageSize < 0 || p.PageSize > 500 {
		return "the page size is not in 1 to 500"
	}
	return wrongText("the query", p.Query, 0)
}

package httpmw

import (
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/execguard/execguard/guard"
)

// A page of devices, unless the request names another limit, and the longest there is.
const (
	pageLimit = 1000
	mostLimit = 10_000
)

// page is what Debug answers.
type page struct {
	Health  guard.Health         `json:"health"`
	Devices []guard.DeviceHealth `json:"devices"`        // by id
	Next    string               `json:"next,omitempty"` // the query of the next page; "": this is the last
}

// Debug returns a handler that shows a guard from inside, as JSON: health, a guard.Health, and devices, every
// device that the guard knows, sorted by id, a page at a time. The query may have device (that
// one alone), limit (devices a page; 1000 unless it says so, at most 10,000) and after (only ids behind this one); where
// there are more, next is the query of the next page. It asks the authority nothing. It looks
// at all devices for each page, and keeps no more than two pages of them meanwhile.
//
// It shows the ids of devices and why they were denied, and is not for strangers: put it on a port of its own, or
// behind whatever lets operators in. Debug panics if g is nil.
func Debug(g interface {
	Health() guard.Health
	Devices() iter.Seq[guard.DeviceHealth]
}) http.Handler {
	if isNil(g) {
		mistake("Debug: the Guard is nil")
	}
	return reading(func(w http.ResponseWriter, r *http.Request) {
		query, err := readQuery(r.URL.Query())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		p := page{Health: g.Health()}
		p.Devices, p.Next = query.choose(g.Devices())
		writeJSON(w, "application/json", http.StatusOK, p)
	})
}

// query says which devices are asked for.
type query struct {
	device string
	only   bool // device alone, even if it is ""
	after  string
	begun  bool // there was a page before: only what comes after it
	limit  int
}

func readQuery(v url.Values) (query, error) {
	q := query{
		device: v.Get("device"), only: v.Has("device"),
		after: v.Get("after"), begun: v.Has("after"), limit: pageLimit,
	}
	if text := v.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > mostLimit {
			return q, fmt.Errorf("limit: it must be a number between 1 and %d", mostLimit)
		}
		q.limit = n
	}
	return q, nil
}

func (q query) wants(id string) bool {
	return (!q.only || id == q.device) && (!q.begun || id > q.after)
}

// choose keeps the first of those that are wanted, by id, and the query of those behind them.
func (q query) choose(devices iter.Seq[guard.DeviceHealth]) (shown []guard.DeviceHealth, next string) {
	shown = []guard.DeviceHealth{} // not null in JSON
	for d := range devices {
		if q.wants(d.DeviceID) {
			shown = append(shown, d)
		}
		if len(shown) > 2*q.limit {
			shown = firstByID(shown, q.limit+1) // one more than is shown, to know whether there are more
		}
	}
	shown = firstByID(shown, q.limit+1)
	if len(shown) <= q.limit {
		return shown, ""
	}
	shown = shown[:q.limit]
	return shown, url.Values{"limit": {strconv.Itoa(q.limit)}, "after": {shown[q.limit-1].DeviceID}}.Encode()
}

// firstByID returns the first n of ds by id, or all.
func firstByID(ds []guard.DeviceHealth, n int) []guard.DeviceHealth {
	slices.SortFunc(ds, func(a, b guard.DeviceHealth) int { return strings.Compare(a.DeviceID, b.DeviceID) })
	return ds[:min(n, len(ds))]
}

package httpmw

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/execguard/execguard/guard"
)

// healthier is what Live and Ready need of a Guard. It asks nobody.
type healthier interface{ Health() guard.Health }

// Live returns a handler for the probe by which a process is started anew: 200 unless a guard is closed
// and has nothing in flight any more, or its timer hangs (guard.Health.Live). A guard that drains
// is alive, and so is one whose authority does not answer: a new process would fare no better.
//
// Like Ready it never asks the authority, and names no device; what it answers tells strangers
// no more than whether the server works. Live panics if g is nil.
func Live(g interface{ Health() guard.Health }) http.Handler {
	return probe("Live", g, guard.Health.Live)
}

// Ready returns a handler for the probe by which a process is sent requests: 200 where the guard is open and
// the authority's last answer was a decision, or it was not asked yet (guard.Health.Ready); otherwise 503,
// with a problem answer that says why. A failure counts for one stop bound from the last question that failed: a server without
// requests asks nothing, and would never be ready again. A denial is no failure; that a whole
// organisation is denied is for the answers to say, not for a server that nobody reaches.
//
// Where every server asks the same authority, all are unready at once while it is down. Where a 503
// of New's own is better than none, probe Live alone. Ready panics if g is nil.
func Ready(g interface{ Health() guard.Health }) http.Handler {
	return probe("Ready", g, guard.Health.Ready)
}

// probe answers 200, or 503 where judge finds a reason.
func probe(who string, g healthier, judge func(guard.Health) error) http.Handler {
	if isNil(g) {
		mistake(who + ": the Guard is nil")
	}
	return reading(func(w http.ResponseWriter, _ *http.Request) {
		if err := judge(g.Health()); err != nil {
			writeUnhealthy(w, err)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("ok\n"))
	})
}

// unhealthy is a problem answer with the reason. That names no device and no address.
type unhealthy struct {
	Problem

	Detail string `json:"detail"`
}

func writeUnhealthy(w http.ResponseWriter, err error) {
	code := codeGuardStuck
	switch {
	case errors.Is(err, guard.ErrClosed):
		code = codeGuardClosed
	case errors.Is(err, guard.ErrUnavailable):
		code = guard.CodeSystemUnavailable
	}
	p := newProblem(http.StatusServiceUnavailable, code, err)
	p.Type, p.Title = documentation+"Unhealthy", "Work that is begun here now cannot be expected to run"
	writeJSON(w, "application/problem+json", p.Status, unhealthy{p, err.Error()})
}

// reading lets GET and HEAD through, and no cache keep the answer.
func reading(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
			return
		}
		h(w, r)
	})
}

func writeJSON(w http.ResponseWriter, kind string, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = w.Write(text) // a client may be gone
}

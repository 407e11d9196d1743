package chaos_test

import (
	"context"
	"crypto/rand"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/execguard/execguard/guard/authority"
	"github.com/execguard/execguard/internal/chaos"
	"github.com/execguard/execguard/internal/faulty"
)

// newWorld makes one that ends with finish.
func newWorld(t *testing.T, machine *chaos.Pulse, tls bool) *world {
	t.Helper()
	w, a := foundWorld(t, machine)
	var err error
	w.tls = tls
	w.server, err = faulty.Start(faulty.Config{
		Handler: w.recorder.Handler(a), Dialect: dialect(), Plain: !tls, Secrets: func() []string { return []string{w.key} },
	})
	must(t, err)
	w.connect(w.server.URL(), w.closeServer)
	return w
}

// newBareWorld makes one whose server remembers nothing, for a test without end: only the wire has faults.
func newBareWorld(t *testing.T, machine *chaos.Pulse) *world {
	t.Helper()
	w, a := foundWorld(t, machine)
	s := httptest.NewServer(a)
	w.connect(s.URL, s.Close)
	return w
}

// foundWorld makes an authority that nobody can reach yet.
func foundWorld(t *testing.T, machine *chaos.Pulse) (*world, *authority.Authority) {
	t.Helper()
	w := &world{t: t, key: "org_" + rand.Text(), recorder: chaos.NewRecorder(machine), machine: machine}
	w.over, w.end = context.WithCancel(context.Background())
	a, err := authority.New()
	must(t, err)
	w.org, err = a.AddOrganisation(t.Context(), w.key, authority.PlanMax)
	must(t, err)
	return w, a
}

// connect lays the wire to a server, and says how that is closed.
func (w *world) connect(server string, closeIt func()) {
	base, err := url.Parse(server)
	must(w.t, err)
	w.wire, err = chaos.NewWire(base.Host)
	must(w.t, err)
	w.base, w.disconnect = base.Scheme+"://"+w.wire.Addr(), closeIt
}

package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/execguard/execguard/guard/authority"
	"github.com/execguard/execguard/guard/machineid"
)

// network is what workers and authority talk over.
type network struct {
	listen func(ctx context.Context, addr string) (net.Listener, error)
	dial   func(ctx context.Context, kind, addr string) (net.Conn, error)
}

// loopback is this machine's own.
func loopback() network {
	return network{
		listen: func(ctx context.Context, addr string) (net.Listener, error) {
			return (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
		},
		dial: (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
	}
}

// service is the embedded authority behind real HTTP. It can be taken away and brought back while it is asked.
type service struct {
	listen  func(ctx context.Context, addr string) (net.Listener, error)
	addr    string // where it listens; the same one when it comes back
	handler http.Handler
	server  *http.Server
	gone    chan struct{} // closed when server has ended
	tenants []tenant
}

// tenant is one organisation of the authority with its devices. A plan has room for a thousand, so that a large fleet
// belongs to several.
type tenant struct {
	key     string
	devices []string
}

// startService has an authority know that many devices, and serve. Each request for a decision is counted.
func startService(ctx context.Context, over network, devices int, count func()) (*service, error) {
	a, err := authority.New()
	if err != nil {
		return nil, err
	}
	s := &service{listen: over.listen, addr: "127.0.0.1:0", handler: counting(a, count)}
	for devices > 0 {
		n := min(devices, authority.PlanMax.Limit())
		if err := s.enrol(ctx, a, n); err != nil {
			return nil, err
		}
		devices -= n
	}
	return s, s.bringBack(ctx)
}

func counting(h http.Handler, count func()) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == validatePath {
			count()
		}
		h.ServeHTTP(w, r)
	})
}

// enrol adds an organisation with n devices.
func (s *service) enrol(ctx context.Context, a *authority.Authority, n int) error {
	t := tenant{key: "org_" + rand.Text()}
	org, err := a.AddOrganisation(ctx, t.key, authority.PlanMax)
	if err != nil {
		return err
	}
	for i := range n {
		id := fmt.Sprintf("worker:fleet:%d:%04d", len(s.tenants), i)
		if r, err := org.Register(ctx, id); err != nil || r.Status != "ok" {
			return fmt.Errorf("%s is not registered: %s, %w", id, r.Status, err)
		}
		t.devices = append(t.devices, id)
	}
	s.tenants = append(s.tenants, t)
	return nil
}

// bringBack has it listen, for the first time or again.
func (s *service) bringBack(ctx context.Context) error {
	listener, err := s.listen(ctx, s.addr)
	if err != nil {
		return err
	}
	s.addr = listener.Addr().String()
	s.server = &http.Server{Handler: s.handler, ReadHeaderTimeout: 5 * time.Second}
	s.gone = make(chan struct{})
	go func(server *http.Server, gone chan<- struct{}) {
		defer close(gone)
		_ = server.Serve(listener) // always ends with an error; that of takeAway is no news
	}(s.server, s.gone)
	return nil
}

// takeAway ends every connection and refuses new ones. What the authority knows it keeps.
func (s *service) takeAway() {
	s.server.Close()
	<-s.gone
}

// client makes a client of a tenant that sends through hc.
func (s *service) client(t tenant, hc *http.Client) (*machineid.Client, error) {
	return machineid.New(t.key, machineid.WithBaseURL("http://"+s.addr), machineid.WithHTTPClient(hc))
}

// revokeAll revokes every device, and returns for each tenant when that request was sent: the revocation takes effect
// no sooner, so that what is counted from then is no shorter than it was.
func (s *service) revokeAll(ctx context.Context, hc *http.Client) (sent []time.Time, err error) {
	for _, t := range s.tenants {
		c, err := s.client(t, hc)
		if err != nil {
			return nil, err
		}
		sent = append(sent, time.Now())
		switch b, err := c.RevokeAllActive(ctx); {
		case err != nil:
			return nil, err
		case b.Count != len(t.devices):
			return nil, fmt.Errorf("%d of %d devices were revoked", b.Count, len(t.devices))
		}
	}
	return sent, nil
}

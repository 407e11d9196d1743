package main

import (
	"context"
	"crypto/rand"
	"net"
	"net/http"
	"time"

	"github.com/execguard/execguard/guard/authority"
)

// service is the embedded authority on a loopback port, over real HTTP. It can be taken away
// and brought back while it is asked.
type service struct {
	key     string // of its one organisation
	addr    string // where it listens; the same one when it comes back
	handler http.Handler
	server  *http.Server
	gone    chan struct{} // closed when server has ended
}

func startService(ctx context.Context) (*service, error) {
	a, err := authority.New()
	if err != nil {
		return nil, err
	}
	s := &service{key: "org_" + rand.Text(), addr: "127.0.0.1:0", handler: a}
	if _, err := a.AddOrganisation(ctx, s.key, authority.PlanFree); err != nil {
		return nil, err
	}
	return s, s.bringBack(ctx)
}

// bringBack has it listen, for the first time or again.
func (s *service) bringBack(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.addr)
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
func (s *service) takeAway() error {
	err := s.server.Close()
	<-s.gone
	return err
}

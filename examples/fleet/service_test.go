package main

import (
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/execguard/execguard/guard"
)

// Over real sockets: what is taken away refuses, and comes back where it was, with what it knew.
func TestServiceComesAndGoes(t *testing.T) {
	var counted atomic.Int32
	s, err := startService(t.Context(), loopback(), 1001, func() { counted.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	hc := &http.Client{Transport: &http.Transport{}}
	defer hc.CloseIdleConnections()
	if len(s.tenants) != 2 || len(s.tenants[0].devices) != 1000 || s.tenants[0].key == s.tenants[1].key {
		t.Fatalf("%d tenants", len(s.tenants))
	}
	ask := func(tenant int, want guard.Code) {
		t.Helper()
		c, err := s.client(s.tenants[tenant], hc)
		if err != nil {
			t.Fatal(err)
		}
		if d, _ := c.Validate(t.Context(), s.tenants[tenant].devices[0]); d.Code != want {
			t.Errorf("tenant %d: %+v, want %s", tenant, d, want)
		}
	}
	ask(0, guard.CodeAllow)
	addr := s.addr
	s.takeAway()
	ask(1, guard.CodeSystemUnavailable)
	if _, err := s.revokeAll(t.Context(), hc); err == nil {
		t.Error("revoked although nobody was there")
	}
	if err := s.bringBack(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.takeAway()
	ask(1, guard.CodeAllow)
	if s.addr != addr {
		t.Errorf("it was on %s, and is on %s", addr, s.addr)
	}
	sent, err := s.revokeAll(t.Context(), hc)
	if err != nil || len(sent) != 2 || !sent[0].Before(sent[1]) {
		t.Errorf("revoked at %v, %v", sent, err)
	}
	ask(0, guard.CodeDeviceRevoked)
	ask(1, guard.CodeDeviceRevoked)
	if n := counted.Load(); n != 4 {
		t.Errorf("%d requests for a decision were counted, want those 4 that arrived", n)
	}
	if _, err := s.revokeAll(t.Context(), hc); err == nil {
		t.Error("all were revoked twice")
	}
}

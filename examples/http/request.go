package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/httpmw"
)

// requestIsRefused: what the trader asks for is not done any more. Others, and what nobody guards,
// are as ever.
func (s *story) requestIsRefused(ctx context.Context) error {
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for _, request := range []struct {
		method, path, device string
		status               int
		code                 guard.Code
	}{
		{http.MethodPost, "/orders", trader, http.StatusForbidden, guard.CodeDeviceRevoked},
		{http.MethodPost, "/orders", "nobody", http.StatusUnauthorized, "NO_IDENTITY"},
		{http.MethodPost, "/orders", broker, http.StatusCreated, ""},
		{http.MethodGet, "/health", "nobody", http.StatusOK, ""},
	} {
		resp, err := s.call(ctx, client, request.method, request.path, request.device)
		if err != nil {
			return err
		}
		p, err := problemOf(resp)
		s.sayf(request.method+" "+request.path, "%d, for %-20s %s", resp.StatusCode, request.device, p.Code)
		if err != nil {
			return fmt.Errorf("the problem does not say what it should: %w", err)
		}
		if resp.StatusCode != request.status || p.Code != request.code {
			return fmt.Errorf("%d %q was expected, and not %d %+v", request.status, request.code, resp.StatusCode, p)
		}
	}
	if placed := s.market.orders.Load(); placed != 1 {
		return fmt.Errorf("%d orders were placed, and only the broker's should have been", placed)
	}
	return nil
}

// problemOf reads why a request was refused, where it was, and closes the answer.
func problemOf(resp *http.Response) (p httpmw.Problem, err error) {
	defer resp.Body.Close()
	if resp.Header.Get("Content-Type") == "application/problem+json" {
		err = json.NewDecoder(resp.Body).Decode(&p)
	}
	return p, err
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/httpmw"
)

// guardedClient is all that a client needs: its calls are made only while this program may
// execute, and are cut, in the middle of an answer too, when it no longer may.
func guardedClient(g guard.Runner) *http.Client {
	return &http.Client{Transport: httpmw.Transport(g, httpmw.Fixed(loader), nil)}
}

// downloadIsCut: the program is revoked while it reads an answer. The server knows nothing of it,
// and has not been asked to.
func (s *story) downloadIsCut(ctx context.Context) error {
	client := guardedClient(s.guard)
	defer client.CloseIdleConnections()
	resp, err := s.call(ctx, client, http.MethodGet, "/archive", loader)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	s.sayf("GET /archive", "%d, %d bytes, for %s", resp.StatusCode, resp.ContentLength, loader)

	before, err := io.CopyN(io.Discard, resp.Body, 3*archivePart)
	if err != nil {
		return err
	}
	revoked, err := s.revoke(ctx, loader)
	if err != nil {
		return err
	}
	after, ended := io.Copy(io.Discard, resp.Body)
	if err := s.expectDenial(ctx, ended, true); err != nil {
		return err
	}
	s.sayf("(cut)", "after %d bytes, %v after the revocation", before+after, time.Since(revoked).Round(10*time.Microsecond))
	return s.callIsRefused(ctx, client)
}

// callIsRefused: the next call does not even reach the server.
func (s *story) callIsRefused(ctx context.Context, client *http.Client) error {
	resp, err := s.call(ctx, client, http.MethodGet, "/archive", loader)
	if err == nil {
		resp.Body.Close()
	}
	if err := s.expectDenial(ctx, err, false); err != nil {
		return err
	}
	if began := s.market.downloads.Load(); began != 1 {
		return fmt.Errorf("%d downloads were begun, and only the first should have been", began)
	}
	s.sayf("GET /archive", "was not sent")
	return nil
}

// expectDenial is nil if err is the denial that the story tells of: it names the code, the
// authority's request, and whether the call was under way.
func (s *story) expectDenial(ctx context.Context, err error, inFlight bool) error {
	var denied *guard.DeniedError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil:
		return errors.New("the program was revoked, and yet its call was not denied")
	case !errors.As(err, &denied), denied.Decision.Code != guard.CodeDeviceRevoked, denied.InFlight != inFlight:
		return fmt.Errorf("a denial was expected, in flight %t, and not: %w", inFlight, err)
	}
	s.sayf("denied", "%s, request %s, in flight %t", denied.Decision.Code, denied.Decision.RequestID, denied.InFlight)
	return nil
}

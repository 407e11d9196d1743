package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/httpmw"
)

// streamIsCut: the trader is revoked while it reads prices.
func (s *story) streamIsCut(ctx context.Context) error {
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp, err := s.call(ctx, client, http.MethodGet, "/prices", trader)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	s.sayf("GET /prices", "%d, for %s", resp.StatusCode, trader)

	var last httpmw.Problem
	var revoked time.Time
	ended := readEvents(resp.Body, func(event, data string) (err error) {
		if event == "denied" {
			return json.Unmarshal([]byte(data), &last)
		}
		s.sayf(event, "%s", data)
		if revoked.IsZero() && data == "103 euros" {
			revoked, err = s.revoke(ctx, trader)
		}
		return err
	})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case last.Code != guard.CodeDeviceRevoked || last.RequestID == "":
		return errors.Join(fmt.Errorf("the last event should have told of the denial, and not: %+v", last), ended)
	case ended == nil:
		return errors.New("the stream that was cut looks as if it had ended properly")
	}
	s.sayf("last event", "%s, request %s", last.Code, last.RequestID)
	s.sayf("(cut)", "%v, %v after the revocation", ended, time.Since(revoked).Round(10*time.Microsecond))
	return nil
}

// readEvents reads an event stream. Its error is nil only if the stream has ended properly.
func readEvents(stream io.Reader, see func(event, data string) error) error {
	var event, data string
	lines := bufio.NewScanner(stream)
	for lines.Scan() {
		switch field, value, _ := strings.Cut(lines.Text(), ": "); field {
		case "event":
			event = value
		case "data":
			data = value
		case "": // the empty line after each event
			if err := see(event, data); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}

package clerkserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/internal/clerkserver"
	"github.com/execguard/execguard/internal/faulty"
)

// right is a client that goes by the wire document to the letter: what it takes for an ALLOW is
// one. That it sees through every fault is the proof that a client can.
type right struct {
	client  *http.Client
	url     string
	key     string
	own     string // the machine that tokens have to give access to
	endless bool   // tokens without an end are good enough

	patience time.Duration
}

// forFault is the same client with the patience that a fault is worth: where no answer will
// come, it need not be waited for, and elsewhere a busy computer must not look like a fault.
func (c right) forFault(f faulty.Fault) right {
	if f.Endless {
		c.patience = 50 * time.Millisecond
	}
	return c
}

func newRight(s *clerkserver.Server, own string) right {
	client := *s.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return right{client: &client, url: s.BaseURL(), key: s.SecretKey(), own: own, patience: 30 * time.Second}
}

// unavailable is what it says when it could not ask or must not believe.
func unavailable(why error) (guard.Decision, error) {
	return guard.Decision{Code: guard.CodeSystemUnavailable}, why
}

// do asks and reads: nothing but 200 with one JSON object gives members.
func (c right) do(ctx context.Context, method, path, body string) (members map[string]any, d guard.Decision, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, strings.NewReader(body))
	if err != nil {
		return nil, d, err
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.client.Do(req)
	if err != nil {
		d, err = unavailable(err)
		return nil, d, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		d, err = unavailable(err)
		return nil, d, err
	}
	members, strict := strictly(text)
	switch errs, _ := members["errors"].([]any); {
	case strict == nil && resp.StatusCode == http.StatusOK && members["errors"] == nil:
		return members, d, nil
	case strict == nil && len(errs) > 0 && resp.StatusCode == http.StatusNotFound:
		return nil, guard.Decision{Code: guard.CodeDeviceNotFound}, nil
	case strict == nil && len(errs) > 0 && (resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden):
		return nil, guard.Decision{Code: guard.CodeInvalidOrgKey}, nil
	}
	d, err = unavailable(errors.Join(fmt.Errorf("status %d: %.100s", resp.StatusCode, text), strict))
	d.RetryAfter = waitOf(resp)
	return nil, d, err
}

// waitOf reads Retry-After in either of its forms.
func waitOf(resp *http.Response) time.Duration {
	value := resp.Header.Get("Retry-After")
	if at, err := http.ParseTime(value); err == nil {
		return time.Until(at)
	}
	seconds, _ := strconv.Atoi(value)
	return time.Duration(seconds) * time.Second
}

// strictly reads one JSON object in which no name stands twice at its top.
func strictly(text []byte) (map[string]any, error) {
	var members map[string]any
	if err := json.Unmarshal(text, &members); err != nil || members == nil {
		return nil, fmt.Errorf("no object: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	_, _ = d.Token()
	for seen := map[string]bool{}; d.More(); {
		name, _ := d.Token()
		if seen[name.(string)] {
			return nil, errors.New("a name twice")
		}
		seen[name.(string)] = true
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
	}
	return members, nil
}

// mayRun asks whether a machine may run.
func (c right) mayRun(ctx context.Context, id string) (guard.Decision, error) {
	m, d, err := c.do(ctx, http.MethodGet, "/machines/"+id, "")
	if m == nil {
		return d, err
	}
	if m["object"] != "machine" || m["id"] != id || m["deleted"] != nil {
		return unavailable(errors.New("not the machine"))
	}
	return guard.Decision{Allowed: true, Code: guard.CodeAllow}, nil
}

// isWho asks who shows a token.
func (c right) isWho(ctx context.Context, token string) (string, error) {
	body, _ := json.Marshal(map[string]string{"token": token})
	m, d, err := c.do(ctx, http.MethodPost, "/m2m_tokens/verify", string(body))
	if m == nil {
		return "", errors.Join(err, errors.New(string(d.Code)))
	}
	subject, _ := m["subject"].(string)
	scopes, _ := m["scopes"].([]any)
	expiration, timed := m["expiration"].(float64)
	if value, there := m["expiration"]; c.endless && there && value == nil {
		timed, expiration = true, float64(time.Now().Add(time.Hour).UnixMilli())
	}
	if m["object"] != "machine_to_machine_token" || m["revoked"] != false || m["expired"] != false || !timed ||
		int64(expiration) <= time.Now().UnixMilli() || !strings.HasPrefix(subject, "mch_") || !slices.Contains(scopes, any(c.own)) {
		return "", errors.New("not good")
	}
	return subject, nil
}

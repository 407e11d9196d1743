package guard_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
)

// question and answer are what the wire carries: as many bytes and fields as such services have.
type (
	question struct {
		DeviceID string `json:"deviceId"`
		Action   string `json:"action"`
		RunID    string `json:"runId"`
	}
	answer struct {
		Decision  string `json:"decision"`
		Reason    string `json:"reason"`
		LeaseMS   int    `json:"leaseMs"`
		Epoch     int    `json:"epoch"`
		RequestID string `json:"requestId"`
	}
)

const orgHeader = "X-Org-Key"

var allowAnswer = answer{"ALLOW", "active", 5000, 42, "0192e4b7-5c1d-7000-8000-00000000000a"}

// serveAuthority is the authority: it reads the question as most servers do and allows it.
func serveAuthority(ln net.Listener) error {
	allow, err := json.Marshal(allowAnswer)
	if err != nil {
		return err
	}
	server := http.Server{ReadHeaderTimeout: time.Minute}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q question
		body, err := io.ReadAll(r.Body)
		if err != nil || json.Unmarshal(body, &q) != nil || q.DeviceID == "" || r.Header.Get(orgHeader) == "" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(allow)
	})
	return server.Serve(ln)
}

// wireClient asks that authority with net/http and as little as can be beside it: the codec is by
// hand and the buffers are used again.
type wireClient struct {
	url     string
	http    http.Client
	buffers sync.Pool
	open    atomic.Int64 // connections
}

// newWireClient starts an authority and makes a client of it.
func newWireClient(b *testing.B) *wireClient {
	b.Helper()
	c := &wireClient{url: "http://" + startChild(b, "authority") + "/validate"}
	c.buffers.New = func() any { return bytes.NewBuffer(make([]byte, 0, 1024)) }
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true, DialContext: c.dial}
	c.http.Transport = transport
	b.Cleanup(transport.CloseIdleConnections)
	return c
}

func (c *wireClient) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c.open.Add(1)
	return &countedConn{Conn: conn, closed: sync.OnceFunc(func() { c.open.Add(-1) })}, nil
}

// countedConn is a connection whose end is counted.
type countedConn struct {
	net.Conn
	closed func()
}

// Close is net.Conn's.
func (c *countedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}

// Validate is guard.Validator's.
func (c *wireClient) Validate(ctx context.Context, deviceID string) (guard.Decision, error) {
	out := c.buffers.Get().(*bytes.Buffer)
	out.Reset()
	writeQuestion(out, deviceID)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(out.Bytes()))
	if err != nil {
		return guard.Decision{}, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(orgHeader, "org_bench")
	resp, err := c.http.Do(r)
	if err != nil {
		return guard.Decision{}, err // and out is lost: the transport may still read it
	}
	defer resp.Body.Close()
	in := c.buffers.Get().(*bytes.Buffer)
	in.Reset()
	if _, err := in.ReadFrom(resp.Body); err != nil {
		return guard.Decision{}, err
	}
	a, err := readAnswer(in.Bytes())
	c.buffers.Put(out)
	c.buffers.Put(in)
	if err != nil || resp.StatusCode != http.StatusOK {
		return guard.Decision{}, errors.Join(fmt.Errorf("status %d", resp.StatusCode), err)
	}
	return guard.Decision{Allowed: a.Decision == "ALLOW", Code: guard.Code(a.Decision), RequestID: a.RequestID, Reason: a.Reason}, nil
}

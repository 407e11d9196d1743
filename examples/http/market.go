package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/httpmw"
)

// market is what is served: prices as they come, orders, and old prices to download.
type market struct {
	owners    map[string]string // token → the device that it was given to
	orders    atomic.Int32      // that were placed
	downloads atomic.Int32      // that were begun
}

// newMarket makes one that knows the callers by their tokens, and returns those: device → token.
func newMarket(devices ...string) (m *market, tokens map[string]string) {
	m, tokens = &market{owners: map[string]string{}}, map[string]string{}
	for _, device := range devices {
		tokens[device] = rand.Text()
		m.owners[tokens[device]] = device
	}
	return m, tokens
}

// routes is all that a server needs: what is guarded runs only while the caller's device may
// execute, and ends when it no longer may.
func (m *market) routes(g guard.Runner) http.Handler {
	guarded := httpmw.New(g, httpmw.FromBearer(m.owner), httpmw.WithLastEvent(lastEvent))
	mux := http.NewServeMux()
	mux.Handle("GET /prices", guarded(http.HandlerFunc(m.prices))) // a stream that is cut on a denial
	mux.Handle("POST /orders", guarded(http.HandlerFunc(m.order))) // a request that is refused then
	mux.HandleFunc("GET /archive", m.archive)                      // for everybody
	mux.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	return mux
}

// owner says whose a token is. A token that is known to nobody is no identity: 401.
func (m *market) owner(_ context.Context, token string) (deviceID string, err error) {
	if device, ok := m.owners[token]; ok {
		return device, nil
	}
	return "", errors.New("nobody was given this token")
}

// lastEvent is what the stream's reader is told before the connection is cut.
func lastEvent(p httpmw.Problem) []byte {
	text, err := json.Marshal(p)
	if err != nil {
		return nil // no event; the connection is cut all the same
	}
	return fmt.Appendf(nil, "event: denied\ndata: %s\n\n", text)
}

// prices sends one event after the other. It knows nothing of guards: its request's context ends
// when it is to stop.
func (m *market) prices(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	for price := 101; ; price++ {
		fmt.Fprintf(w, "event: price\ndata: %d euros\n\n", price)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-r.Context().Done():
			return
		}
	}
}

// order has an effect that nobody takes back.
func (m *market) order(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, "order %d is placed\n", m.orders.Add(1))
}

// The archive comes in parts, so that it takes a while: half a minute for all of it.
const (
	archiveParts = 300
	archivePart  = 4 << 10
)

func (m *market) archive(w http.ResponseWriter, r *http.Request) {
	m.downloads.Add(1)
	w.Header().Set("Content-Length", strconv.Itoa(archiveParts*archivePart))
	for range archiveParts {
		if _, err := w.Write(make([]byte, archivePart)); err != nil {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-r.Context().Done():
			return
		}
	}
}

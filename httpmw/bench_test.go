package httpmw_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
)

// undisturbed is an interval in which no benchmark meets a renewal: the longest that there is.
const undisturbed = 24 * time.Hour

var okay = []byte("ok")

// small is the least that a handler does.
func small(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(okay) }

// cancellable is the least that a middleware does which can end a request: it gives it a context of
// its own.
func cancellable(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
		next(w, r.WithContext(ctx))
	})
}

// lease guards a handler on a permission that may be reused.
func lease(b *testing.B, next http.HandlerFunc) http.Handler {
	b.Helper()
	g, _ := newGuard(b, guard.WithInterval(undisturbed), guard.WithReuse(undisturbed))
	learn(b, g)
	return guarded(g, next)
}

// discard is a ResponseWriter that costs next to nothing, so that the layer is what remains.
type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}

// BenchmarkHTTPHandler calls the handler directly: bare, with the least a layer does, and guarded.
func BenchmarkHTTPHandler(b *testing.B) {
	for _, s := range []struct {
		name string
		h    http.Handler
	}{{"bare", http.HandlerFunc(small)}, {"cancellable", cancellable(small)}, {"lease", lease(b, small)}} {
		b.Run(s.name, func(b *testing.B) {
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			r, w := httptest.NewRequestWithContext(ctx, http.MethodGet, "/run/9e3779b1", nil), &discard{h: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.h)
				s.h.ServeHTTP(w, r)
			}
		})
	}
}

// BenchmarkHTTPServerAgainstBare serves the bare handler and another in turns over loopback, and
// reports how many times the bare one's processor time the other takes, the clients' included.
func BenchmarkHTTPServerAgainstBare(b *testing.B) {
	for _, s := range []struct {
		name string
		h    http.Handler
	}{{"bare", http.HandlerFunc(small)}, {"cancellable", cancellable(small)}, {"lease", lease(b, small)}} {
		b.Run(s.name, func(b *testing.B) {
			inTurns(b, clients(b, http.HandlerFunc(small)), clients(b, s.h))
		})
	}
}

const connections = 16

// inTurns runs two operations in short blocks that take turns, so that whatever else the machine
// does meets both.
func inTurns(b *testing.B, base, other func(worker int) error) {
	b.Helper()
	const calls, blocks = 250, 100
	pair, first := [2]func(int) error{base, other}, 0
	var spent [2]time.Duration
	for b.Loop() {
		for range blocks {
			for _, i := range []int{first, 1 - first} {
				before, _ := processorTime()
				share(b, calls, pair[i])
				after, ok := processorTime()
				if !ok {
					b.Skip("the processor's time cannot be read here")
				}
				spent[i] += after - before
			}
			first = 1 - first
		}
	}
	b.ReportMetric(0, "ns/op") // a block's time says nothing
	b.ReportMetric(float64(spent[1])/float64(spent[0]), "x-cpu")
}

// share has the workers call op n times in all.
func share(b *testing.B, n int64, op func(worker int) error) {
	b.Helper()
	var issued atomic.Int64
	var wg sync.WaitGroup
	for w := range connections {
		wg.Go(func() {
			for issued.Add(1) <= n {
				if err := op(w); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

var errNoOK = errors.New("the answer is not 200 with «ok»")

// clients serves h on loopback and returns what sends it one request, over the worker's own
// connection. It writes prepared bytes and allocates nothing.
func clients(b *testing.B, h http.Handler) func(worker int) error {
	b.Helper()
	srv := httptest.NewServer(h)
	b.Cleanup(srv.Close)
	var conns [connections]net.Conn
	var readers [connections]*bufio.Reader
	for i := range conns {
		c := dial(b, srv.URL)
		conns[i], readers[i] = c, bufio.NewReader(c)
	}
	request := []byte("GET /run/9e3779b1 HTTP/1.1\r\nHost: server\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")
	return func(w int) error {
		if _, err := conns[w].Write(request); err != nil {
			return err
		}
		return readOK(readers[w])
	}
}

// readOK reads a small answer whose length is given.
func readOK(r *bufio.Reader) error {
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		switch {
		case err != nil:
			return err
		case first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")):
			return errNoOK
		case len(line) == 2:
			var body [2]byte
			if _, err := io.ReadFull(r, body[:]); err != nil || string(body[:]) != "ok" {
				return errNoOK
			}
			return nil
		}
	}
}

package httpmw_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
)

// readersVariable tells this test binary, started again by itself, to read streams from an address. The
// clients are a process of their own, so that the memory that is measured is the server's alone.
const readersVariable = "EXECGUARD_TEST_READ_STREAMS"

// streams is how many are open at once: as many as one process may have files here, and then some
// to spare.
const streams = 10_000

// live is an event stream that says one thing and waits.
func live(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(w, "data: hello\n\n")
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// BenchmarkSSE holds 10,000 event streams of one device open over loopback and measures what one
// takes of the server's memory, and for those that are guarded how long it takes from the denial
// reaching the guard until the last client has seen its stream cut. One round is enough:
//
//	go test ./httpmw -run '^$' -bench SSE -benchtime 1x
func BenchmarkSSE(b *testing.B) {
	g, v := newGuard(b, guard.WithInterval(undisturbed))
	b.Run("bare", func(b *testing.B) { holdStreams(b, http.HandlerFunc(live), nil) })
	b.Run("guarded", func(b *testing.B) {
		holdStreams(b, guarded(g, live), func() time.Time {
			v.Deny(device, guard.CodeDeviceRevoked)
			defer v.Allow(device)
			at := time.Now()
			learn(b, g)
			return at
		})
	})
}

func holdStreams(b *testing.B, h http.Handler, deny func() time.Time) {
	b.Helper()
	for b.Loop() {
		srv := httptest.NewServer(h)
		before := memory()
		say := startReaders(b, srv.Listener.Addr().String())
		if word := say(); word != "ready" {
			b.Skip("so many connections cannot be had here: " + word)
		}
		after := memory()
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/streams, "B/stream")
		b.ReportMetric(float64(after.StackInuse-before.StackInuse)/streams, "stack-B/stream")
		if deny != nil {
			at := deny()
			last, err := strconv.ParseInt(say(), 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(last-at.UnixNano())/1e6, "ms-to-the-last")
		}
		srv.CloseClientConnections()
		srv.Close()
	}
	b.ReportMetric(0, "ns/op") // opening them says nothing
}

func memory() *runtime.MemStats {
	runtime.GC()
	runtime.GC()
	m := new(runtime.MemStats)
	runtime.ReadMemStats(m)
	return m
}

// startReaders starts the clients and returns what waits for their next word.
func startReaders(b *testing.B, address string) (say func() string) {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), readersVariable+"="+address)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
	})
	words := bufio.NewReader(out)
	return func() string {
		word, _ := words.ReadString('\n')
		return strings.TrimSpace(word)
	}
}

// readStreams opens the streams, says «ready» when each has said something, and when the last of
// them has ended says at what time.
func readStreams(address string) {
	var opened, ended sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for range streams {
		opened.Add(1)
		ended.Go(func() {
			c, err := openStream(address)
			if err != nil {
				mu.Lock()
				failed = err
				mu.Unlock()
				opened.Done()
				return
			}
			opened.Done()
			_, _ = io.Copy(io.Discard, c)
		})
	}
	opened.Wait()
	mu.Lock()
	defer mu.Unlock()
	if failed != nil {
		_, _ = fmt.Fprintln(os.Stdout, failed)
		return
	}
	_, _ = fmt.Fprintln(os.Stdout, "ready")
	ended.Wait()
	_, _ = fmt.Fprintln(os.Stdout, time.Now().UnixNano())
}

func openStream(address string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: server\r\n\r\n"); err != nil {
		return nil, err
	}
	got := make([]byte, 0, 512)
	for !strings.Contains(string(got), "hello\n\n") {
		n, err := c.Read(got[len(got):cap(got)])
		if err != nil {
			return nil, err
		}
		got = got[:len(got)+n]
	}
	return c, nil
}

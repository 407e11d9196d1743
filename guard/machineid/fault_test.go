package machineid_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard/machineid"
	"go.uber.org/goleak"
)

// patience is the timeout of clients that meet a server which never ends. The test waits it out.
const patience = 150 * time.Millisecond

// rawServer accepts connections and hands each to talk, until the test is over. It returns its
// address, and a function that accepts no more and waits until all talks have ended.
func rawServer(t *testing.T, talk func(conn net.Conn)) (addr string, wait func()) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var talks, accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			talks.Go(func() {
				defer conn.Close()
				talk(conn)
			})
		}
	})
	wait = func() {
		listener.Close()
		accepting.Wait()
		talks.Wait()
	}
	t.Cleanup(wait)
	return listener.Addr().String(), wait
}

// readRequest reads one request, and returns false when the client has gone.
func readRequest(conn net.Conn, from *bufio.Reader) bool {
	r, err := http.ReadRequest(from)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, r.Body)
	return err == nil && conn != nil
}

// says answers one request with text and then does what after does.
func says(text string, after func(conn net.Conn)) func(net.Conn) {
	return func(conn net.Conn) {
		if readRequest(conn, bufio.NewReader(conn)) {
			_, _ = io.WriteString(conn, text)
			after(conn)
		}
	}
}

func hangUp(net.Conn) {}

// reset closes the connection so that the other side gets an RST.
func reset(conn net.Conn) { _ = conn.(*net.TCPConn).SetLinger(0) }

// silence says nothing and returns when the client hangs up.
func silence(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// drip sends body over and over, one byte each period, until the client hangs up.
func drip(period time.Duration, text string) func(net.Conn) {
	return func(conn net.Conn) {
		ticker := time.NewTicker(period)
		defer ticker.Stop()
		for i := 0; ; i++ {
			if _, err := conn.Write([]byte{text[i%len(text)]}); err != nil {
				return
			}
			<-ticker.C
		}
	}
}

const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

// Each fault of the list that a socket can show, with what errors.Is must find beneath.
func TestFaults(t *testing.T) {
	for name, c := range map[string]struct {
		talk  func(net.Conn)
		cause error // or nil, where there is none to name
		text  string
	}{
		"closed at once":         {hangUp, nil, ""},
		"closed after request":   {says("", hangUp), io.EOF, ""},
		"reset at once":          {reset, nil, ""},
		"reset before answer":    {says("", reset), syscall.ECONNRESET, ""},
		"reset mid-head":         {says("HTTP/1.1 200 O", reset), nil, ""},
		"reset mid-body":         {says(head+"Content-Length: 50\r\n\r\n"+allow[:20], reset), syscall.ECONNRESET, ""},
		"half a body":            {says(head+"Content-Length: 500\r\n\r\n"+allow, hangUp), io.ErrUnexpectedEOF, ""},
		"half a chunk":           {says(head+"Transfer-Encoding: chunked\r\n\r\n400\r\n"+allow, hangUp), io.ErrUnexpectedEOF, ""},
		"chunks without an end":  {says(head+"Transfer-Encoding: chunked\r\n\r\n"+chunk(allow), hangUp), io.ErrUnexpectedEOF, ""},
		"whole, but no end":      {says(head+"Transfer-Encoding: chunked\r\n\r\n"+chunk(allow), silence), context.DeadlineExceeded, ""},
		"cut where JSON is done": {says(head+"Content-Length: 60\r\n\r\n"+allow, silence), context.DeadlineExceeded, ""},
		"silent":                 {silence, context.DeadlineExceeded, ""},
		"silent after request":   {says("", silence), context.DeadlineExceeded, ""},
		"silent after head":      {says(head+"Content-Length: 50\r\n\r\n", silence), context.DeadlineExceeded, ""},
		"byte by byte":           {says("", drip(10*time.Millisecond, head+"X: ")), context.DeadlineExceeded, ""},
		"body byte by byte":      {says(head+"\r\n", drip(10*time.Millisecond, " ")), context.DeadlineExceeded, ""},
		"another protocol":       {says("SSH-2.0-OpenSSH_9.6\r\n", hangUp), nil, "malformed HTTP response"},
		"a protocol without end": {says("SSH-2.0-"+strings.Repeat("x", 1<<20), hangUp), nil, ""},
		"head of 1 MiB":          {says(head+"X: "+strings.Repeat("x", 1<<20), hangUp), nil, "exceeded"},
		"empty":                  {says(head+"Content-Length: 0\r\n\r\n", hangUp), nil, "HTTP 200"},
		"100 for ever":           {says(strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 100), silence), context.DeadlineExceeded, ""},
		"two lengths":            {says(head+"Content-Length: 2\r\nContent-Length: 54\r\n\r\n"+allow, hangUp), nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() { goleak.VerifyNone(t) })
			addr, wait := rawServer(t, c.talk)
			timeout := 10 * time.Second
			if errors.Is(c.cause, context.DeadlineExceeded) {
				timeout = patience
			}
			client := newClient(t, "http://"+addr, machineid.WithTimeout(timeout))
			d, err := client.Validate(t.Context(), device)
			checkUndecided(t, d, err)
			if c.cause != nil && !errors.Is(err, c.cause) {
				t.Errorf("%v does not match %v", err, c.cause)
			}
			if !strings.Contains(err.Error(), c.text) || len(err.Error()) > 1000 {
				t.Errorf("%v: want %q in at most 1000 bytes", err, c.text)
			}
			if len(d.Reason) > 300 {
				t.Errorf("reason of %d bytes", len(d.Reason))
			}
			wait() // the server's side ends only when the client's connection has: nothing was left running
		})
	}
}

func chunk(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }

func TestConnectionRefused(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	d, err := newClient(t, "http://"+listener.Addr().String()).Validate(t.Context(), device)
	checkUndecided(t, d, err)
	var where *net.OpError
	if !errors.Is(err, syscall.ECONNREFUSED) || !errors.As(err, &where) || where.Op != "dial" {
		t.Errorf("%v: want a refused dial", err)
	}
}

// A name that cannot be looked up, through a resolver whose own server is out of reach.
func TestDNSFailure(t *testing.T) {
	resolver := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("the name server is out of reach")
	}}
	rt := &http.Transport{DialContext: (&net.Dialer{Resolver: resolver}).DialContext}
	t.Cleanup(rt.CloseIdleConnections)
	client := newClient(t, "https://nowhere.invalid", machineid.WithHTTPClient(&http.Client{Transport: rt}))
	d, err := client.Validate(t.Context(), device)
	checkUndecided(t, d, err)
	var dns *net.DNSError
	if !errors.As(err, &dns) || dns.Name != "nowhere.invalid" {
		t.Errorf("%v: want a *net.DNSError", err)
	}
}

// A stuck look-up ends with the client's timeout too (S4).
func TestDNSStuck(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	rt := &http.Transport{DialContext: (&net.Dialer{Resolver: resolver}).DialContext}
	t.Cleanup(rt.CloseIdleConnections)
	client := newClient(t, "https://nowhere.invalid",
		machineid.WithHTTPClient(&http.Client{Transport: rt}), machineid.WithTimeout(patience))
	d, err := client.Validate(t.Context(), device)
	checkUndecided(t, d, err)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v: want DeadlineExceeded", err)
	}
}

// 64 MiB are not read, with and without a length that warns of them, and not unpacked either.
func TestHugeBody(t *testing.T) {
	const huge = 64 << 20
	for name, c := range map[string]struct {
		length, packed bool
		size, most     int64 // how much there is, and how much the server can get rid of at most: what sockets buffer
	}{
		"announced":   {length: true, size: huge, most: 16 << 20},
		"unannounced": {size: huge, most: 16 << 20},
		"packed":      {packed: true, size: 4 << 20, most: 4 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() { goleak.VerifyNone(t) })
			wrote := make(chan int64, 1)
			base := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				var body io.Writer = w
				end := func() error { return nil }
				if c.length {
					w.Header().Set("Content-Length", fmt.Sprint(huge))
				}
				if c.packed {
					w.Header().Set("Content-Encoding", "gzip")
					packer := gzip.NewWriter(w)
					body, end = packer, packer.Close
				}
				_, _ = io.WriteString(body, allow)
				n, _ := io.CopyN(body, spaces{}, c.size)
				_ = end()
				wrote <- n
			})
			var opts []machineid.Option
			if c.packed { // our own transport asks for nothing packed; a user's may
				rt := &http.Transport{}
				t.Cleanup(rt.CloseIdleConnections)
				opts = append(opts, machineid.WithHTTPClient(&http.Client{Transport: rt}))
			}
			// A context that ends before the client's timeout but after the test: nothing but
			// the end of the call itself can drop the connection.
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			d, err := newClient(t, base, append(opts, machineid.WithTimeout(2*time.Minute))...).Validate(ctx, device)
			checkUndecided(t, d, err)
			if !strings.Contains(err.Error(), "longer than 1 MiB") {
				t.Error(err)
			}
			select {
			case n := <-wrote:
				if n > c.most {
					t.Errorf("the server could send %d bytes", n)
				}
			case <-ctx.Done():
				t.Error("the connection was not dropped")
			}
		})
	}
}

// What fits is read: exactly 1 MiB, and 8 MiB of a list, but not a byte more.
func TestBodyBound(t *testing.T) {
	padded := func(text string, length int) *machineid.Client {
		return newClient(t, serve(t, answer(200, text+strings.Repeat(" ", length-len(text)))))
	}
	for over := range 2 {
		d, err := padded(allow, 1<<20+over).Validate(t.Context(), device)
		if fits := over == 0; d.Allowed != fits || (err == nil) != fits {
			t.Errorf("1 MiB and %d: %+v, %v", over, d, err)
		}
		list, err := padded(`{"devices":[{"deviceId":"a"}]}`, 8<<20+over).List(t.Context())
		if fits := over == 0; len(list.Devices) != 1-over || (err == nil) != fits {
			t.Errorf("8 MiB and %d: %d devices, %v", over, len(list.Devices), err)
		}
	}
}

type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// One byte a second, under the default timeout, on fake time: it takes ten seconds, not one byte more.
func TestDefaultTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var servers sync.WaitGroup
		defer servers.Wait()
		rt := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			near, far := net.Pipe()
			servers.Go(func() { says(head+"\r\n", drip(time.Second, " "))(far) })
			return near, nil
		}}
		defer rt.CloseIdleConnections()
		client := newClient(t, "http://127.0.0.1", machineid.WithHTTPClient(&http.Client{Transport: rt}))
		start := time.Now()
		d, err := client.Validate(t.Context(), device)
		checkUndecided(t, d, err)
		if took := time.Since(start); took != 10*time.Second || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v after %v, want DeadlineExceeded after 10s", err, took)
		}
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%v is no net.Error that timed out", err)
		}
	})
}

// The caller's context ends a call as well: the earlier end counts.
func TestContextEndsCall(t *testing.T) {
	cause := errors.New("the run was stopped")
	for name, c := range map[string]struct {
		ctx  func(context.Context) (context.Context, context.CancelFunc)
		want []error
		took time.Duration
	}{
		"deadline": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 3*time.Second)
		}, []error{context.DeadlineExceeded}, 3 * time.Second},
		"deadline with a cause": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeoutCause(ctx, 3*time.Second, cause)
		}, []error{context.DeadlineExceeded, cause}, 3 * time.Second},
		"cancelled": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(2*time.Second, func() { cancel(cause) })
			return ctx, func() { cancel(nil) }
		}, []error{context.Canceled, cause}, 2 * time.Second},
		"ended before": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return ctx, cancel
		}, []error{context.Canceled}, 0},
		"later than the client's": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Hour)
		}, []error{context.DeadlineExceeded}, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stuck := transport(func(r *http.Request) (*http.Response, error) {
					<-r.Context().Done()
					return nil, context.Cause(r.Context()) // as net/http does
				})
				ctx, cancel := c.ctx(t.Context())
				defer cancel()
				start := time.Now()
				d, err := offline(t, stuck).Validate(ctx, device)
				checkUndecided(t, d, err)
				for _, want := range c.want {
					if !errors.Is(err, want) {
						t.Errorf("%v does not match %v", err, want)
					}
				}
				if took := time.Since(start); took != c.took {
					t.Errorf("took %v, want %v", took, c.took)
				}
			})
		})
	}
}

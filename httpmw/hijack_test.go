package httpmw_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
	"github.com/execguard/execguard/httpmw"
)

// switching answers with 101 on a hijacked connection, and gives the connection to f.
func switching(t *testing.T, f func(r *http.Request, c net.Conn, b *bufio.ReadWriter)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, b, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("Hijack: %v", err)
			return
		}
		_, _ = b.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_ = b.Flush()
		f(r, c, b)
	}
}

// echo sends back what comes until the connection fails, and returns why.
func echo(c net.Conn) error {
	buf := make([]byte, 1<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return err
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return err
		}
	}
}

// peer is the client's end of a connection that switched protocols.
type peer struct {
	net.Conn

	read *bufio.Reader
}

func (p *peer) Read(b []byte) (int, error) { return p.read.Read(b) }

// upgrade asks for another protocol.
func (s *stand) upgrade(t *testing.T) *peer {
	t.Helper()
	address, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", address.Host)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.(*net.TCPConn).SetReadBuffer(1 << 16) // so that it is soon full
	if address.Scheme == "https" {
		trust := s.client.Transport.(*http.Transport).TLSClientConfig.Clone()
		trust.NextProtos = []string{"http/1.1"}
		trust.ServerName = "example.com"
		c = tls.Client(c, trust)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	b := bufio.NewReader(c)
	resp, err := http.ReadResponse(b, nil)
	if err != nil {
		t.Fatalf("reading the answer: %v", err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("status = %d, want 101", resp.StatusCode)
	}
	return &peer{c, b}
}

// wantEcho wants the other side to be there.
func (p *peer) wantEcho(t *testing.T) {
	t.Helper()
	fmt.Fprint(p, "ping\n")
	if line, err := p.read.ReadString('\n'); err != nil || line != "ping\n" {
		t.Fatalf("echo = %q, %v", line, err)
	}
}

// wantEnd wants the connection to end, by whatever error.
func (p *peer) wantEnd(t *testing.T) {
	t.Helper()
	if _, err := io.Copy(io.Discard, p); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection goes on")
	}
}

// eachHijackable runs a test over the protocols whose connections can be hijacked.
func eachHijackable(t *testing.T, test func(t *testing.T, p protocol)) {
	t.Helper()
	eachProtocol(t, func(t *testing.T, p protocol) {
		if p.major == 1 {
			test(t, p)
		}
	})
}

// A hijacked connection is closed on a denial, and whoever works on it gets the denial.
func TestDeniedWhileHijacked(t *testing.T) {
	eachHijackable(t, func(t *testing.T, p protocol) {
		over, cause := make(chan error, 3), make(chan error, 1)
		s := newStand(t, p, switching(t, func(r *http.Request, c net.Conn, _ *bufio.ReadWriter) {
			over <- echo(c)
			cause <- context.Cause(r.Context())
			_, err := c.Write([]byte("later"))
			over <- err
			_, err = c.Read(make([]byte, 1))
			over <- err
		}))
		client := s.upgrade(t)
		client.wantEcho(t)
		s.revoke(t)
		for range 3 {
			wantDenied(t, await(t, "the connection", over), guard.CodeDeviceRevoked)
		}
		wantDenied(t, await(t, "the cause", cause), guard.CodeDeviceRevoked)
		client.wantEnd(t)
	})
}

// A write that blocks on a hijacked connection is released, also where TLS would wait for a client
// that does not read to hear of the end.
func TestDeniedWhileAWriteBlocksOnAHijackedConnection(t *testing.T) {
	eachHijackable(t, func(t *testing.T, p protocol) {
		blocked, writing := make(chan error, 1), make(chan struct{})
		s := newStand(t, p, switching(t, func(_ *http.Request, c net.Conn, _ *bufio.ReadWriter) {
			close(writing)
			chunk := make([]byte, 1<<20)
			for {
				if _, err := c.Write(chunk); err != nil {
					blocked <- err
					return
				}
			}
		}))
		client := s.upgrade(t)
		await(t, "the writes", writing)
		s.revoke(t)
		wantDenied(t, await(t, "the write", blocked), guard.CodeDeviceRevoked)
		client.wantEnd(t)
	})
}

// Nor is there a farewell to a client whose window is full: TLS would wait five seconds for room for it.
func TestDeniedWhileTheWindowOfAHijackedConnectionIsFull(t *testing.T) {
	eachHijackable(t, func(t *testing.T, p protocol) {
		full := make(chan struct{})
		s, told := observedStand(t, p, switching(t, func(r *http.Request, c net.Conn, _ *bufio.ReadWriter) {
			_ = c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			chunk := make([]byte, 1<<20)
			for {
				if _, err := c.Write(chunk); err != nil {
					break
				}
			}
			_ = c.SetWriteDeadline(time.Time{})
			close(full)
			<-r.Context().Done()
		}))
		client := s.upgrade(t)
		told.want(t, guard.EventStarted)
		await(t, "the writes", full)
		s.revoke(t)
		select {
		case <-told:
		case <-time.After(3 * time.Second):
			t.Error("the run waits for the client")
		}
		client.wantEnd(t)
	})
}

// events are what a guard tells.
type events chan guard.Event

func observed() (events, guard.Option) {
	c := make(events, 1000)
	return c, guard.WithObserver(func(_ context.Context, e guard.Event) {
		switch e.Kind {
		case guard.EventStarted, guard.EventStopped, guard.EventFinished:
			c <- e
		case guard.EventValidated, guard.EventRefused, guard.EventOverran, guard.EventHinted:
		}
	})
}

func (c events) want(t *testing.T, kind guard.EventKind) guard.Event {
	t.Helper()
	e := await(t, string(kind), c)
	if e.Kind != kind {
		t.Errorf("event = %s, want %s", e.Kind, kind)
	}
	return e
}

func (c events) wantNone(t *testing.T) {
	t.Helper()
	select {
	case e := <-c:
		t.Errorf("event = %s, want none: the connection is in use", e.Kind)
	default:
	}
}

// leftBehind is a handler that gives its connection to another goroutine and returns, and a channel that
// has why that goroutine ended.
func leftBehind(t *testing.T, closes bool) (h http.HandlerFunc, returned <-chan struct{}, over <-chan error) {
	done, ended := make(chan struct{}, 1), make(chan error, 1)
	return switching(t, func(_ *http.Request, c net.Conn, _ *bufio.ReadWriter) {
		go func() {
			err := echo(c)
			if closes {
				_ = c.Close()
			}
			ended <- err
		}()
		done <- struct{}{}
	}), done, ended
}

// observedStand is a stand with a guard whose events are listened to.
func observedStand(t *testing.T, p protocol, h http.HandlerFunc) (*stand, events) {
	t.Helper()
	told, observer := observed()
	s := &stand{}
	s.guard, s.authority = newGuard(t, observer)
	s.url, s.client = serve(t, p, guarded(s.guard, h))
	return s, told
}

// The run goes on when the handler has returned and somebody else works on the connection; a denial
// ends both.
func TestDeniedWhileHijackedAndLeftBehind(t *testing.T) {
	eachHijackable(t, func(t *testing.T, p protocol) {
		h, returned, over := leftBehind(t, false)
		s, told := observedStand(t, p, h)
		client := s.upgrade(t)
		told.want(t, guard.EventStarted)
		await(t, "the handler's return", returned)
		client.wantEcho(t)
		told.wantNone(t)
		s.revoke(t)
		wantDenied(t, await(t, "the connection", over), guard.CodeDeviceRevoked)
		client.wantEnd(t)
		wantDenied(t, told.want(t, guard.EventStopped).Err, guard.CodeDeviceRevoked)
	})
}

// The run is over when the connection is closed, and not before.
func TestClosingAHijackedConnectionEndsTheRun(t *testing.T) {
	eachHijackable(t, func(t *testing.T, p protocol) {
		h, returned, over := leftBehind(t, true)
		s, told := observedStand(t, p, h)
		client := s.upgrade(t)
		told.want(t, guard.EventStarted)
		await(t, "the handler's return", returned)
		client.wantEcho(t)
		told.wantNone(t)
		_ = client.Close()
		if err := await(t, "the connection", over); errors.Is(err, guard.ErrDenied) {
			t.Errorf("err = %v, but nobody was denied", err)
		}
		if e := told.want(t, guard.EventFinished); e.Err != nil {
			t.Errorf("finished with %v", e.Err)
		}
	})
}

// A handler that closes its connection itself and goes on is guarded until it returns.
func TestAHijackedConnectionClosedByTheHandler(t *testing.T) {
	eachHijackable(t, func(t *testing.T, p protocol) {
		closed, cause := make(chan struct{}), make(chan error, 1)
		s, told := observedStand(t, p, switching(t, func(r *http.Request, c net.Conn, _ *bufio.ReadWriter) {
			_ = c.Close()
			_ = c.Close() // twice is once
			close(closed)
			<-r.Context().Done()
			cause <- context.Cause(r.Context())
		}))
		client := s.upgrade(t)
		told.want(t, guard.EventStarted)
		await(t, "the close", closed)
		client.wantEnd(t)
		told.wantNone(t)
		s.revoke(t)
		wantDenied(t, await(t, "the cause", cause), guard.CodeDeviceRevoked)
		told.want(t, guard.EventStopped)
	})
}

// A connection whose handler panicked belongs to nobody: it is closed, and the run is over.
func TestAPanicClosesAHijackedConnection(t *testing.T) {
	eachHijackable(t, func(t *testing.T, p protocol) {
		for name, end := range map[string]func(){
			"panic":  func() { panic(http.ErrAbortHandler) },
			"Goexit": goexit,
		} {
			t.Run(name, func(t *testing.T) {
				s, told := observedStand(t, p, switching(t, func(*http.Request, net.Conn, *bufio.ReadWriter) { end() }))
				s.upgrade(t).wantEnd(t)
				told.want(t, guard.EventStarted)
				told.want(t, guard.EventFinished)
			})
		}
	})
}

// One direction can be closed, as httputil.ReverseProxy does, and the other goes on.
func TestCloseWriteOfAHijackedConnection(t *testing.T) {
	eachHijackable(t, func(t *testing.T, p protocol) {
		heard := make(chan string, 1)
		s := newStand(t, p, switching(t, func(_ *http.Request, c net.Conn, _ *bufio.ReadWriter) {
			half, ok := c.(interface{ CloseWrite() error })
			if !ok {
				t.Error("no CloseWrite")
				return
			}
			if err := half.CloseWrite(); err != nil {
				t.Errorf("CloseWrite: %v", err)
			}
			text, _ := io.ReadAll(io.LimitReader(c, 5))
			heard <- string(text)
			_ = c.Close()
		}))
		client := s.upgrade(t)
		if _, err := client.read.ReadByte(); err != io.EOF {
			t.Errorf("err = %v, want the end of one direction", err)
		}
		fmt.Fprint(client, "hello")
		if got := await(t, "the other direction", heard); got != "hello" {
			t.Errorf("got %q", got)
		}
	})
}

// CloseWrite is there only where the connection inside has it, and it says why it fails.
func TestCloseWriteIsTheInnerOnes(t *testing.T) {
	hijacked := func(t *testing.T, raw net.Conn, f func(c net.Conn)) {
		t.Helper()
		g, _ := newGuard(t)
		inside(t, g, hijackable{httptest.NewRecorder(), raw}, func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Fatal(err)
			}
			f(c)
			_ = c.Close()
		})
	}
	a, b := net.Pipe()
	defer b.Close()
	hijacked(t, a, func(c net.Conn) {
		if _, ok := c.(interface{ CloseWrite() error }); ok {
			t.Error("there is a CloseWrite that nothing stands behind")
		}
	})
	failed := errors.New("not now")
	a, b = net.Pipe()
	defer b.Close()
	hijacked(t, halfFailing{a, failed}, func(c net.Conn) {
		if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != failed {
			t.Errorf("err = %v, want %v", err, failed)
		}
	})
}

type hijackable struct {
	http.ResponseWriter

	conn net.Conn
}

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}

type halfFailing struct {
	net.Conn

	err error
}

func (h halfFailing) CloseWrite() error { return h.err }

// A denial that comes while the connection is being taken over closes it.
func TestDeniedDuringHijack(t *testing.T) {
	g, v := newGuard(t)
	a, b := net.Pipe()
	defer b.Close()
	w := hijackFunc{httptest.NewRecorder(), func() (net.Conn, *bufio.ReadWriter, error) {
		revoke(t, g, v)
		return a, bufio.NewReadWriter(bufio.NewReader(a), bufio.NewWriter(a)), nil
	}}
	inside(t, g, w, func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		wantDenied(t, err, guard.CodeDeviceRevoked)
		if c != nil {
			t.Error("there is a connection all the same")
		}
	})
	if _, err := a.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("err = %v, want a closed connection", err)
	}
}

type hijackFunc struct {
	http.ResponseWriter

	hijack func() (net.Conn, *bufio.ReadWriter, error)
}

func (h hijackFunc) Hijack() (net.Conn, *bufio.ReadWriter, error) { return h.hijack() }

// A connection that cannot be hijacked is none, and the request goes on: HTTP/2, and a writer that fails.
func TestHijackFails(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		if p.major == 1 {
			return
		}
		s := newStand(t, p, func(w http.ResponseWriter, _ *http.Request) {
			if _, _, err := http.NewResponseController(w).Hijack(); !errors.Is(err, http.ErrNotSupported) {
				t.Errorf("err = %v, want ErrNotSupported", err)
			}
			_, _ = io.WriteString(w, "plain")
		})
		wantWhole(t, s.get(t), "plain")
	})
	t.Run("an error", func(t *testing.T) {
		g, _ := newGuard(t)
		failed := errors.New("taken")
		rec := httptest.NewRecorder()
		w := hijackFunc{rec, func() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, failed }}
		inside(t, g, w, func(w http.ResponseWriter, _ *http.Request) {
			if _, _, err := w.(http.Hijacker).Hijack(); err != failed {
				t.Errorf("err = %v, want %v", err, failed)
			}
			_, _ = io.WriteString(w, "plain")
		})
		if rec.Body.String() != "plain" {
			t.Errorf("answer = %q", rec.Body)
		}
	})
	t.Run("denied before anything was sent", func(t *testing.T) {
		g, v := newGuard(t)
		rec := httptest.NewRecorder()
		w := hijackFunc{rec, func() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, http.ErrNotSupported }}
		inside(t, g, w, func(w http.ResponseWriter, _ *http.Request) {
			_, _, _ = w.(http.Hijacker).Hijack()
			revoke(t, g, v)
		})
		if rec.Code != http.StatusForbidden {
			t.Errorf("answer = %d, want 403: nothing was sent", rec.Code)
		}
	})
}

// A reverse proxy inside the guard hands an upgraded connection through, until the device is denied; then
// both of its connections end.
func TestReverseProxyUpgradesInsideTheGuard(t *testing.T) {
	eachHijackable(t, func(t *testing.T, p protocol) {
		over := make(chan error, 1)
		behind := httptest.NewServer(switching(t, func(_ *http.Request, c net.Conn, _ *bufio.ReadWriter) {
			over <- echo(c)
			_ = c.Close()
		}))
		defer behind.Close()
		s, told := observedStand(t, p, proxyTo(t, behind).ServeHTTP)
		client := s.upgrade(t)
		client.wantEcho(t)
		told.want(t, guard.EventStarted)
		told.wantNone(t)
		s.revoke(t)
		client.wantEnd(t)
		if err := await(t, "the connection behind", over); err == nil {
			t.Error("the connection behind goes on")
		}
		told.want(t, guard.EventStopped)
	})
}

// proxyTo is a reverse proxy to s, without idle connections left at the end.
func proxyTo(t *testing.T, s *httptest.Server) *httputil.ReverseProxy {
	t.Helper()
	to, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport: transport,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}
}

// Bytes that came with the request belong to whoever hijacks.
func TestHijackHandsOnWhatIsBuffered(t *testing.T) {
	got := make(chan string, 1)
	s := newStand(t, protocols()[0], switching(t, func(_ *http.Request, c net.Conn, b *bufio.ReadWriter) {
		line, _ := b.ReadString('\n')
		got <- line
		_ = c.Close()
	}))
	c := dial(t, s.url)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\nearly\n")
	if line := await(t, "the line", got); line != "early\n" {
		t.Errorf("line = %q", line)
	}
}

// A closed guard closes hijacked connections (S7).
func TestClosedWhileHijacked(t *testing.T) {
	eachHijackable(t, func(t *testing.T, p protocol) {
		over := make(chan error, 1)
		s := newStand(t, p, switching(t, func(_ *http.Request, c net.Conn, _ *bufio.ReadWriter) { over <- echo(c) }))
		client := s.upgrade(t)
		client.wantEcho(t)
		_ = s.guard.Close()
		if err := await(t, "the connection", over); !errors.Is(err, guard.ErrClosed) {
			t.Errorf("err = %v, want ErrClosed", err)
		}
		client.wantEnd(t)
	})
}

// Two guards, one inside the other: a denial of either closes the connection.
func TestNestedGuardsAroundAHijackedConnection(t *testing.T) {
	eachHijackable(t, func(t *testing.T, p protocol) {
		for name, denies := range map[string]func(outer, inner *guardtest.Validator) *guardtest.Validator{
			"outer": func(outer, _ *guardtest.Validator) *guardtest.Validator { return outer },
			"inner": func(_, inner *guardtest.Validator) *guardtest.Validator { return inner },
		} {
			t.Run(name, func(t *testing.T) {
				over := make(chan error, 1)
				outer, ov := newGuard(t)
				inner, iv := newGuard(t)
				s := &stand{}
				s.url, s.client = serve(t, p, httpmw.New(outer, httpmw.Fixed(device))(guarded(inner,
					switching(t, func(_ *http.Request, c net.Conn, _ *bufio.ReadWriter) { over <- echo(c) }))))
				client := s.upgrade(t)
				client.wantEcho(t)
				denies(ov, iv).Deny(device, guard.CodeDeviceRevoked)
				learn(t, outer)
				learn(t, inner)
				wantDenied(t, await(t, "the connection", over), guard.CodeDeviceRevoked)
				client.wantEnd(t)
			})
		}
	})
}

// An upgrade that is refused before the start is an ordinary answer.
func TestUpgradeRefused(t *testing.T) {
	s := newStand(t, protocols()[0], switching(t, func(*http.Request, net.Conn, *bufio.ReadWriter) {
		t.Error("the handler was called")
	}))
	s.authority.Deny(device, guard.CodeDeviceRevoked)
	c := dial(t, s.url)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: echo\r\n\r\n")
	if got, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 403 ") {
		t.Errorf("got %q, %v", got, err)
	}
}

// A request's context that has ended otherwise takes nothing from the guard: neither from one guard nor
// from two.
func TestDeniedWhileHijackedAfterTheContextEndedOtherwise(t *testing.T) {
	for name, nested := range map[string]bool{"one guard": false, "two guards": true} {
		t.Run(name, func(t *testing.T) {
			eachHijackable(t, func(t *testing.T, p protocol) {
				over := make(chan error, 1)
				other, _ := newGuard(t)
				s := newStandInside(t, p, func(next http.Handler) http.Handler {
					if nested {
						next = guarded(other, next.ServeHTTP)
					}
					return canceling(next)
				}, switching(t, func(r *http.Request, c net.Conn, _ *bufio.ReadWriter) {
					<-r.Context().Done()
					over <- echo(c)
				}))
				client := s.upgrade(t)
				client.wantEcho(t)
				s.revoke(t)
				wantDenied(t, await(t, "the connection", over), guard.CodeDeviceRevoked)
				client.wantEnd(t)
			})
		})
	}
}

// Nothing passes a hijacked connection, nor the buffers that come with it, after its context has ended
// with a denial, however soon it is tried.
func TestHijackedConnectionsPassNothingAfterADenial(t *testing.T) {
	for name, later := range map[string]func(c net.Conn, b *bufio.ReadWriter) error{
		"Write": func(c net.Conn, _ *bufio.ReadWriter) error {
			_, err := c.Write([]byte("later"))
			return err
		},
		"Read": func(c net.Conn, _ *bufio.ReadWriter) error {
			_, err := c.Read(make([]byte, 1))
			return err
		},
		"buffered Write": func(_ net.Conn, b *bufio.ReadWriter) error {
			_, _ = b.WriteString("later")
			return b.Flush()
		},
		"buffered Read": func(_ net.Conn, b *bufio.ReadWriter) error {
			_, err := b.ReadByte()
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			running, over := make(chan struct{}), make(chan error, 1)
			s := newStand(t, protocols()[0], switching(t, func(r *http.Request, c net.Conn, b *bufio.ReadWriter) {
				running <- struct{}{}
				for r.Context().Err() == nil { // sooner than by Done
					runtime.Gosched()
				}
				over <- later(c, b)
			}))
			for range 50 {
				s.authority.Allow(device)
				learn(t, s.guard)
				client := s.upgrade(t)
				await(t, "the handler", running)
				fmt.Fprint(client, "here")
				s.revoke(t)
				wantDenied(t, await(t, "what came later", over), guard.CodeDeviceRevoked)
				if got, err := io.ReadAll(client); len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("the client got %q, %v", got, err)
				}
			}
		})
	}
}

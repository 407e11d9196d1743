package httpmw_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/httpmw"
)

// duplex is the body of an answer that switched protocols, as net/http documents it and
// httputil.ReverseProxy uses it.
type duplex interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// serveTalk serves a change of protocols, after which talk has the connection.
func serveTalk(t testing.TB, p protocol, talk func(c net.Conn, r io.Reader)) (addr string, c *http.Client) {
	t.Helper()
	return serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "talk" {
			http.Error(w, "nothing to switch to", http.StatusUpgradeRequired)
			return
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("Hijack: %v", err)
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: talk\r\n\r\n")
		talk(conn, buffered)
	}))
}

// echoTalk sends back what comes, and the end of it.
func echoTalk(c net.Conn, r io.Reader) { _, _ = io.Copy(c, r) }

// talkOver asks for a change of protocols and wants it.
func talkOver(t testing.TB, c *http.Client, addr string) (*http.Response, duplex) {
	t.Helper()
	r := newCall(t, http.MethodGet, addr, nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "talk")
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	d, ok := resp.Body.(duplex)
	if resp.StatusCode != http.StatusSwitchingProtocols || !ok {
		t.Fatalf("status %d, a %T", resp.StatusCode, resp.Body)
	}
	return resp, d
}

// overOne runs a test over the protocols that can switch: HTTP/1.1, plain and with TLS.
func overOne(t *testing.T, test func(t *testing.T, p protocol)) {
	t.Helper()
	for _, p := range protocols() {
		if p.major == 1 {
			t.Run(p.name, func(t *testing.T) { test(t, p) })
		}
	}
}

// exchangeWords says something and wants to hear it again.
func exchangeWords(t testing.TB, rw io.ReadWriter, words string) {
	t.Helper()
	if _, err := io.WriteString(rw, words); err != nil {
		t.Fatalf("writing %q: %v", words, err)
	}
	got := make([]byte, len(words))
	if _, err := io.ReadFull(rw, got); err != nil || string(got) != words {
		t.Fatalf("read %q, %v, want %q", got, err, words)
	}
}

// After a 101 the body goes both ways, each of which ends by itself, and the call is over when it is
// closed.
func TestTransport_SwitchesProtocols(t *testing.T) {
	overOne(t, func(t *testing.T, p protocol) {
		log := &callLog{}
		g, v := newGuard(t, guard.WithObserver(log.observe))
		addr, c := serveTalk(t, p, func(c net.Conn, r io.Reader) {
			echoTalk(c, r)
			fmt.Fprint(c, "bye")
		})
		resp, body := talkOver(t, calling(g, c), addr)
		if got := resp.Header.Get("Upgrade"); got != "talk" {
			t.Errorf("Upgrade: %q", got)
		}
		exchangeWords(t, body, "hello")
		if err := body.CloseWrite(); err != nil {
			t.Errorf("CloseWrite: %v", err)
		}
		if got, err := io.ReadAll(body); string(got) != "bye" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		if n := len(log.of(guard.EventFinished)); n != 0 {
			t.Errorf("%d runs have finished before Close", n)
		}
		for range 2 {
			_ = body.Close() // net/http's own complains the second time
			if n := len(log.of(guard.EventFinished)); n != 1 {
				t.Errorf("%d runs have finished", n)
			}
		}
		revoke(t, g, v)
		for what, err := range map[string]error{"Read": errOf(body.Read(make([]byte, 1))), "Write": errOf(body.Write([]byte("x")))} {
			if err == nil || errors.Is(err, guard.ErrDenied) {
				t.Errorf("%s after Close: %v", what, err)
			}
		}
		wantOver(t, g)
	})
}

func errOf[N any](_ N, err error) error { return err }

// net/http does not watch the request's context any more: the guard closes the connection itself.
func TestTransport_SwitchedAndDenied(t *testing.T) {
	overOne(t, func(t *testing.T, p protocol) {
		g, v := newGuard(t)
		left := make(chan struct{})
		addr, c := serveTalk(t, p, func(c net.Conn, r io.Reader) {
			defer close(left)
			echoTalk(c, r)
		})
		_, body := talkOver(t, calling(g, c), addr)
		exchangeWords(t, body, "hello")
		read := make(chan error, 1)
		go func() {
			n, err := body.Read(make([]byte, 1))
			if n != 0 {
				t.Errorf("read %d bytes", n)
			}
			read <- err
		}()
		revoke(t, g, v)
		wantCallDenied(t, await(t, "the read", read), guard.CodeDeviceRevoked, true)
		await(t, "the server's end of it", left)
		wantCallDenied(t, errOf(body.Write([]byte("x"))), guard.CodeDeviceRevoked, true)
		wantCallDenied(t, errOf(body.Read(make([]byte, 1))), guard.CodeDeviceRevoked, true)
		wantCallDenied(t, body.Close(), guard.CodeDeviceRevoked, true)
		wantOver(t, g)
	})
}

// The end of one direction is not the end of the call: the other one stays guarded.
func TestTransport_SwitchedAndHalfClosed(t *testing.T) {
	overOne(t, func(t *testing.T, p protocol) {
		g, v := newGuard(t)
		heard, end := make(chan string, 10), make(chan error, 1)
		addr, c := serveTalk(t, p, func(c net.Conn, r io.Reader) {
			_ = c.(interface{ CloseWrite() error }).CloseWrite()
			buffer := make([]byte, 10)
			for {
				n, err := r.Read(buffer)
				if err != nil {
					end <- err
					return
				}
				heard <- string(buffer[:n])
			}
		})
		_, body := talkOver(t, calling(g, c), addr)
		for range 2 {
			if n, err := body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Fatalf("read %d bytes, %v", n, err)
			}
		}
		if _, err := body.Write([]byte("one")); err != nil {
			t.Errorf("writing: %v", err)
		}
		if got := await(t, "what was written", heard); got != "one" {
			t.Errorf("the server heard %q", got)
		}
		revoke(t, g, v)
		wantCallDenied(t, errOf(body.Write([]byte("two"))), guard.CodeDeviceRevoked, true)
		if err := await(t, "the server's end of it", end); err == nil {
			t.Error("the server's read has no error")
		}
		if len(heard) > 0 {
			t.Errorf("the server heard %q after the denial", <-heard)
		}
		wantOver(t, g)
	})
}

// After a 101 net/http does not watch the request's context any more, which often is one for the
// handshake alone. When it ends, the connection either ends with it or stays guarded: it must not go
// on without anybody looking.
func TestTransport_SwitchedAndTheCallersContextEnds(t *testing.T) {
	overOne(t, func(t *testing.T, p protocol) {
		g, v := newGuard(t)
		addr, c := serveTalk(t, p, echoTalk)
		ctx, cancel := context.WithCancel(t.Context())
		r, _ := http.NewRequestWithContext(ctx, http.MethodGet, addr, nil)
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "talk")
		resp, err := calling(g, c).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body := resp.Body.(duplex)
		exchangeWords(t, body, "hello")
		cancel()
		revoke(t, g, v)
		if _, err := body.Write([]byte("work")); err == nil {
			if _, err := io.ReadFull(body, make([]byte, 4)); err == nil {
				t.Error("the connection of a revoked device is alive, and nobody watches it")
			}
		}
	})
}

// A write that the other side does not take is released too. A pipe takes nothing by itself.
func TestTransport_SwitchedAndBlocked(t *testing.T) {
	for name, block := range map[string]func(d io.ReadWriter) (int, error){
		"writing": func(d io.ReadWriter) (int, error) { return d.Write([]byte("x")) },
		"reading": func(d io.ReadWriter) (int, error) { return d.Read(make([]byte, 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, v := newGuard(t)
				mine, other := net.Pipe()
				defer other.Close()
				tr := httpmw.Transport(g, httpmw.Fixed(device), baseFunc(func(*http.Request) (*http.Response, error) {
					return &http.Response{StatusCode: http.StatusSwitchingProtocols, Body: mine}, nil
				}))
				r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://example.invalid/", nil)
				resp, err := tr.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				body := resp.Body.(duplex)
				if err := body.CloseWrite(); !errors.Is(err, http.ErrNotSupported) { // a pipe has no half
					t.Errorf("CloseWrite: %v", err)
				}
				done := make(chan error, 1)
				go func() { done <- errOf(block(body)) }()
				synctest.Wait()
				if len(done) > 0 {
					t.Fatalf("it does not block: %v", <-done)
				}
				revoke(t, g, v)
				synctest.Wait()
				wantCallDenied(t, <-done, guard.CodeDeviceRevoked, true)
				_ = resp.Body.Close()
			})
		})
	}
}

// A server that does not switch is answered like any other.
func TestTransport_DoesNotSwitch(t *testing.T) {
	g, _ := newGuard(t)
	addr, c := serveTalk(t, protocols()[0], echoTalk)
	resp := get(t, calling(g, c), addr)
	if _, ok := resp.Body.(io.Writer); ok || resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("status %d, a %T", resp.StatusCode, resp.Body)
	}
	_ = wholeText(t, resp)
	wantOver(t, g)
}

// Whether an answer has switched protocols is said by its status, not by what its body can do besides:
// one that can be written to, such as a file of somebody's cache, is over at its end.
func TestTransport_AnswerThatHappensToBeWritable(t *testing.T) {
	log := &callLog{}
	g, _ := newGuard(t, guard.WithObserver(log.observe))
	mine, other := net.Pipe()
	go func() {
		_, _ = other.Write([]byte("whole"))
		_ = other.Close()
	}()
	resp := get(t, &http.Client{Transport: httpmw.Transport(g, httpmw.Fixed(device), baseWith(mine))}, "http://example.invalid/")
	if got, err := io.ReadAll(resp.Body); string(got) != "whole" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	if n := len(log.of(guard.EventFinished)); n != 1 {
		t.Errorf("%d runs have finished at the body's end", n)
	}
}

// transportProxy is a httputil.ReverseProxy to addr over c, and where its errors go.
func transportProxy(t testing.TB, addr string, c *http.Client) (*httputil.ReverseProxy, <-chan error) {
	t.Helper()
	to, err := url.Parse(addr)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 10)
	return &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport:     c.Transport,
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			failed <- err
			w.WriteHeader(http.StatusBadGateway)
		},
	}, failed
}

// httputil.ReverseProxy with the guarded transport: what passes, what is refused, what is cut.
func TestTransport_OfAReverseProxy(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		g, v := newGuard(t)
		left := make(chan struct{}, 1)
		addr, c := serve(t, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-After")
			w.Header().Set("X-Backend", "yes")
			fmt.Fprint(w, "hello")
			_ = http.NewResponseController(w).Flush()
			if r.URL.Path == "/stream" {
				<-r.Context().Done()
				left <- struct{}{}
			}
			w.Header().Set("X-After", "trailer")
		}))
		handler, failed := transportProxy(t, addr, calling(g, c))
		front, client := serve(t, protocols()[0], handler)

		resp := get(t, client, front)
		if got := wholeText(t, resp); got != "hello" || resp.Header.Get("X-Backend") != "yes" || resp.Trailer.Get("X-After") != "trailer" {
			t.Errorf("got %q, %v, %v", got, resp.Header, resp.Trailer)
		}

		resp = get(t, client, front+"/stream")
		_ = readBytes(t, resp.Body, 5)
		revoke(t, g, v)
		if rest, err := io.ReadAll(resp.Body); err != io.ErrUnexpectedEOF {
			t.Errorf("the cut answer ends with %q, %v", rest, err)
		}
		await(t, "the backend's handler", left)

		resp = get(t, client, front)
		if resp.StatusCode != http.StatusBadGateway {
			t.Errorf("status = %d", resp.StatusCode)
		}
		wantCallDenied(t, await(t, "the proxy's error", failed), guard.CodeDeviceRevoked, false)
		wantOver(t, g)
	})
}

// An upload that comes through a proxy and pauses is cut too. Its source is the body of a server's
// request, which Close does not release: that takes a guarded handler.
func TestTransport_OfAReverseProxyThatUploads(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		g, v := newGuard(t)
		half, got := make(chan struct{}), make(chan error, 1)
		addr, c := serve(t, p, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadFull(r.Body, make([]byte, 4))
			close(half)
			_, err := io.Copy(io.Discard, r.Body)
			got <- err
		}))
		handler, failed := transportProxy(t, addr, calling(g, c))
		front, client := serve(t, p, httpmw.New(g, httpmw.Fixed(device))(handler))
		in, out := io.Pipe()
		done := place(client, newCall(t, http.MethodPost, front, in))
		if _, err := out.Write([]byte("half")); err != nil {
			t.Fatal(err)
		}
		await(t, "half of it", half)
		revoke(t, g, v)
		if err := await(t, "the backend's read", got); err == nil {
			t.Error("the backend takes half an upload for a whole one")
		}
		wantCallDenied(t, await(t, "the proxy's error", failed), guard.CodeDeviceRevoked, true)
		o := await(t, "the answer", done)
		if o.err != nil {
			t.Fatal(o.err)
		}
		defer o.resp.Body.Close()
		problem(t, o.resp, http.StatusForbidden, "DEVICE_REVOKED")
		_ = out.Close()
		wantOver(t, g)
	})
}

// talkRaw asks for a change of protocols over a bare connection.
func talkRaw(t testing.TB, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c := dial(t, addr)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: front\r\nConnection: Upgrade\r\nUpgrade: talk\r\n\r\n")
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	return c, r
}

// A connection that a proxy has passed through in both directions is cut on both sides, whichever of
// them is guarded.
func TestTransport_OfAReverseProxyThatSwitches(t *testing.T) {
	for name, both := range map[string]bool{"the call is guarded": false, "handler and call are": true} {
		overOne(t, func(t *testing.T, p protocol) {
			t.Run(name, func(t *testing.T) {
				g, v := newGuard(t)
				left := make(chan struct{}, 2)
				addr, c := serveTalk(t, p, func(c net.Conn, r io.Reader) {
					echoTalk(c, r)
					left <- struct{}{}
				})
				handler, _ := transportProxy(t, addr, calling(g, c))
				var h http.Handler = handler
				if both {
					h = httpmw.New(g, httpmw.Fixed(device))(h)
				}
				front, _ := serve(t, protocols()[0], h)

				first, r := talkRaw(t, front) // ends by itself
				exchangeWords(t, readWriter{r, first}, "hello")
				_ = first.(*net.TCPConn).CloseWrite()
				if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
					t.Errorf("read %q, %v", rest, err)
				}
				await(t, "the backend's first end", left)

				cut, r := talkRaw(t, front)
				exchangeWords(t, readWriter{r, cut}, "hello")
				revoke(t, g, v)
				if rest, _ := io.ReadAll(r); len(rest) > 0 { // an end or a reset
					t.Errorf("read %q after the denial", rest)
				}
				await(t, "the backend's second end", left)
				wantOver(t, g)
			})
		})
	}
}

type readWriter struct {
	io.Reader
	io.Writer
}

// Many connections are cut at once, each of which talks all the time.
func TestTransport_ManySwitched(t *testing.T) {
	g, v := newGuard(t)
	addr, c := serveTalk(t, protocols()[0], echoTalk)
	c = calling(g, c)
	const many = 50
	ends := make(chan error, many)
	talking := make(chan struct{}, many)
	for range many {
		_, body := talkOver(t, c, addr)
		go func() {
			defer body.Close()
			word, first := []byte(strings.Repeat("word", 100)), true
			for {
				_, err := body.Write(word)
				if err == nil {
					_, err = io.ReadFull(body, word)
				}
				if err != nil {
					ends <- err
					return
				}
				if first {
					talking <- struct{}{}
				}
				first = false
			}
		}()
	}
	for range many {
		await(t, "a word", talking)
	}
	revoke(t, g, v)
	for range many {
		wantCallDenied(t, await(t, "an end", ends), guard.CodeDeviceRevoked, true)
	}
	wantOver(t, g)
}

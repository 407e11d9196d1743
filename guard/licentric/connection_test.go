package licentric_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/licentric"
)

// fickle is a server whose second answer on each connection never comes: it closes the connection
// once it has read the request. It counts the requests that it has read.
func fickle(t *testing.T, body string) (base string, read func() int) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var (
		mu    sync.Mutex
		count int
		talks sync.WaitGroup
	)
	talk := func(conn net.Conn) {
		defer conn.Close()
		from := bufio.NewReader(conn)
		for answered := false; ; answered = true {
			r, err := http.ReadRequest(from)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			mu.Lock()
			count++
			mu.Unlock()
			if answered {
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"+body)
		}
	}
	talks.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			talks.Go(func() { talk(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		talks.Wait()
	})
	return "http://" + listener.Addr().String(), func() int {
		mu.Lock()
		defer mu.Unlock()
		return count
	}
}

// A kept connection that the service closes at that very moment costs a validation, a heartbeat
// and a look-up a new connection and not a failure; what changes something is sent once.
func TestKeptConnectionIsClosed(t *testing.T) {
	again := map[string]bool{"validate": true, "heartbeat": true, "machines": true, "machine": true}
	for name, call := range calls {
		body := `{"data":` + machineJSON + `}`
		switch name {
		case "validate":
			body = valid
		case "machines":
			body = `{"data":[` + machineJSON + `]}`
		case "checkout":
			body = `{"data":{"certificate":"x"}}`
		}
		base, read := fickle(t, body)
		client := newClient(t, base)
		if _, err := call(t.Context(), client); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, err := call(t.Context(), client)
		if want := map[bool]int{true: 3, false: 2}[again[name]]; (err == nil) != again[name] || read() != want {
			t.Errorf("%s: %v after %d requests, want %d", name, err, read(), want)
		}
		if err != nil && !errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
		checkClosed(t, client)
	}
}

// Answers are bounded: 1 MiB, and 8 MiB for a page of machines.
func TestLongAnswers(t *testing.T) {
	for name, call := range calls {
		most := 1 << 20
		if name == "machines" {
			most = 8 << 20
		}
		endless := transport(func(r *http.Request) (*http.Response, error) {
			resp := response(r, 200, nil)
			resp.Body, resp.ContentLength = io.NopCloser(&spaces{t: t, most: most + 64<<10}), -1
			return resp, nil
		})
		_, err := call(t.Context(), offsocket(t, apiKey, endless))
		if e := typedError(t, err); !errors.Is(err, guard.ErrUnavailable) || !strings.Contains(e.Message, "longer than") {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := `{"data":[` + machineJSON + strings.Repeat(`,`+machineJSON, 99) + `]` + strings.Repeat(" ", 2<<20) + `}`
	all, err := collect(offsocket(t, apiKey, canned(200, []byte(long))), t.Context(), licentric.MachinesParams{})
	if err != nil || len(all) != 100 {
		t.Errorf("%d machines, %v", len(all), err)
	}
}

// spaces is a body without end, which must not be read much further than to most.
type spaces struct {
	t    *testing.T
	most int
	read int
}

func (s *spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	if s.read += len(p); s.read > 2*s.most {
		s.t.Errorf("%d bytes were read", s.read)
		return 0, io.ErrUnexpectedEOF
	}
	return len(p), nil
}

// The list goes round in no circle, gives what it has before an error, and asks no further than it
// is read.
func TestListIsWalked(t *testing.T) {
	pages := map[string]string{
		"":     `{"data":[{"id":"m-1"},{"id":"m-2"}],"pagination":{"nextCursor":"c 1&","hasMore":true}}`,
		"c 1&": `{"data":[],"pagination":{"nextCursor":"c2","hasMore":true}}`,
		"c2":   `{"data":[{"id":"m-3"}],"pagination":{"nextCursor":"c3","hasMore":false}}`,
	}
	var asked []string
	client := offsocket(t, apiKey, transport(func(r *http.Request) (*http.Response, error) {
		asked = append(asked, r.URL.Query().Get("cursor"))
		return response(r, 200, []byte(pages[asked[len(asked)-1]])), nil
	}))
	walk := func(most int) (ids string, failed error) {
		asked = nil
		for m, err := range client.Machines(t.Context(), licentric.MachinesParams{}) {
			if err != nil {
				return ids, err
			}
			if ids += m.ID; most == 1 {
				break
			}
		}
		return ids, nil
	}
	expect := func(ids, wantIDs string, err error, fails bool, requests int) {
		t.Helper()
		if ids != wantIDs || (err != nil) != fails || len(asked) != requests || fails && !errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("%s, %v after %d requests", ids, err, len(asked))
		}
	}
	ids, err := walk(0)
	expect(ids, "m-1m-2m-3", err, false, 3)
	ids, err = walk(1)
	expect(ids, "m-1", err, false, 1)
	pages["c2"] = `{"data":[{"id":"m-3"}],"pagination":{"nextCursor":"c 1&","hasMore":true}}`
	ids, err = walk(0)
	expect(ids, "m-1m-2", err, true, 3)
	pages["c2"] = `rubbish`
	ids, err = walk(0)
	expect(ids, "m-1m-2", err, true, 3)
	ids, err = walk(0)
	expect(ids, "m-1m-2", err, true, 3)
}

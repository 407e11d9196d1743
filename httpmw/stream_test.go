package httpmw_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/httpmw"
)

// lastEvent is the event that the streams here end with.
func lastEvent(p httpmw.Problem) []byte {
	return fmt.Appendf(nil, "event: denied\ndata: %s %d\n\n", p.Code, p.Status)
}

const eventOfDenial = "event: denied\ndata: DEVICE_REVOKED 403\n\n"

// eventStream is a handler that sends an event stream that holds text, and waits for its context's end.
func eventStream(text string, sent chan<- struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if w.Header().Get("Content-Type") == "" {
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		}
		_, _ = io.WriteString(w, text)
		w.(http.Flusher).Flush()
		sent <- struct{}{}
		<-r.Context().Done()
	}
}

// denied is what the client of such a stream got that was then denied.
func deniedStream(t *testing.T, p protocol, h func(sent chan<- struct{}) http.HandlerFunc, opts ...httpmw.Option) answer {
	t.Helper()
	sent := make(chan struct{}, 1)
	s := newStand(t, p, h(sent), opts...)
	got := s.ask(t, http.MethodGet, nil, nil)
	await(t, "the stream", sent)
	s.revoke(t)
	return await(t, "the end", got)
}

// An event stream ends with one more event between two events only, and never with a proper end.
func TestLastEvent(t *testing.T) {
	for _, c := range []struct {
		name, text string
		added      bool
	}{
		{"between events", "data: 1\n\n", true},
		{"between events, CRLF", "data: 1\r\n\r\n", true},
		{"between events, CR", "data: 1\r\r", true},
		{"before the first", "", true},
		{"after many", strings.Repeat("data: 1\n\n", 10_000), true},
		{"in an event", "data: 1\n\ndata: 2\n", false},
		{"in a line", "data: 1\n\ndata", false},
		{"in a field of CRLF", "data: 1\r\n\r\ndata: 2\r\n", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachProtocol(t, func(t *testing.T, p protocol) {
				t.Parallel()
				a := deniedStream(t, p, func(sent chan<- struct{}) http.HandlerFunc {
					return eventStream(c.text, sent)
				}, httpmw.WithLastEvent(lastEvent))
				wantCut(t, a)
				want := c.text
				if c.added {
					want += eventOfDenial
				}
				if a.text != want {
					t.Errorf("got %.200q, want %.200q", tailOf(a.text), tailOf(want))
				}
			})
		})
	}
}

func tailOf(s string) string { return s[max(0, len(s)-100):] }

// The end of what was written is put together from several writes, of whatever kind.
func TestLastEventAfterSmallWrites(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		t.Parallel()
		a := deniedStream(t, p, func(sent chan<- struct{}) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = w.Write([]byte("data: 1"))
				_, _ = w.Write(nil)
				_, _ = io.WriteString(w, "\n")
				_, _ = w.Write([]byte("\n"))
				_, _ = io.WriteString(w, "")
				sent <- struct{}{} // unflushed
				<-r.Context().Done()
			}
		}, httpmw.WithLastEvent(lastEvent))
		wantCut(t, a)
		if a.text != "data: 1\n\n"+eventOfDenial {
			t.Errorf("got %q", a.text)
		}
	})
}

// Nothing is added to an answer that is no plain event stream, nor where nothing is to be added.
func TestNoLastEvent(t *testing.T) {
	header := func(name, value string) func(http.Header) { return func(h http.Header) { h.Set(name, value) } }
	for _, c := range []struct {
		name   string
		header func(http.Header)
		event  func(httpmw.Problem) []byte
	}{
		{"another type", header("Content-Type", "text/plain"), lastEvent},
		{"no type at all", header("Content-Type", "/"), lastEvent},
		{"encoded", header("Content-Encoding", "br"), lastEvent},
		{"of a length", header("Content-Length", "1000"), lastEvent},
		{"no event", func(http.Header) {}, func(httpmw.Problem) []byte { return nil }},
		{"no option", func(http.Header) {}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachProtocol(t, func(t *testing.T, p protocol) {
				t.Parallel()
				var opts []httpmw.Option
				if c.event != nil {
					opts = append(opts, httpmw.WithLastEvent(c.event))
				}
				a := deniedStream(t, p, func(sent chan<- struct{}) http.HandlerFunc {
					return func(w http.ResponseWriter, r *http.Request) {
						c.header(w.Header())
						eventStream("data: 1\n\n", sent)(w, r)
					}
				}, opts...)
				wantCut(t, a)
				if a.text != "data: 1\n\n" {
					t.Errorf("got %q", a.text)
				}
			})
		})
	}
}

// A compressed stream is not added to, and what arrived of it can be read.
func TestNoLastEventInACompressedStream(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		t.Parallel()
		sent := make(chan struct{}, 1)
		s := newStand(t, p, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, "data: 1\n\n")
			_ = z.Flush()
			w.(http.Flusher).Flush()
			sent <- struct{}{}
			<-r.Context().Done()
			if err := z.Close(); err == nil {
				t.Error("the rest could be written after the denial")
			}
		}, httpmw.WithLastEvent(lastEvent))
		got := s.ask(t, http.MethodGet, nil, nil)
		await(t, "the stream", sent)
		s.revoke(t)
		a := await(t, "the end", got)
		wantCut(t, a)
		if a.text != "data: 1\n\n" { // the client has decompressed it
			t.Errorf("got %q", a.text)
		}
	})
}

// A client that does not read gets no event, and nobody waits for it for long.
func TestNoLastEventForAClientThatDoesNotRead(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		t.Parallel()
		var progress atomic.Int64
		over := make(chan error, 1)
		event := bytes.Repeat([]byte("data: 0123456789\n\n"), 1<<10)
		s := newStand(t, p, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			over <- again(&progress, func() error {
				_, err := w.Write(event)
				return err
			})
		}, httpmw.WithLastEvent(lastEvent))
		released := make(chan struct{})
		got := s.ask(t, http.MethodGet, nil, released)
		standstill(t, &progress)
		s.revoke(t)
		wantDenied(t, await(t, "the write", over), guard.CodeDeviceRevoked)
		close(released)
		a := await(t, "the end", got)
		wantCut(t, a)
		if strings.Contains(a.text, "denied") {
			t.Errorf("got %q at the end", tailOf(a.text))
		}
	})
}

// The last event tells of the denial what the answer would.
func TestLastEventKnowsTheProblem(t *testing.T) {
	problems := make(chan httpmw.Problem, 1)
	a := deniedStream(t, protocols()[0], func(sent chan<- struct{}) http.HandlerFunc { return eventStream("data: 1\n\n", sent) },
		httpmw.WithLastEvent(func(p httpmw.Problem) []byte {
			problems <- p
			return nil
		}))
	wantCut(t, a)
	p := await(t, "the problem", problems)
	wantDenied(t, p.Err, guard.CodeDeviceRevoked)
	if p.Status != http.StatusForbidden || p.Code != "DEVICE_REVOKED" || p.RequestID == "" || p.RetryAfter != 0 {
		t.Errorf("problem = %+v", p)
	}
}

// A chunked upload whose answer is streamed back is cut in both directions.
func TestDeniedWhileStreamingBothWays(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		t.Parallel()
		var progress atomic.Int64
		over := make(chan error, 1)
		s := newStand(t, p, func(w http.ResponseWriter, r *http.Request) {
			if err := begin(w); err != nil {
				over <- err
				return
			}
			buf := make([]byte, 5)
			over <- again(&progress, func() error {
				if _, err := io.ReadFull(r.Body, buf); err != nil {
					return err
				}
				if _, err := w.Write(bytes.ToUpper(buf)); err != nil {
					return err
				}
				return http.NewResponseController(w).Flush()
			})
		})
		in, out := io.Pipe()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, in)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := s.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		buf := make([]byte, 5)
		for _, word := range []string{"hello", "there"} {
			_, _ = io.WriteString(out, word)
			if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != strings.ToUpper(word) {
				t.Fatalf("echo = %q, %v", buf, err)
			}
		}
		s.revoke(t)
		wantDenied(t, await(t, "the handler", over), guard.CodeDeviceRevoked)
		rest, err := io.ReadAll(resp.Body)
		wantCut(t, answer{status: resp.StatusCode, text: string(rest), err: err})
		_ = out.Close()
	})
}

// A chunked upload that is not denied arrives whole, trailer included.
func TestChunkedUpload(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		t.Parallel()
		s := newStand(t, p, func(w http.ResponseWriter, r *http.Request) {
			n, err := io.Copy(io.Discard, r.Body)
			fmt.Fprintf(w, "%d %v %s", n, err, r.Trailer.Get("Sum"))
		})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		in, out := io.Pipe()
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, in)
		if err != nil {
			t.Fatal(err)
		}
		r.Trailer = http.Header{"Sum": nil}
		go func() {
			for range 100 {
				_, _ = out.Write(make([]byte, 10_000))
			}
			r.Trailer.Set("Sum", "42")
			_ = out.Close()
		}()
		wantWhole(t, s.do(r, nil), "1000000 <nil> 42")
	})
}

// A trailer of the answer passes the wrapper.
func TestTrailerOfTheAnswer(t *testing.T) {
	eachProtocol(t, func(t *testing.T, p protocol) {
		t.Parallel()
		s := newStand(t, p, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "Sum")
			_, _ = io.WriteString(w, "text")
			w.(http.Flusher).Flush()
			w.Header().Set("Sum", "42")
			w.Header().Set(http.TrailerPrefix+"Late", "43")
		})
		resp := get(t, s.client, s.url)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if string(text) != "text" || err != nil || resp.Trailer.Get("Sum") != "42" || resp.Trailer.Get("Late") != "43" {
			t.Errorf("answer = %q, %v, trailer %v", text, err, resp.Trailer)
		}
	})
}

// One denial ends every stream of the device, and leaves those of others alone.
func TestDeniedWithManyStreams(t *testing.T) {
	const streams = 200
	const other = "worker:test:02"
	eachProtocol(t, func(t *testing.T, p protocol) {
		g, v := newGuard(t)
		v.Allow(other)
		sent, finish := make(chan struct{}, streams+1), make(chan struct{})
		h := httpmw.New(g, httpmw.FromHeader("X-Device"), httpmw.WithLastEvent(lastEvent))(
			http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = io.WriteString(w, "data: 1\n\n")
				w.(http.Flusher).Flush()
				sent <- struct{}{}
				select {
				case <-r.Context().Done():
				case <-finish:
				}
			}))
		s := &stand{guard: g, authority: v}
		s.url, s.client = serve(t, p, h)
		ask := func(id string) answer {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
			if err != nil {
				return answer{err: err}
			}
			r.Header.Set("X-Device", id)
			return s.do(r, nil)
		}
		answers := make([]answer, streams)
		var wg sync.WaitGroup
		for i := range answers {
			wg.Go(func() { answers[i] = ask(device) })
		}
		spared := make(chan answer, 1)
		go func() { spared <- ask(other) }()
		for range streams + 1 {
			await(t, "the streams", sent)
		}
		s.revoke(t)
		wg.Wait()
		for _, a := range answers {
			wantCut(t, a)
			if a.text != "data: 1\n\n"+eventOfDenial {
				t.Errorf("got %q", a.text)
			}
		}
		close(finish)
		wantWhole(t, await(t, "the other's", spared), "data: 1\n\n")
	})
}

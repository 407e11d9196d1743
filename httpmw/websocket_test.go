package httpmw_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/execguard/execguard/guard"
)

// dialWebSocket opens a WebSocket to the stand.
func (s *stand) dialWebSocket(t *testing.T) (context.Context, *websocket.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	c, resp, err := websocket.Dial(ctx, s.url, &websocket.DialOptions{HTTPClient: s.client}) //nolint:bodyclose // Dial's is never to be closed
	if err != nil {
		t.Fatalf("dialling: %v (%v)", err, resp)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	return ctx, c
}

// wantMessage wants an echo of text.
func wantMessage(t *testing.T, ctx context.Context, c *websocket.Conn, text string) {
	t.Helper()
	if err := c.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		t.Fatalf("writing: %v", err)
	}
	if _, got, err := c.Read(ctx); err != nil || string(got) != text {
		t.Fatalf("echo = %q, %v", got, err)
	}
}

// wantGone wants the other end to be gone, without the farewell that a proper end has.
func wantGone(t *testing.T, ctx context.Context, c *websocket.Conn) {
	t.Helper()
	_, _, err := c.Read(ctx)
	if err == nil || ctx.Err() != nil || websocket.CloseStatus(err) == websocket.StatusNormalClosure {
		t.Errorf("err = %v, want a connection that was cut", err)
	}
}

// echoMessages sends messages back until the WebSocket fails, and returns why.
func echoMessages(ctx context.Context, c *websocket.Conn) error {
	for {
		kind, text, err := c.Read(ctx)
		if err != nil {
			return err
		}
		if err := c.Write(ctx, kind, text); err != nil {
			return err
		}
	}
}

// accepting gives an accepted WebSocket to f.
func accepting(t *testing.T, opts *websocket.AcceptOptions, f func(ctx context.Context, c *websocket.Conn)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, opts)
		if err != nil {
			t.Errorf("accepting: %v", err)
			return
		}
		f(r.Context(), c)
	}
}

// A WebSocket echoes until the device is revoked; then both sides see its end.
func TestWebSocketEchoesUntilRevoked(t *testing.T) {
	for name, opts := range map[string]*websocket.AcceptOptions{
		"plain":      nil,
		"compressed": {CompressionMode: websocket.CompressionContextTakeover},
	} {
		t.Run(name, func(t *testing.T) {
			eachHijackable(t, func(t *testing.T, p protocol) {
				over, cause := make(chan error, 1), make(chan error, 1)
				s, told := observedStand(t, p, accepting(t, opts, func(ctx context.Context, c *websocket.Conn) {
					over <- echoMessages(ctx, c)
					cause <- context.Cause(ctx)
				}))
				ctx, c := s.dialWebSocket(t)
				for _, text := range []string{"one", strings.Repeat("two", 10_000), ""} {
					wantMessage(t, ctx, c, text)
				}
				told.want(t, guard.EventStarted)
				told.wantNone(t)
				s.revoke(t)
				if err := await(t, "the server's end", over); err == nil {
					t.Error("the server's end goes on")
				}
				wantDenied(t, await(t, "the cause", cause), guard.CodeDeviceRevoked)
				wantGone(t, ctx, c)
				told.want(t, guard.EventStopped)
			})
		})
	}
}

// A server that reads with a context of its own is cut off all the same, and told why.
func TestWebSocketWithAContextOfItsOwn(t *testing.T) {
	eachHijackable(t, func(t *testing.T, p protocol) {
		over := make(chan error, 1)
		s, _ := observedStand(t, p, accepting(t, nil, func(_ context.Context, c *websocket.Conn) {
			over <- echoMessages(context.Background(), c)
		}))
		ctx, c := s.dialWebSocket(t)
		wantMessage(t, ctx, c, "ping")
		s.revoke(t)
		wantDenied(t, await(t, "the server's end", over), guard.CodeDeviceRevoked)
		wantGone(t, ctx, c)
	})
}

// The run goes on after the handler has returned, while another goroutine uses the WebSocket, and ends
// with it: by a denial, by the server, by the client.
func TestWebSocketLeftBehind(t *testing.T) {
	const farewell = "bye"
	for name, c := range map[string]struct {
		end  func(t *testing.T, s *stand, ctx context.Context, c *websocket.Conn)
		kind guard.EventKind
	}{
		"denied": {func(t *testing.T, s *stand, ctx context.Context, c *websocket.Conn) {
			s.revoke(t)
			wantGone(t, ctx, c)
		}, guard.EventStopped},
		"the server closes": {func(t *testing.T, _ *stand, ctx context.Context, c *websocket.Conn) {
			if err := c.Write(ctx, websocket.MessageText, []byte(farewell)); err != nil {
				t.Error(err)
			}
			if _, _, err := c.Read(ctx); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
				t.Errorf("err = %v, want a proper end", err)
			}
		}, guard.EventFinished},
		"the client closes": {func(t *testing.T, _ *stand, _ context.Context, c *websocket.Conn) {
			if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
				t.Error(err)
			}
		}, guard.EventFinished},
		"the client vanishes": {func(t *testing.T, _ *stand, _ context.Context, c *websocket.Conn) {
			_ = c.CloseNow()
		}, guard.EventFinished},
	} {
		t.Run(name, func(t *testing.T) {
			eachHijackable(t, func(t *testing.T, p protocol) {
				returned, over := make(chan struct{}, 1), make(chan struct{})
				s, told := observedStand(t, p, accepting(t, nil, func(_ context.Context, c *websocket.Conn) {
					go func() {
						defer close(over)
						serveMessages(c, farewell)
					}()
					returned <- struct{}{}
				}))
				ctx, client := s.dialWebSocket(t)
				await(t, "the handler's return", returned)
				wantMessage(t, ctx, client, "ping")
				told.want(t, guard.EventStarted)
				told.wantNone(t)
				c.end(t, s, ctx, client)
				await(t, "the server's end", over)
				told.want(t, c.kind)
			})
		})
	}
}

// serveMessages sends messages back until the farewell, or the end.
func serveMessages(c *websocket.Conn, farewell string) {
	ctx := context.Background()
	defer func() { _ = c.CloseNow() }()
	for {
		kind, text, err := c.Read(ctx)
		if err != nil {
			return
		}
		if string(text) == farewell {
			_ = c.Close(websocket.StatusNormalClosure, "")
			return
		}
		if err := c.Write(ctx, kind, text); err != nil {
			return
		}
	}
}

// A panic after the upgrade closes the WebSocket.
func TestWebSocketWhoseHandlerPanics(t *testing.T) {
	eachHijackable(t, func(t *testing.T, p protocol) {
		s, told := observedStand(t, p, accepting(t, nil, func(context.Context, *websocket.Conn) { panic(http.ErrAbortHandler) }))
		ctx, c := s.dialWebSocket(t)
		wantGone(t, ctx, c)
		told.want(t, guard.EventStarted)
		told.want(t, guard.EventFinished)
	})
}

// A client whose device is refused learns why from the answer to its upgrade.
func TestWebSocketRefused(t *testing.T) {
	s, _ := observedStand(t, protocols()[0], accepting(t, nil, func(context.Context, *websocket.Conn) {
		t.Error("the handler was called")
	}))
	s.authority.Deny(device, guard.CodeDeviceRevoked)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, s.url, &websocket.DialOptions{HTTPClient: s.client}) //nolint:bodyclose // Dial's is never to be closed
	if err == nil {
		_ = c.CloseNow()
		t.Fatal("it was accepted")
	}
	text, err := io.ReadAll(resp.Body)
	wantProblem(t, answer{status: resp.StatusCode, header: resp.Header, text: string(text), err: err}, http.StatusForbidden, "DEVICE_REVOKED")
}

// A write to a client that does not read is released.
func TestWebSocketWhoseClientDoesNotRead(t *testing.T) {
	eachHijackable(t, func(t *testing.T, p protocol) {
		over, writing := make(chan error, 1), make(chan struct{})
		s, _ := observedStand(t, p, accepting(t, nil, func(_ context.Context, c *websocket.Conn) {
			close(writing)
			message := make([]byte, 1<<20)
			for {
				if err := c.Write(context.Background(), websocket.MessageBinary, message); err != nil {
					over <- err
					return
				}
			}
		}))
		_, _ = s.dialWebSocket(t)
		await(t, "the writes", writing)
		s.revoke(t)
		wantDenied(t, await(t, "the write", over), guard.CodeDeviceRevoked)
	})
}

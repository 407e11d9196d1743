package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/execguard/execguard/guard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// expectInOrder looks for one match after the other, each behind the one before.
func expectInOrder(t *testing.T, text string, patterns ...string) {
	t.Helper()
	rest := text
	for _, pattern := range patterns {
		at := regexp.MustCompile(pattern).FindStringIndex(rest)
		if at == nil {
			t.Fatalf("nothing matches %q where it should in:\n%s", pattern, text)
		}
		rest = rest[at[1]:]
	}
}

const denial = ` +DEVICE_REVOKED, request [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}, in flight `

func TestStory(t *testing.T) {
	var out bytes.Buffer
	if err := demonstrate(t.Context(), &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	expectInOrder(t, out.String(),
		`Talk +one\? yes, one\n`, `Talk +three\? yes, three\n`, `\(revoked\) +agent:demo:caller:01\n`,
		`\(ended\) +\S+ after`, `Talk`+denial+`true\n`, `its handler`+denial+`true\n`,
		`Ask +PermissionDenied +for agent:demo:caller:01 +execguard: DEVICE_REVOKED\n`, `Ask`+denial+`false\n`,
		`Ask +Unauthenticated +for nobody +execguard: NO_IDENTITY\n`, `Ask +OK +for agent:demo:colleague:01\n`,
		`Check +OK +for nobody\n`, `Watch +OK +for nobody\n`,
		`Talk +three\? yes, three\n`, `\(revoked\) +worker:demo:program:01\n`, `\(ended\) +\S+ after`, `Talk`+denial+`true\n`,
		`its handler +rpc error: code = Canceled`, `Ask`+denial+`false\n$`,
	)
}

// runnerFunc is a guard that does not do all that one should.
type runnerFunc func(ctx context.Context, deviceID string, fn func(context.Context) error) error

func (f runnerFunc) Run(ctx context.Context, deviceID string, fn func(context.Context) error) error {
	return f(ctx, deviceID, fn)
}

// tellWith tells the story with the guard that spoil makes of a good one.
func tellWith(ctx context.Context, t *testing.T, patience time.Duration, spoil func(g *guard.Guard) guard.Runner) (text string, err error) {
	t.Helper()
	org, err := register(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g, err := guard.New(org)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	defer org.Subscribe(g.Hint)()
	var out bytes.Buffer
	s := newStory(&out, org, spoil(g))
	err = s.tell(ctx, patience)
	for _, token := range s.tokens {
		if strings.Contains(out.String(), token) || err != nil && strings.Contains(err.Error(), token) {
			t.Errorf("a token was printed:\n%s\n%v", &out, err)
		}
	}
	return out.String(), err
}

// onlyFor spoils what a guard does for one device.
func onlyFor(device string, g *guard.Guard, spoilt runnerFunc) guard.Runner {
	return runnerFunc(func(ctx context.Context, id string, fn func(context.Context) error) error {
		if id == device {
			return spoilt(ctx, id, fn)
		}
		return g.Run(ctx, id, fn)
	})
}

// atStart asks before the start and never again, as most authentication does. After a while it has
// proven its point.
func atStart(g *guard.Guard, enough func()) runnerFunc {
	return func(ctx context.Context, id string, fn func(context.Context) error) error {
		if d, err := g.Validate(ctx, id); err != nil || !d.Allowed {
			return &guard.DeniedError{Decision: d}
		}
		defer time.AfterFunc(500*time.Millisecond, enough).Stop()
		return fn(ctx)
	}
}

// later stops what runs, and lets everything start.
func later(g *guard.Guard, _ func()) runnerFunc {
	return func(ctx context.Context, id string, fn func(context.Context) error) error {
		err := g.Run(ctx, id, fn)
		if denied := (*guard.DeniedError)(nil); errors.As(err, &denied) && !denied.InFlight {
			return fn(ctx)
		}
		return err
	}
}

func never(*guard.Guard, func()) runnerFunc {
	return func(context.Context, string, func(context.Context) error) error {
		return &guard.DeniedError{Decision: guard.Decision{Code: guard.CodeDeviceNotFound}}
	}
}

func TestGuardThatDoesNotDoItsWorkIsFoundOut(t *testing.T) {
	for name, test := range map[string]struct {
		device string
		spoil  func(g *guard.Guard, enough func()) runnerFunc
		says   string
	}{
		"the stream goes on":        {caller, atStart, "the stream ends: enough"},
		"the call is answered":      {caller, later, "nobody else's: PermissionDenied was expected"},
		"its own stream goes on":    {program, atStart, "its own calls are ended and refused: enough"},
		"its next call is made":     {program, later, "its own calls are ended and refused: Ask: a denial was expected, in flight false"},
		"somebody else is denied":   {colleague, never, "nobody else's: OK was expected"},
		"the stream does not begin": {caller, never, "the stream ends: talk: "},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			text, err := tellWith(ctx, t, time.Minute, func(g *guard.Guard) guard.Runner {
				return onlyFor(test.device, g, test.spoil(g, func() { cancel(errors.New("enough")) }))
			})
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want it to say %q:\n%s", err, test.says, text)
			}
		})
	}
}

func TestPatienceEndsTheStory(t *testing.T) {
	text, err := tellWith(t.Context(), t, time.Millisecond, func(g *guard.Guard) guard.Runner { return g })
	if err == nil || !strings.Contains(err.Error(), "something goes on that should have been ended") {
		t.Errorf("got %v after:\n%s", err, text)
	}
}

func TestInterruptEndsTheStory(t *testing.T) {
	for _, device := range []string{caller, program} {
		t.Run(device, func(t *testing.T) {
			ctx, interrupt := context.WithCancel(t.Context())
			var started atomic.Bool
			text, err := tellWith(ctx, t, time.Minute, func(g *guard.Guard) guard.Runner {
				return onlyFor(device, g, func(ctx context.Context, id string, fn func(context.Context) error) error {
					return g.Run(ctx, id, func(ctx context.Context) error {
						if !started.Swap(true) {
							interrupt()
						}
						return fn(ctx)
					})
				})
			})
			if !errors.Is(err, context.Canceled) || strings.Contains(text, "(revoked)   "+device) {
				t.Errorf("got %v after:\n%s", err, text)
			}
		})
	}
}

// The selectors are where a method could slip out of the guard.
func TestOnlyHealthIsLeftOut(t *testing.T) {
	for method, want := range map[string]bool{
		methodAsk: true, methodTalk: true, "/grpc.health.v1.Health2/Check": true, "/demo.Desk/grpc.health.v1.Health/": true,
		"": true, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": true,
		"/grpc.health.v1.Health/Check": false, "/grpc.health.v1.Health/Watch": false,
	} {
		t.Run(method, func(t *testing.T) {
			refused := errors.New("refused")
			unary := selectUnary(notHealth, func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
				return nil, refused
			})
			_, err := unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) { return "", nil })
			if (err == refused) != want {
				t.Errorf("unary: got %v, want it guarded: %t", err, want)
			}
			stream := selectStream(notHealth, func(any, grpc.ServerStream, *grpc.StreamServerInfo, grpc.StreamHandler) error {
				return refused
			})
			err = stream(nil, nil, &grpc.StreamServerInfo{FullMethod: method}, func(any, grpc.ServerStream) error { return nil })
			if (err == refused) != want {
				t.Errorf("stream: got %v, want it guarded: %t", err, want)
			}
		})
	}
}

// A service that is described by hand must also work where nobody intercepts its calls.
func TestDeskWithoutInterceptors(t *testing.T) {
	d := newDesk()
	address, stop, err := serve(t.Context(), grpc.NewServer(), d)
	if err != nil {
		t.Fatal(err)
	}
	s := &story{out: new(bytes.Buffer), began: time.Now(), desk: d, address: address}
	if err := s.with("nobody", func(c *grpc.ClientConn) error {
		talk, err := s.startTalk(t.Context(), c)
		if err != nil {
			return err
		}
		return errors.Join(talk.CloseSend(), ask(t.Context(), c), checkHealth(t.Context(), c), watchHealth(t.Context(), c))
	}); err != nil {
		t.Error(err)
	}
	if err := s.expectAnswers(1); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := s.with("nobody", func(c *grpc.ClientConn) error { return ask(t.Context(), c) }); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v of a server that is gone", err)
	}
}

func TestTokenIsNotPrinted(t *testing.T) {
	tokens := owners{}
	token := tokens.give(caller)
	if device, err := tokens.owner(t.Context(), token); device != caller || err != nil {
		t.Errorf("got %q, %v", device, err)
	}
	if device, err := tokens.owner(t.Context(), "x"+token); device != "" || err == nil || strings.Contains(err.Error(), token) {
		t.Errorf("got %q, %v", device, err)
	}
	if text := fmt.Sprintf("%v %+v %s", bearer(token), bearer(token), bearer(token)); strings.Contains(text, token) {
		t.Errorf("it prints %q", text)
	}
}

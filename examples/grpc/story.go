package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
)

// story is told in chapters, each of which shows one thing that grpcmw does, and fails where it
// does not do it. All of it happens, and is printed, on one goroutine; the desk has others.
type story struct {
	out     io.Writer
	began   time.Time
	org     *authority.Organisation
	guard   guard.Runner
	desk    *desk
	owners  owners
	tokens  map[string]string // device → token
	address string            // of the desk
}

func newStory(out io.Writer, org *authority.Organisation, g guard.Runner) *story {
	s := &story{out: out, began: time.Now(), org: org, guard: g, desk: newDesk(), owners: owners{}}
	s.tokens = map[string]string{caller: s.owners.give(caller), colleague: s.owners.give(colleague)}
	return s
}

// tell tells all chapters, up to one that does not go as it should.
func (s *story) tell(ctx context.Context, patience time.Duration) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Not a deadline: the server would be told of it, and end by itself what should be ended otherwise.
	defer time.AfterFunc(patience, func() { cancel(errors.New("something goes on that should have been ended")) }).Stop()
	address, stop, err := serve(ctx, newServer(s.guard, s.owners), s.desk)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	s.address = address
	s.sayf("(serving)", "%s", address)
	for _, chapter := range []struct {
		title string
		tell  func(ctx context.Context) error
	}{
		{"the caller of a stream is revoked, and the stream ends", s.streamIsEnded},
		{"from then on its calls are refused, and nobody else's", s.callIsRefused},
		{"a program is revoked, and its own calls are ended and refused", s.ownCallsAreEnded},
	} {
		fmt.Fprintf(s.out, "\n--- %s\n", chapter.title)
		err := chapter.tell(ctx)
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx) // whatever that has become of on its way through grpc
		}
		if err != nil {
			return fmt.Errorf("%s: %w", chapter.title, err)
		}
	}
	return nil
}

// sayf prints one line: the time gone by, what it is about, and the fact.
func (s *story) sayf(what, format string, args ...any) {
	line := fmt.Sprintf("%6.2fs  %-11s ", time.Since(s.began).Seconds(), what) + fmt.Sprintf(format, args...)
	fmt.Fprintln(s.out, strings.TrimRight(line, " "))
}

// revoke is somebody else, who has seen enough, and takes a moment to say so.
func (s *story) revoke(ctx context.Context, device string) (at time.Time, err error) {
	select {
	case <-time.After(50 * time.Millisecond):
	case <-ctx.Done():
		return at, context.Cause(ctx)
	}
	s.sayf("(revoked)", "%s", device)
	at = time.Now()
	_, err = s.org.Revoke(ctx, device)
	return at, err
}

// handlerEnd is how the talk has ended on the server's side.
func (s *story) handlerEnd(ctx context.Context) error {
	select {
	case err := <-s.desk.talks:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// with calls f with the connection of a device, or of somebody who has no token.
func (s *story) with(device string, f func(c *grpc.ClientConn) error) error {
	c, err := connect(s.address, s.tokens[device])
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // all that it was for is over
	return f(c)
}

// expectDenial is nil if err is the denial that the story tells of: it has the right status, names
// the code and the authority's request, and says whether the call was under way.
func (s *story) expectDenial(what string, err error, inFlight bool) error {
	denied, ok := grpcmw.FromError(err)
	switch {
	case !ok, denied.InFlight != inFlight, status.Code(err) != codes.PermissionDenied,
		denied.Decision.Code != guard.CodeDeviceRevoked, denied.Decision.RequestID == "":
		return fmt.Errorf("%s: a denial was expected, in flight %t, and not: %w", what, inFlight, err)
	}
	s.sayf(what, "%s, request %s, in flight %t", denied.Decision.Code, denied.Decision.RequestID, inFlight)
	return nil
}

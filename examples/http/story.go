package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/authority"
)

// story is told in chapters, each of which shows one thing that httpmw does, and fails where it
// does not do it. All of it happens, and is printed, on one goroutine; the market has others.
type story struct {
	out    io.Writer
	began  time.Time
	org    *authority.Organisation
	guard  guard.Runner
	market *market
	tokens map[string]string // device → token
	url    string            // of the market
}

func newStory(out io.Writer, org *authority.Organisation, g guard.Runner) *story {
	s := &story{out: out, began: time.Now(), org: org, guard: g}
	s.market, s.tokens = newMarket(trader, broker)
	return s
}

// tell tells all chapters, up to one that does not go as it should.
func (s *story) tell(ctx context.Context, patience time.Duration) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("something goes on that should have been cut"))
	defer cancel()
	url, stop, err := serve(ctx, s.market.routes(s.guard))
	if err != nil {
		return err
	}
	defer func() {
		cancel()
		err = errors.Join(err, stop())
	}()
	s.url = url
	s.sayf("(serving)", "%s", url)
	for _, chapter := range []struct {
		title string
		tell  func(ctx context.Context) error
	}{
		{"the caller of a stream is revoked, and the stream is cut", s.streamIsCut},
		{"from then on its requests are refused, and nobody else's", s.requestIsRefused},
		{"a program is revoked, and its own calls are cut and refused", s.downloadIsCut},
	} {
		fmt.Fprintf(s.out, "\n--- %s\n", chapter.title)
		if err := chapter.tell(ctx); err != nil {
			return fmt.Errorf("%s: %w", chapter.title, err)
		}
	}
	return nil
}

// sayf prints one line: the time gone by, what it is about, and the fact.
func (s *story) sayf(what, format string, args ...any) {
	line := fmt.Sprintf("%6.2fs  %-14s ", time.Since(s.began).Seconds(), what) + fmt.Sprintf(format, args...)
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

// call makes a request of the market, with the device's token where it has one.
func (s *story) call(ctx context.Context, c *http.Client, method, path, device string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, s.url+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	if token, ok := s.tokens[device]; ok {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return c.Do(r)
}

package guard_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/execguard/execguard/guard"
)

// guardedBody is an answer whose reader goes on when the call that fetched it has returned: the
// work begins in fetch and ends in Close.
type guardedBody struct {
	io.Reader
	ctx     context.Context
	session *guard.Session
}

// fetch begins to read a report under the guard.
func fetch(ctx context.Context, r guard.Runner, device string) (*guardedBody, error) {
	ctx, session, err := guard.Begin(ctx, r, device)
	if err != nil {
		return nil, err
	}
	return &guardedBody{strings.NewReader("page 1 page 2 page 3"), ctx, session}, nil
}

func (b *guardedBody) Read(p []byte) (int, error) {
	if err := guard.Checkpoint(b.ctx); err != nil {
		return 0, err
	}
	return b.Reader.Read(p)
}

// Close says what the work came to: an answer that was cut short does not look complete.
func (b *guardedBody) Close() error {
	b.session.End(nil)
	return b.session.Wait()
}

// An answer is read under a guard, first to its end, and then with a device that is revoked between
// two pages.
func ExampleBegin() {
	revoked := make(chan struct{})
	g, err := guard.New(guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) {
		select {
		case <-revoked:
			return guard.Decision{Code: guard.CodeDeviceRevoked, RequestID: "req-2"}, nil
		default:
			return guard.Decision{Allowed: true, Code: guard.CodeAllow, RequestID: "req-1"}, nil
		}
	}))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()

	for _, revoke := range []bool{false, true} {
		body, err := fetch(context.Background(), g, "worker:prod:report:01")
		if err != nil {
			fmt.Println(err)
			return
		}
		page := make([]byte, len("page 1 "))
		n, _ := io.ReadFull(body, page)
		fmt.Printf("%q\n", page[:n])
		if revoke {
			close(revoked)
			g.Hint("worker:prod:report:01")
			<-body.ctx.Done()
		}
		rest, err := io.ReadAll(body)
		fmt.Printf("%q %v\n", rest, err)
		err = body.Close()
		fmt.Println("closed:", err, errors.Is(err, guard.ErrDenied))
	}
	_, err = fetch(context.Background(), g, "worker:prod:report:01")
	fmt.Println(err)
	// Output:
	// "page 1 "
	// "page 2 page 3" <nil>
	// closed: <nil> false
	// "page 1 "
	// "" guard: device "worker:prod:report:01" stopped: DEVICE_REVOKED (request req-2)
	// closed: guard: device "worker:prod:report:01" stopped: DEVICE_REVOKED (request req-2) true
	// guard: device "worker:prod:report:01" refused: DEVICE_REVOKED (request req-2)
}

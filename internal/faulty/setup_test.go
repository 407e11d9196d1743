package faulty_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/internal/faulty"
)

// aWhile is far more than anything here takes, and less than the test's own time-out.
const aWhile = 20 * time.Second

const secret = "sk_test_0123456789"

// dialect is that of a service whose answers bear the id that stands in the path.
func dialect(own ...faulty.Answer) faulty.Dialect {
	return faulty.Dialect{
		DeviceID: func(q faulty.Question) string { return path.Base(q.Path) },
		Yes:      func(q faulty.Question) string { return `{"id":` + strconv.Quote(q.DeviceID) + `,"active":true}` },
		No:       func(q faulty.Question) string { return `{"id":` + strconv.Quote(q.DeviceID) + `,"active":false}` },
		Another:  func(q faulty.Question) string { return `{"id":` + strconv.Quote("not-"+q.DeviceID) + `,"active":true}` },
		Failure:  func(status int) string { return fmt.Sprintf(`{"status":%d}`, status) },
		Own:      own,
	}
}

// honest is what the service itself says of m-1.
const honest = `{"id":"m-1","active":true,"honest":true}`

// service answers about whatever stands in the path.
func service() http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Trace-Id", "trace-"+path.Base(r.URL.Path))
		_, _ = fmt.Fprintf(w, `{"id":%q,"active":true,"honest":true}`, path.Base(r.URL.Path))
	}
}

// start starts a server that ends with the test.
func start(t *testing.T, c faulty.Config) *faulty.Server {
	t.Helper()
	if c.Handler == nil {
		c.Handler = service()
	}
	if c.Dialect.Yes == nil {
		c.Dialect = dialect()
	}
	srv, err := faulty.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	})
	return srv
}

func inject(t *testing.T, srv *faulty.Server, name string) {
	t.Helper()
	if err := srv.Inject(name); err != nil {
		t.Fatal(err)
	}
}

func heal(t *testing.T, srv *faulty.Server) {
	t.Helper()
	if err := srv.Heal(); err != nil {
		t.Fatal(err)
	}
}

// answer is what a plain HTTP client gets, without any judgement of its own.
type answer struct {
	status int
	header http.Header
	body   string // at most the first 4 KiB
	size   int64  // of the whole body
	err    error  // of the request or of reading the body
}

// get asks and follows no redirect.
func get(ctx context.Context, srv *faulty.Server, target string) answer {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL()+target, http.NoBody)
	if err != nil {
		return answer{err: err}
	}
	return do(srv, request)
}

func do(srv *faulty.Server, request *http.Request) answer {
	client := *srv.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	response, err := client.Do(request)
	if err != nil {
		return answer{err: err}
	}
	defer response.Body.Close()
	var text strings.Builder
	n, err := io.Copy(&text, io.LimitReader(response.Body, 4<<10))
	if err == nil {
		var more int64
		more, err = io.Copy(io.Discard, response.Body)
		n += more
	}
	return answer{response.StatusCode, response.Header, text.String(), n, err}
}

// wantHonest fails the test unless the service itself answers.
func wantHonest(t *testing.T, srv *faulty.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), aWhile)
	defer cancel()
	if a := get(ctx, srv, "/machines/m-1"); a.err != nil || a.status != http.StatusOK || a.body != honest {
		t.Errorf("the honest answer is %d %q, %v", a.status, a.body, a.err)
	}
}

package httpmw

import (
	"errors"
	"net/http"
	"reflect"

	"github.com/execguard/execguard/guard"
)

// Option changes one setting of New. Transport takes none that has an effect yet.
type Option interface{ apply(c *config) }

type optionFunc func(c *config)

func (f optionFunc) apply(c *config) { f(c) }

type config struct {
	write     func(http.ResponseWriter, *http.Request, Problem)
	lastEvent func(Problem) []byte
}

// WithAnswer has write send the answer to a request that is refused, or stopped before anything
// was written. Cache-Control, Retry-After and WWW-Authenticate are in the header already; where write
// writes nothing, the default is sent. p.Err is for the server's own log and must not be sent. It is
// called on the request's goroutine, for several requests at once. The default is application/problem+json.
func WithAnswer(write func(w http.ResponseWriter, r *http.Request, p Problem)) Option {
	if write == nil {
		mistake("WithAnswer: the function is nil")
	}
	return optionFunc(func(c *config) { c.write = write })
}

// WithLastEvent has an event stream (text/event-stream) that is stopped end with the event that
// event returns, as it goes over the wire, its empty line included; nil: with none. It is sent
// between two events only, when the handler has returned, and may take a second, which a blocked write of
// the handler is given too before it is released. Then the connection is cut as ever, so that a client
// that knows nothing of it sees no proper end. There is none in an answer with a Content-Encoding or a
// Content-Length, nor where the writer has no deadlines. event is called on the request's goroutine, for
// several requests at once. The default is none.
func WithLastEvent(event func(p Problem) []byte) Option {
	if event == nil {
		mistake("WithLastEvent: the function is nil")
	}
	return optionFunc(func(c *config) { c.lastEvent = event })
}

func newConfig(who string, r guard.Runner, device DeviceFunc, opts []Option) config {
	switch {
	case isNil(r):
		mistake(who + ": the Runner is nil")
	case device == nil:
		mistake(who + ": the DeviceFunc is nil")
	}
	c := config{write: writeProblem}
	for _, o := range opts {
		if o == nil {
			mistake(who + ": an Option is nil")
		}
		o.apply(&c)
	}
	return c
}

// isNil finds a nil pointer in the interface too, such as the Guard of a New whose error was not looked at.
func isNil(r any) bool {
	v := reflect.ValueOf(r)
	return r == nil || (v.Kind() == reflect.Pointer || v.Kind() == reflect.Func) && v.IsNil()
}

// mistake reports an argument with which nothing can be guarded, as net/http does for a nil handler:
// when the program starts, where it cannot be overlooked.
func mistake(what string) {
	panic(errors.New("httpmw: " + what)) //nolint:forbidigo // the framework's own type has no error to return
}

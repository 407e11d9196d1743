package httpmw

import (
	"context"
	"errors"
	"net/http"

	"github.com/execguard/execguard/guard"
)

// Transport returns an http.RoundTripper that sends a request only under r, for the device that
// it stands for, and guards the call until the answer's body has been read to its end or closed. When
// the device is denied, the call is cut and its error, or that of reading the body, is the denial. Every
// hop of a redirect is a call of its own; what base repeats by itself is not. The call ends with the request's context
// too, that of a protocol that was switched to (101) included: it is closed then.
//
// Calls under a context that a Guard has handed to its Validator (guard.Validating) pass unguarded,
// so that the authority's own client, sharing this transport, does not wait for itself.
//
// Each call has a goroutine of its own until it is over. An error of device is returned as it is. The end
// of a body, and its Close, wait for the guard's observers. A request's body that is not in
// memory is read through the guard's, so that base does not see its type, and is closed when the call has to end,
// perhaps during a Read.
//
// base nil means http.DefaultTransport. Transport panics if r, device or an option is nil.
func Transport(r guard.Runner, device DeviceFunc, base http.RoundTripper, opts ...Option) http.RoundTripper {
	_ = newConfig("Transport", r, device, opts)
	if base == nil {
		base = http.DefaultTransport
	}
	return &transport{runner: r, device: device, base: base}
}

type transport struct {
	runner guard.Runner
	device DeviceFunc
	base   http.RoundTripper
}

// What a call came to whose transport did not return properly.
var (
	errPanicked = errors.New("httpmw: the transport panicked")
	errNothing  = errors.New("httpmw: the transport returned neither an answer nor an error")
)

// RoundTrip is http.RoundTripper's.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if guard.Validating(r.Context()) {
		return t.base.RoundTrip(r)
	}
	id, err := t.device(r)
	if err != nil {
		closeBody(r)
		return nil, err
	}
	ctx, session, err := guard.Begin(r.Context(), t.runner, id)
	if err != nil {
		closeBody(r)
		return nil, err
	}
	resp, err := t.send(ctx, session, r)
	if err != nil {
		return nil, outcome(session, err, err)
	}
	return watch(&answerBody{inner: resp.Body, ctx: ctx, session: session}, resp)
}

// send makes the call.
func (t *transport) send(ctx context.Context, session *guard.Session, r *http.Request) (*http.Response, error) {
	returned := false
	defer func() {
		if !returned {
			session.End(errPanicked)
		}
	}()
	resp, err := t.base.RoundTrip(withUpload(r.WithContext(ctx)))
	returned = true
	if err == nil && resp == nil {
		return nil, errNothing
	}
	if err == nil {
		resp.Request = r
	}
	return resp, err
}

// CloseIdleConnections is for http.Client.
func (t *transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// closeBody closes the body of a request that is not sent, as every RoundTripper has to.
func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
}

// outcome ends the session with what the work came to, and returns the denial, or else err.
func outcome(session *guard.Session, work, err error) error {
	session.End(work)
	if over := session.Wait(); isHalt(over) {
		return uncanceled(over)
	}
	return uncanceled(err)
}

// uncanceled is err, but for the stop of a run around the call's, by which its context has ended: who
// treats context.Canceled as harmless must not swallow that.
func uncanceled(err error) error {
	denied := (*guard.DeniedError)(nil)
	switch {
	case !errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &denied):
		return denied
	case errors.Is(err, guard.ErrClosed):
		return guard.ErrClosed
	default:
		return err
	}
}

package clerk

import (
	"context"
	"errors"
	"net/http"

	"github.com/execguard/execguard/guard/internal/httpapi"
	"github.com/execguard/execguard/guard/internal/strictjson"
)

// op is one call of the API, in words.
type op string

const (
	opList        op = "list machines"
	opCreate      op = "create machine"
	opGet         op = "get machine"
	opUpdate      op = "update machine"
	opDelete      op = "delete machine"
	opSecretKey   op = "get secret key"
	opRotate      op = "rotate secret key"
	opAddScope    op = "add scope"
	opRemoveScope op = "remove scope"
	opCreateToken op = "create token"
	opVerifyToken op = "verify token"
	opRevokeToken op = "revoke token"
)

// reads tells whether asking twice does no harm.
func (o op) reads() bool {
	return o == opList || o == opGet || o == opSecretKey || o == opVerifyToken
}

// longest is how many bytes of an answer are read.
func (o op) longest() int {
	if o == opList {
		return maxList
	}
	return maxBody
}

// send is the one path of every request. call asks the SDK; check says what is wrong with the object
// of a success, "" where nothing is. Only where both are content the SDK's result counts.
func send[T any](
	ctx context.Context, c *Client, x *exchange,
	call func(ctx context.Context) (T, error), check func(o strictjson.Object) string,
) (T, error) {
	var none T
	if c.closed.Load() {
		return none, &Error{Op: string(x.op), Reason: "the client is closed", undecided: true}
	}
	ctx, cancel := httpapi.Bound(ctx, c.timeout)
	defer cancel()
	result, err := call(x.in(ctx))
	if !x.read {
		return none, x.lost(ctx, err)
	}
	if fail := x.fail(); fail != nil {
		return none, fail
	}
	if wrong := check(x.object); wrong != "" {
		return none, x.nonsense(wrong)
	}
	if err != nil { // its text quotes the document
		return none, x.nonsense("a member is not of the type that it should be")
	}
	return result, nil
}

// fail judges what is the same for all calls: the status, and whether there is an object.
func (x *exchange) fail() error {
	switch {
	case x.status >= 300 && x.status < 400:
		return x.undecided("redirected; redirects are never followed")
	case x.malformed != nil:
		return x.nonsense("not the JSON that it should be: " + x.malformed.Error())
	case x.status >= http.StatusInternalServerError || x.status == http.StatusTooManyRequests:
		return x.undecided("")
	case x.status >= http.StatusBadRequest:
		return x.refusal()
	case !x.succeeded():
		return x.nonsense("not the status of a success")
	case x.object.Raw("errors") != nil:
		return x.nonsense("errors beside a success")
	}
	return nil
}

// succeeded tells whether the status is a success: of a read 200 alone, which is what permissions
// are made of.
func (x *exchange) succeeded() bool {
	return x.status == http.StatusOK || !x.op.reads() && x.status > http.StatusOK && x.status < 300
}

// refusal is the error of a status of 4xx. It has the service's own form, or it is a proxy's or a
// portal's, who cannot know.
func (x *exchange) refusal() error {
	fail := x.undecided("")
	if len(fail.Errors) == 0 {
		return x.nonsense("not an error as the service writes it")
	}
	fail.undecided = false
	return fail
}

// lost is the error of a request of which no answer came, or none to its end.
func (x *exchange) lost(ctx context.Context, err error) *Error {
	if err == nil {
		err = errors.New("no answer")
	}
	err = x.key.tame(x.key.secrets.Lost(ctx, err))
	return &Error{
		Op: string(x.op), Status: x.status, TraceID: x.trace(), RetryAfter: x.retryAfter,
		Reason: x.key.clean(err.Error()), undecided: true, cause: &cause{err},
	}
}

// undecided is the error of an answer that decides nothing.
func (x *exchange) undecided(reason string) *Error {
	return &Error{
		Op: string(x.op), Status: x.status, TraceID: x.trace(), Errors: x.problems(),
		RetryAfter: x.retryAfter, Reason: reason, undecided: true,
	}
}

// nonsense is the error of an answer that the service would not give.
func (x *exchange) nonsense(reason string) *BodyError {
	return &BodyError{
		Op: string(x.op), Status: x.status, TraceID: x.trace(), RetryAfter: x.retryAfter,
		ContentType: x.key.clean(x.contentType), Reason: reason,
	}
}

// trace is the service's own id of the request, or "".
func (x *exchange) trace() string {
	if text, _ := x.object.Text("clerk_trace_id"); len(text) > 0 {
		return x.key.clean(string(text))
	}
	return x.key.clean(x.headerTrace)
}

// problems are the service's errors; none where there is no list of them in the service's form.
func (x *exchange) problems() []Problem {
	entries, _ := x.object.Objects("errors", members()...)
	var all []Problem
	for _, entry := range entries {
		one := Problem{
			Code:        x.word(entry, "code"),
			Message:     x.word(entry, "message"),
			LongMessage: x.word(entry, "long_message"),
			Meta:        meta(entry.Raw("meta")),
		}
		if one.Code == "" && one.Message == "" {
			return nil
		}
		all = append(all, one)
	}
	return all
}

func (x *exchange) word(o strictjson.Object, name string) string {
	text, _ := o.Text(name)
	return x.key.clean(string(text))
}

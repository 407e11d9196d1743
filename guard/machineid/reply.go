package machineid

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/internal/httpapi"
	"github.com/execguard/execguard/guard/internal/strictjson"
)

// reply is an answer that was read to its end and holds one JSON object. The key is not in it.
// Where the answer holds anything else, object and raw are empty.
type reply struct {
	status     int
	retryAfter time.Duration
	object     strictjson.Object
	raw        []byte
}

// members are the names that decide something; in another case they make an answer invalid.
func members() []string {
	return []string{"allowed", "code", "request_id", "deviceId", "status", "error", "reason", "results"}
}

// understand parses doc into r and judges what is the same for all calls.
func (c *Client) understand(o op, r *reply, doc []byte) *Error {
	var malformed error
	r.object, malformed = strictjson.Parse(doc, members()...)
	if malformed == nil {
		// Only now: taking the key out could mend what Parse must refuse.
		var changed bool
		if r.raw, changed = c.secret.JSON(doc); changed {
			r.object, malformed = strictjson.Parse(r.raw)
		}
	}
	if malformed != nil {
		r.object, r.raw = strictjson.Object{}, nil
	}
	switch {
	case r.status >= 300 && r.status < 400:
		return r.undecided(o, "redirected; redirects are never followed")
	case r.status < 200 || r.status >= 500 || r.status == http.StatusTooManyRequests:
		return r.undecided(o, r.word("reason", "message"))
	case malformed != nil:
		return r.undecided(o, "the answer is not the JSON it should be: "+malformed.Error())
	}
	return nil
}

// word returns the first of the named members that is a string and not empty, as one line.
func (r *reply) word(names ...string) string {
	for _, name := range names {
		if text, _ := r.object.Text(name); len(text) > 0 {
			return httpapi.Tidy(string(text))
		}
	}
	return ""
}

// code returns the decision's code unchanged, or "" where it is missing or nothing that could be
// shown as it is.
func (r *reply) code() guard.Code {
	text, _ := r.object.Text("code")
	if string(text) == string(guard.CodeAllow) {
		return guard.CodeAllow // by far the most frequent, and without a copy
	}
	if httpapi.Tidy(string(text)) != string(text) {
		return ""
	}
	return guard.Code(text)
}

// Answer is the part that all results have in common.
type Answer struct {
	RequestID string          // the service's own; "" when it gave none
	Raw       json.RawMessage // the whole answer, but for the organisation key; nil when there was none
}

func (r *reply) answer() Answer { return Answer{RequestID: r.word("request_id"), Raw: r.raw} }

// text returns a string as the service wrote it, or "".
func text(o strictjson.Object, names ...string) string {
	for _, name := range names {
		if value, ok := o.Text(name); ok {
			return string(value)
		}
	}
	return ""
}

// textBody is a request body of one member, whose name needs no escapes.
func textBody(name, value string) []byte {
	body := make([]byte, 0, len(name)+len(value)+8)
	body = append(body, `{"`...)
	body = append(body, name...)
	body = append(body, `":`...)
	body = appendText(body, value)
	return append(body, '}')
}

// textsBody is a request body of one member, a list.
func textsBody(name string, values []string) []byte {
	body := append([]byte(`{"`), name...)
	body = append(body, `":[`...)
	for i, value := range values {
		if i > 0 {
			body = append(body, ',')
		}
		body = appendText(body, value)
	}
	return append(body, "]}"...)
}

// appendText appends a JSON string. Device ids by the default rule need no escapes; the rest is
// encoding/json's.
func appendText(body []byte, value string) []byte {
	if checkDeviceID(value) != nil {
		quoted, err := json.Marshal(value)
		if err != nil {
			return append(body, `""`...) // cannot be: every string has a JSON form
		}
		return append(body, quoted...)
	}
	body = append(body, '"')
	body = append(body, value...)
	return append(body, '"')
}

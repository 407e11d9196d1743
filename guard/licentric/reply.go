package licentric

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/execguard/execguard/guard/internal/httpapi"
	"github.com/execguard/execguard/guard/internal/strictjson"
)

// keyMember is the member that holds a licence key, in validate's request and in a licence.
const keyMember = "key"

// reply is an answer that was read to its end and holds one JSON object. No key is in it. Where
// the answer holds anything else, object and raw are empty.
type reply struct {
	op         op
	status     int
	retryAfter time.Duration
	object     strictjson.Object
	raw        []byte
}

// rootMembers are the names that decide something at the top of an answer; in another case they
// make it invalid, and so do the others one level down.
func rootMembers() []string {
	return append(validationMembers(), "data", "pagination", "error", "details", "requestId")
}

func validationMembers() []string {
	return []string{"valid", "code", "license", "machine", "entitlements"}
}

// understand parses doc into r and judges what is the same for all calls.
func (r *reply) understand(secrets httpapi.Secrets, doc []byte) *Error {
	malformed := r.parse(secrets, doc)
	switch {
	case r.status >= 300 && r.status < 400:
		return r.undecided("redirected; redirects are never followed")
	case r.status < 200 || r.status >= 500 || r.status == http.StatusTooManyRequests:
		return r.undecided(r.word("error"))
	case malformed != nil && !(r.status == http.StatusNoContent && len(doc) == 0):
		return r.undecided("the answer is not the JSON it should be: " + malformed.Error())
	}
	return nil
}

// parse reads doc and takes the secrets out. Both object and raw are empty where it cannot.
func (r *reply) parse(secrets httpapi.Secrets, doc []byte) error {
	object, err := strictjson.Parse(doc, rootMembers()...)
	if err != nil {
		return err
	}
	if key := licenseKey(object); key != "" && !secrets.In([]byte(key)) {
		secrets = secrets.With(key) // a key that we did not send is one nevertheless
	}
	// Only now: taking a key out could mend what Parse must refuse.
	clean, changed := secrets.JSON(doc)
	if changed {
		if object, err = strictjson.Parse(clean); err != nil {
			return err
		}
	}
	r.object, r.raw = object, clean
	return nil
}

// licenseKey returns the key of a licence that stands in an answer, "" where there is none.
func licenseKey(root strictjson.Object) string {
	data := below(root, "data")
	for _, license := range []strictjson.Object{below(root, "license"), below(data, "license"), data} {
		if key := text(license, keyMember); key != "" {
			return key
		}
	}
	return ""
}

// below returns the member that is an object, or one without members.
func below(o strictjson.Object, name string) strictjson.Object {
	object, err := strictjson.Parse(o.Raw(name))
	if err != nil {
		return strictjson.Object{}
	}
	return object
}

// word returns a member that is a string, as one line without a secret in it.
func (r *reply) word(name string) string {
	value, _ := r.object.Text(name)
	return httpapi.Tidy(string(value))
}

// Answer is the part that several results have in common.
type Answer struct {
	RequestID string          // the service's own; "" when it gave none
	Raw       json.RawMessage // the whole answer, but for the keys; nil when there was none
}

func (r *reply) answer() Answer { return Answer{RequestID: r.word("requestId"), Raw: r.raw} }

// absent tells whether a value is not there or null.
func absent(raw []byte) bool { return raw == nil || string(raw) == "null" }

// text returns a string as the service wrote it, or "".
func text(o strictjson.Object, name string) string {
	value, _ := o.Text(name)
	return string(value)
}

// when returns a time; the zero time where there is none.
func when(o strictjson.Object, name string) time.Time {
	at, _ := parseTime(text(o, name))
	return at
}

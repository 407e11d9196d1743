package authority

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
)

// maxBody holds a batch of 500 ids at their longest, with room for as many bad ones again.
const maxBody = 1 << 20 // bytes

// request is the body of any POST. What is not there, or null, stays nil, which is told apart
// from what is empty: an empty list of ids beside a scope was still meant as a list.
type request struct {
	deviceID  *string
	deviceIDs []string
	scope     *string
	plan      *string
}

// readRequest reads a POST's body. A body whose type is named must be JSON; one without a type
// is taken for JSON, because the custom header already keeps browsers' forms out.
func readRequest(w http.ResponseWriter, r *http.Request) (request, error) {
	if name := r.Header.Get("Content-Type"); name != "" {
		if media, _, err := mime.ParseMediaType(name); err != nil || media != "application/json" {
			return request{}, refuse(codeUnsupportedMedia)
		}
	}
	if r.Body == nil { // a request that no server has read; net/http's own always have one
		return request{}, refuse(codeInvalidJSON)
	}
	return decode(http.MaxBytesReader(w, r.Body, maxBody))
}

// decode reads one JSON object and nothing after it. Unknown fields are tolerated, for clients
// newer than this. Names match exactly and known ones come once: encoding/json's own matching
// takes another case and the last of several, so that two readers of one request could see two
// different devices in it.
func decode(body io.Reader) (request, error) {
	var in request
	dec := json.NewDecoder(body)
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return in, bodyError(err)
	}
	seen := make(map[string]bool, 4)
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return in, bodyError(err)
		}
		field, known := in.field(name)
		if err := dec.Decode(field); err != nil {
			return in, bodyError(err)
		}
		if s, _ := name.(string); known && seen[s] {
			return in, refuse(codeInvalidJSON)
		} else if known {
			seen[s] = true
		}
	}
	if _, err := dec.Token(); err != nil { // the closing brace
		return in, bodyError(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return in, bodyError(err)
	}
	return in, nil
}

// field is where the value of a name goes; that of an unknown name goes nowhere.
func (in *request) field(name json.Token) (target any, known bool) {
	switch name {
	case "deviceId":
		return &in.deviceID, true
	case "deviceIds":
		return &in.deviceIDs, true
	case "scope":
		return &in.scope, true
	case "plan":
		return &in.plan, true
	}
	return new(json.RawMessage), false
}

// bodyError tells too much from malformed from well-formed but of the wrong type.
func bodyError(err error) error {
	var tooLarge *http.MaxBytesError
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &tooLarge):
		return refuse(codeBodyTooLarge)
	case errors.As(err, &wrongType):
		return refuse(codeInvalidParams)
	}
	return refuse(codeInvalidJSON)
}

package authority

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/execguard/execguard/guard"
)

const (
	keyHeader    = "X-Org-Key"
	apiPrefix    = "/api/v1/"
	validateName = "devices/validate"
)

// endpoint is one call of the API.
type endpoint struct {
	name   string // the path below apiPrefix, sent as "handler"
	method string
	call   func(ctx context.Context, o *Organisation, in request) (any, error)
}

// verdict is the answer to a validate, also where the request could not be read: clients look
// at allowed first and must find it.
type verdict struct {
	Allowed   bool       `json:"allowed"`
	Code      guard.Code `json:"code"`
	RequestID string     `json:"request_id"`
	DeviceID  string     `json:"deviceId,omitzero"`
	Reason    string     `json:"reason,omitzero"`
	Error     string     `json:"error,omitzero"`
}

// failure is the answer to any other call that could not be carried out.
type failure struct {
	Status    string `json:"status"` // "error"
	Error     string `json:"error"`
	Handler   string `json:"handler,omitzero"`
	RequestID string `json:"request_id"`
}

// routes lists the API. A ServeMux would answer some paths with a redirect, and clients lose
// the body of a POST over one; here a path is known exactly as it is spelt or not at all.
func routes() map[string]endpoint {
	table := make(map[string]endpoint)
	for _, e := range []endpoint{
		{validateName, http.MethodPost, callValidate},
		{"devices/register", http.MethodPost, onDevice((*Organisation).Register)},
		{"devices/revoke", http.MethodPost, onDevice((*Organisation).Revoke)},
		{"devices/unrevoke", http.MethodPost, onDevice((*Organisation).Unrevoke)},
		{"devices/remove", http.MethodPost, onDevice((*Organisation).Remove)},
		{"devices/revoke_batch", http.MethodPost, callRevokeBatch},
		{"devices/unrevoke_batch", http.MethodPost, callUnrevokeBatch},
		{"devices/list", http.MethodGet, callList},
		{"usage", http.MethodGet, callUsage},
		{"billing/checkout", http.MethodPost, callCheckout},
	} {
		table[apiPrefix+e.name] = e
	}
	return table
}

// ServeHTTP answers MachineID's API, always with JSON. The key is looked at before the body is,
// so a stranger cannot make the authority read one. Bodies over 1 MiB are refused (413), types
// other than application/json too (415; none at all is taken for JSON, but curl -d names one),
// other methods get 405 and unknown paths 404. An answer to validate always holds allowed, code
// and request_id.
func (a *Authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e, known := a.routes[r.URL.Path]
	if !known {
		a.fail(w, e, refuse(codeNotFound))
		return
	}
	if r.Method != e.method {
		w.Header().Set("Allow", e.method)
		a.fail(w, e, refuse(codeMethodNotAllowed))
		return
	}
	out, err := a.serve(w, r, e)
	if err != nil {
		a.fail(w, e, err)
		return
	}
	write(w, a.status(out), out)
}

// serve finds out who asks, then what, and does it.
func (a *Authority) serve(w http.ResponseWriter, r *http.Request, e endpoint) (any, error) {
	keys := r.Header.Values(keyHeader)
	if len(keys) != 1 { // of two keys, which one speaks would be for a proxy to choose
		return nil, refuse(codeInvalidOrgKey)
	}
	o, err := a.Organisation(r.Context(), strings.TrimSpace(keys[0]))
	if err != nil {
		return nil, err
	}
	var in request
	if e.method == http.MethodPost {
		if in, err = readRequest(w, r); err != nil {
			return nil, err
		}
	}
	return e.call(r.Context(), o, in)
}

// status is the HTTP status of an answer: a batch is carried out, and 200, whatever became of
// its items.
func (a *Authority) status(out any) int {
	switch out := out.(type) {
	case verdict:
		if !out.Allowed {
			return a.denyStatus
		}
	case Result:
		return resultStatus(out.Status)
	}
	return http.StatusOK
}

// fail answers err with its code; what a store said stays in the process.
func (a *Authority) fail(w http.ResponseWriter, e endpoint, err error) {
	code, id := errorCode(err), newRequestID()
	if e.name != validateName {
		write(w, errorStatus(code), failure{Status: "error", Error: code, Handler: e.name, RequestID: id})
		return
	}
	v := verdict{Code: decisionCode(err), RequestID: id, Error: code}
	status := a.denyStatus
	if v.Code == guard.CodeInvalidDeviceID { // the request itself was wrong: no decision was made
		status = errorStatus(code)
	}
	write(w, status, v)
}

// write sends JSON that nobody may cache. Its error is the client's going away.
func write(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil { // a store's time that JSON has no form for; a verdict has no times
		status, text = http.StatusServiceUnavailable, []byte(`{"status":"error","error":"system_unavailable"}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n'))
}

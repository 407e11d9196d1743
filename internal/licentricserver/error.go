package licentricserver

import (
	"net/http"
	"time"
)

// The codes of errors. Only VALIDATION_ERROR is documented by name; clients have to go by the
// status.
const (
	codeValidation   = "VALIDATION_ERROR"
	codeMachineLimit = "MACHINE_LIMIT_EXCEEDED"
)

// apiError is an answer that is an error of the API.
type apiError struct {
	status     int
	code       string
	text       string
	details    []detail
	retryAfter time.Duration // 0 for none
}

// detail says what is wrong with one member of a request.
type detail struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

// refuse makes an error whose code is its status's.
func refuse(status int, text string) *apiError {
	return &apiError{status: status, code: errorCode(status), text: text}
}

// errorCode is the table of codes by status.
func errorCode(status int) string {
	switch status {
	case http.StatusBadRequest:
		return codeValidation
	case http.StatusUnauthorized:
		return "UNAUTHORIZED" //nolint:misspell // as services spell it
	case http.StatusForbidden:
		return "FORBIDDEN"
	case http.StatusNotFound:
		return "NOT_FOUND"
	case http.StatusMethodNotAllowed:
		return "METHOD_NOT_ALLOWED"
	case http.StatusConflict:
		return "CONFLICT"
	case http.StatusRequestEntityTooLarge:
		return "PAYLOAD_TOO_LARGE"
	case http.StatusUnsupportedMediaType:
		return "UNSUPPORTED_MEDIA_TYPE"
	case http.StatusUnprocessableEntity:
		return codeMachineLimit
	case http.StatusTooManyRequests:
		return "RATE_LIMITED"
	case http.StatusServiceUnavailable:
		return "SERVICE_UNAVAILABLE"
	}
	return "INTERNAL_ERROR"
}

// errorBody is an error in its two documented forms: with the request's id, and, in older copies
// of the service, with the HTTP status in its place.
type errorBody struct {
	Error     string   `json:"error"`
	Code      string   `json:"code"`
	Details   []detail `json:"details,omitempty"`
	RequestID string   `json:"requestId,omitempty"`
	Status    int      `json:"status,omitempty"`
}

// reply is what an error looks like on the wire.
func (e *apiError) reply(old bool) reply {
	body := errorBody{Error: e.text, Code: e.code, Details: e.details, RequestID: newID()}
	if old {
		body.RequestID, body.Status = "", e.status
	}
	out := reply{status: e.status, body: body, header: make(http.Header)}
	if e.retryAfter > 0 {
		out.header.Set("Retry-After", seconds(e.retryAfter))
	}
	return out
}

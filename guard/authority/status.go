package authority

import "net/http"

// errorStatus is the HTTP status of an API error. 401 is seen in the hosted service's
// templates and 400 for missing_params; the others are ours.
func errorStatus(code string) int {
	switch code {
	case codeInvalidOrgKey:
		return http.StatusUnauthorized
	case codeOrgNotFound, codeNotFound:
		return http.StatusNotFound
	case codeMethodNotAllowed:
		return http.StatusMethodNotAllowed
	case codeBodyTooLarge:
		return http.StatusRequestEntityTooLarge
	case codeUnsupportedMedia:
		return http.StatusUnsupportedMediaType
	case codeUnavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusBadRequest
}

// resultStatus is the HTTP status of a Result. 403 at the cap is published; that of a revoked
// device is known to be 400 or more.
func resultStatus(status string) int {
	switch status {
	case statusBlocked, statusRevoked:
		return http.StatusForbidden
	case statusNotFound:
		return http.StatusNotFound
	}
	return http.StatusOK
}

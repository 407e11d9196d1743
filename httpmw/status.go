package httpmw

import (
	"net/http"

	"github.com/execguard/execguard/guard"
)

// The words on the wire that are no guard.Code.
const (
	codeNoIdentity  guard.Code = "NO_IDENTITY"
	codeGuardClosed guard.Code = "GUARD_CLOSED"
	codeGuardStuck  guard.Code = "GUARD_STUCK"
)

// statusOf is the status that answers a denial. Once the handler was called, the request is over,
// whatever was wrong with the device's id.
func statusOf(code guard.Code, called bool) int {
	switch {
	case code == guard.CodeSystemUnavailable:
		return http.StatusServiceUnavailable
	case code == guard.CodeInvalidDeviceID && !called:
		return http.StatusBadRequest
	default:
		return http.StatusForbidden
	}
}

// documentation is where each type of a problem is explained, followed by the name of its paragraph.
const documentation = "https://pkg.go.dev/github.com/execguard/execguard/httpmw#hdr-"

// kind is what a problem's type and title are, one for each status: the paragraph of the package's
// documentation that explains it.
func kind(status int) (address, title string) {
	switch status {
	case http.StatusUnauthorized:
		return documentation + "No_identity", "The request does not show which device it comes from"
	case http.StatusBadRequest:
		return documentation + "Invalid_device_id", "No device can have this id"
	case http.StatusForbidden:
		return documentation + "Denied", "The device may not execute"
	default:
		return documentation + "Undecided", "Nobody could say whether the device may execute"
	}
}

package grpcmw

import (
	"google.golang.org/grpc/codes"

	"github.com/execguard/execguard/guard"
)

// The words on the wire that are no guard.Code.
const (
	codeNoIdentity  guard.Code = "NO_IDENTITY"
	codeGuardClosed guard.Code = "GUARD_CLOSED"
)

// phase is how far a call had come.
type phase string

const (
	phaseStart phase = "start" // its function was not called
	phaseRun   phase = "run"
)

// codeOf is the gRPC code of a denial. Once the call has begun it is over, whatever was wrong with
// the device's id.
func codeOf(code guard.Code, p phase) codes.Code {
	switch {
	case code == guard.CodeSystemUnavailable:
		return undecided(p)
	case code == guard.CodeInvalidDeviceID && p == phaseStart:
		return codes.InvalidArgument
	default:
		return codes.PermissionDenied
	}
}

// undecided is the gRPC code where nobody said no. Retry policies take Unavailable for an
// invitation, and what has begun is not to be done twice.
func undecided(p phase) codes.Code {
	if p == phaseStart {
		return codes.Unavailable
	}
	return codes.Aborted
}

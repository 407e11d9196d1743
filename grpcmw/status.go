package grpcmw

import (
	"errors"
	"slices"
	"strings"
	"time"
	"unicode"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/execguard/execguard/guard"
)

// What an ErrorInfo of ours is known by, and the keys of its metadata.
const (
	domain       = "execguard"
	keyRequestID = "request_id"
	keyPhase     = "phase"
)

// When to try again where the authority has not said so, and the longest that is believed: no
// guard.Decision says more.
const (
	retryAfter = 5 * time.Second
	longest    = 24 * time.Hour
)

// newStatus makes the error whose status says c and d's code, and nothing of what is inside.
func newStatus(c codes.Code, d guard.Decision, p phase, inside error) error {
	word := text(string(d.Code))
	info := &errdetails.ErrorInfo{Reason: word, Domain: domain, Metadata: map[string]string{keyPhase: string(p)}}
	if d.RequestID != "" {
		info.Metadata[keyRequestID] = text(d.RequestID)
	}
	details := []protoadapt.MessageV1{info}
	if c == codes.Unavailable {
		wait := d.RetryAfter
		if wait <= 0 {
			wait = retryAfter
		}
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(wait)})
	}
	s := status.New(c, "execguard: "+word)
	if with, err := s.WithDetails(details...); err == nil {
		s = with
	}
	return &statusError{status: s, inside: inside}
}

// longestText is how much of a word of the authority's is sent, or believed: a status travels in a header.
const longestText = 256

// text makes of a word of the authority's what can be sent, for protobuf takes only UTF-8, and what can
// be printed in one line.
func text(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r // which is that for what is no UTF-8
	}, s[:min(len(s), longestText)])
}

// FromError finds the denial in an error of a gRPC call: the guard's own where it was denied in this
// process, and otherwise what the status of a guarded server tells: the code, the request id, when
// to try again (5 s where the authority did not say), and whether the call had begun; the device's id is
// not on the wire, and DeviceID "" then. It returns false where there is no denial: for other
// errors, for a call without identity and for a guard that was closed.
func FromError(err error) (*guard.DeniedError, bool) {
	if denied := (*guard.DeniedError)(nil); errors.As(err, &denied) {
		return denied, true
	}
	s, ok := status.FromError(err)
	if !ok {
		return nil, false
	}
	return fromDetails(s.Details())
}

func fromDetails(details []any) (*guard.DeniedError, bool) {
	var denied *guard.DeniedError
	var wait time.Duration
	for _, detail := range details {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if denied == nil && detail.GetDomain() == domain {
				denied = fromInfo(detail)
			}
		case *errdetails.RetryInfo:
			wait = min(max(detail.GetRetryDelay().AsDuration(), 0), longest)
		}
	}
	if denied == nil {
		return nil, false
	}
	denied.Decision.RetryAfter = wait
	return denied, true
}

// fromInfo is the denial that an ErrorInfo of ours tells of; nil where it tells of none.
func fromInfo(info *errdetails.ErrorInfo) *guard.DeniedError {
	code := guard.Code(text(info.GetReason()))
	if slices.Contains([]guard.Code{"", guard.CodeAllow, codeNoIdentity, codeGuardClosed}, code) {
		return nil
	}
	return &guard.DeniedError{
		Decision: guard.Decision{Code: code, RequestID: text(info.GetMetadata()[keyRequestID])},
		InFlight: info.GetMetadata()[keyPhase] == string(phaseRun),
	}
}

package grpcmw_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
)

func packed(t testing.TB, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func info(domain, reason string, metadata ...string) *errdetails.ErrorInfo {
	i := &errdetails.ErrorInfo{Domain: domain, Reason: reason, Metadata: map[string]string{}}
	for ; len(metadata) > 0; metadata = metadata[2:] {
		i.Metadata[metadata[0]] = metadata[1]
	}
	return i
}

func TestFromErrorReadsTheWire(t *testing.T) {
	retry := func(d time.Duration) proto.Message { return &errdetails.RetryInfo{RetryDelay: durationpb.New(d)} }
	revoked := info("execguard", "DEVICE_REVOKED", "request_id", "r", "phase", "run")
	for name, c := range map[string]struct {
		details []proto.Message
		want    guard.DeniedError // nothing: no denial
	}{
		"a denial": {[]proto.Message{revoked}, guard.DeniedError{
			Decision: guard.Decision{Code: guard.CodeDeviceRevoked, RequestID: "r"}, InFlight: true,
		}},
		"among others": {[]proto.Message{&errdetails.LocalizedMessage{}, info("example.org", "X"), retry(time.Minute), revoked}, guard.DeniedError{
			Decision: guard.Decision{Code: guard.CodeDeviceRevoked, RequestID: "r", RetryAfter: time.Minute}, InFlight: true,
		}},
		"the first": {[]proto.Message{revoked, info("execguard", "PLAN_FROZEN")}, guard.DeniedError{
			Decision: guard.Decision{Code: guard.CodeDeviceRevoked, RequestID: "r"}, InFlight: true,
		}},
		"without metadata": {[]proto.Message{info("execguard", "A_CODE_OF_TOMORROW")}, guard.DeniedError{
			Decision: guard.Decision{Code: "A_CODE_OF_TOMORROW"},
		}},
		"in another phase": {[]proto.Message{info("execguard", "PLAN_FROZEN", "phase", "RUN")}, guard.DeniedError{
			Decision: guard.Decision{Code: guard.CodePlanFrozen},
		}},
		"a negative wait": {[]proto.Message{info("execguard", "SYSTEM_UNAVAILABLE"), retry(-time.Hour)}, guard.DeniedError{
			Decision: guard.Decision{Code: guard.CodeSystemUnavailable},
		}},
		"a wait of years": {[]proto.Message{info("execguard", "SYSTEM_UNAVAILABLE"), retry(1 << 62)}, guard.DeniedError{
			Decision: guard.Decision{Code: guard.CodeSystemUnavailable, RetryAfter: 24 * time.Hour},
		}},
		"a wait of nothing": {[]proto.Message{info("execguard", "SYSTEM_UNAVAILABLE"), &errdetails.RetryInfo{}}, guard.DeniedError{
			Decision: guard.Decision{Code: guard.CodeSystemUnavailable},
		}},
		"no details":       {nil, guard.DeniedError{}},
		"somebody else's":  {[]proto.Message{info("example.org", "DEVICE_REVOKED")}, guard.DeniedError{}},
		"no identity":      {[]proto.Message{info("execguard", "NO_IDENTITY")}, guard.DeniedError{}},
		"a closed guard":   {[]proto.Message{info("execguard", "GUARD_CLOSED")}, guard.DeniedError{}},
		"no reason":        {[]proto.Message{info("execguard", "")}, guard.DeniedError{}},
		"an ALLOW is none": {[]proto.Message{info("execguard", "ALLOW")}, guard.DeniedError{}},
	} {
		p := &spb.Status{Code: int32(codes.PermissionDenied), Message: "whatever"}
		for _, d := range c.details {
			p.Details = append(p.Details, packed(t, d))
		}
		plain := status.ErrorProto(p)
		for _, err := range []error{plain, fmt.Errorf("wrapped: %w", plain), errors.Join(errors.New("beside"), plain)} {
			got, ok := grpcmw.FromError(err)
			if ok != (c.want.Decision.Code != "") || ok && (got.Decision != c.want.Decision || got.InFlight != c.want.InFlight || got.DeviceID != "") || !ok && got != nil {
				t.Errorf("%s: %+v, %t", name, got, ok)
			}
		}
	}
}

// nothing is an error whose status is none.
type nothing struct{}

func (nothing) Error() string              { return "nothing" }
func (nothing) GRPCStatus() *status.Status { return nil }

func TestFromErrorFindsNothing(t *testing.T) {
	for _, err := range []error{
		nil, errors.New("plain"), context.Canceled, guard.ErrDenied, guard.ErrUnavailable, guard.ErrClosed, nothing{},
		status.Error(codes.PermissionDenied, "execguard: DEVICE_REVOKED"), uncomparable{"a"},
	} {
		if denied, ok := grpcmw.FromError(err); ok || denied != nil {
			t.Errorf("%v: %+v", err, denied)
		}
	}
}

// A denial of this process is returned as it is, with all that it knows, whatever it is wrapped in.
func TestFromErrorFindsTheGuardsOwn(t *testing.T) {
	own := &guard.DeniedError{DeviceID: device, Decision: guard.Decision{Code: guard.CodePlanFrozen, Reason: "unpaid"}}
	for _, err := range []error{own, fmt.Errorf("outside: %w", own), errors.Join(status.Error(codes.NotFound, ""), own)} {
		if denied, ok := grpcmw.FromError(err); !ok || denied != own {
			t.Errorf("%v: %+v, %t", err, denied, ok)
		}
	}
}

// Whatever comes over the wire, FromError says what is in it or that there is nothing.
func FuzzFromError(f *testing.F) {
	add := func(details ...*anypb.Any) {
		b, err := proto.Marshal(&spb.Status{Code: int32(codes.Unavailable), Message: "m", Details: details})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	good := packed(f, info("execguard", "DEVICE_REVOKED", "request_id", "r", "phase", "run"))
	wait := packed(f, &errdetails.RetryInfo{RetryDelay: &durationpb.Duration{Seconds: -1 << 63, Nanos: 1<<31 - 1}})
	add(good, wait)
	add(packed(f, info("execguard", "NO_IDENTITY")))
	add(&anypb.Any{TypeUrl: good.GetTypeUrl(), Value: []byte{0xff}}, good)
	add(&anypb.Any{TypeUrl: "type.googleapis.com/not.Known", Value: good.GetValue()})
	add(&anypb.Any{}, packed(f, wait))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := new(spb.Status)
		if proto.Unmarshal(b, p) != nil {
			return
		}
		denied, ok := grpcmw.FromError(status.ErrorProto(p))
		if ok != (denied != nil) {
			t.Fatalf("%v, %t", denied, ok)
		}
		if !ok {
			return
		}
		d := denied.Decision
		if d.Allowed || d.Code == "" || d.Code == guard.CodeAllow || d.RetryAfter < 0 || d.RetryAfter > 24*time.Hour {
			t.Fatalf("%+v", d)
		}
		if !errors.Is(denied, guard.ErrDenied) || denied.Error() == "" || codes.Code(p.GetCode()) == codes.OK {
			t.Fatalf("%v of %v", denied, p)
		}
	})
}

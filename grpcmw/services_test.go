package grpcmw_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/clerk"
	"github.com/execguard/execguard/guard/licentric"
)

// The words of Licentric and of Clerk, as their clients hand them on, walk over the same surfaces as
// the guard's own codes.

// wordsOfServices are the answers of the two services that are no ALLOW.
func wordsOfServices() (all []word) {
	for code, means := range licentricMeans {
		all = append(all, word{
			sent: means, says: means, http: refusal, grpc: refusalGRPC,
			by: "Licentric " + string(code), ask: licentricSays(200, fmt.Sprintf(`{"valid":false,"code":%q}`, code)),
		})
	}
	all = append(all,
		word{
			sent: "ENTITLEMENT_EXPIRED", says: "ENTITLEMENT_EXPIRED", http: refusal, grpc: refusalGRPC,
			by: "Licentric EXPIRED, which its policy would let go on", ask: licentricSays(200, `{"valid":true,"code":"EXPIRED"}`),
		},
		word{
			sent: "SYSTEM_UNAVAILABLE", says: "SYSTEM_UNAVAILABLE", http: unsure, grpc: unsureGRPC, invite: true, from: "lic-429",
			by: "Licentric with 429", ask: licentricSays(429, `{"error":"slow down","code":"RATE_LIMITED","requestId":"lic-429"}`),
		})
	for status, means := range map[int]guard.Code{401: "INVALID_ORG_KEY", 403: "INVALID_ORG_KEY", 404: "DEVICE_NOT_FOUND"} {
		all = append(all, word{
			sent: means, says: means, http: refusal, grpc: refusalGRPC, from: "trace-1",
			by: fmt.Sprint("Clerk with ", status), ask: clerkSays(status, `{"errors":[{"message":"no","long_message":"no","code":"x"}]}`),
		})
	}
	return append(all,
		word{
			sent: "DEVICE_REVOKED", says: "DEVICE_REVOKED", http: refusal, grpc: refusalGRPC, from: "trace-1",
			by: "Clerk without the scope", ask: clerkSays(200, `{"object":"machine","id":"mch_1","name":"one","scoped_machines":[]}`),
		},
		word{
			sent: "SYSTEM_UNAVAILABLE", says: "SYSTEM_UNAVAILABLE", http: unsure, grpc: unsureGRPC, invite: true, from: "trace-1",
			by: "Clerk with 429", ask: clerkSays(429, `{"errors":[{"message":"slow down","long_message":"","code":"too_many_requests"}]}`),
		})
}

// licentricMeans is every code that Licentric documents but VALID, in the guard's words.
var licentricMeans = map[licentric.Code]guard.Code{
	licentric.CodeExpired:              guard.CodeEntitlementExpired,
	licentric.CodeUsesExceeded:         guard.CodeEntitlementExpired,
	licentric.CodeEntitlementsMissing:  guard.CodeEntitlementExpired,
	licentric.CodeSuspended:            guard.CodePlanFrozen,
	licentric.CodeRevoked:              guard.CodePlanNotActive,
	licentric.CodeBanned:               guard.CodePlanNotActive,
	licentric.CodeFingerprintNotFound:  guard.CodeDeviceNotFound,
	licentric.CodeMachineLimitExceeded: guard.CodeDeviceNotFound,
	licentric.CodeHeartbeatRequired:    guard.CodeDeviceNotFound,
	licentric.CodeNotFound:             guard.CodeInvalidOrgKey,
}

// roundTrip is a transport without a network.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// service answers everything with the same.
func service(status int, body string) *http.Client {
	return &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		header := http.Header{"Content-Type": {"application/json"}, "Clerk-Trace-Id": {"trace-1"}, "Retry-After": {"7"}}
		if status < 429 {
			header.Del("Retry-After")
		}
		return &http.Response{
			StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
			Header: header, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
		}, nil
	})}
}

func licentricSays(status int, body string) guard.ValidatorFunc {
	client, err := licentric.New("", licentric.WithHTTPClient(service(status, body)))
	if err != nil {
		return guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) { return guard.Decision{}, err })
	}
	return client.Validator("a-licence-key-secret").Validate
}

// clerkSays asks about a machine of its own, for the scene's device is none of Clerk's.
func clerkSays(status int, body string) guard.ValidatorFunc {
	return func(ctx context.Context, deviceID string) (guard.Decision, error) {
		client, err := clerk.New("sk_test_secret", clerk.WithHTTPClient(service(status, body)))
		if err != nil {
			return guard.Decision{}, err
		}
		d, err := client.Validator(clerk.WithScope("mch_2")).Validate(ctx, "mch_1")
		if d.DeviceID != "" {
			d.DeviceID = deviceID
		}
		return d, err
	}
}

// The table of Licentric's codes is whole, and says of each what the client says.
func TestLicentricCodesAreAllThere(t *testing.T) {
	for code, means := range licentricMeans {
		if got := code.Guard(); got != means {
			t.Errorf("%s is %s to the client, want %s", code, got, means)
		}
	}
	for _, code := range constants(t, "../guard/licentric", "Code") {
		if _, ok := licentricMeans[licentric.Code(code)]; !ok && code != string(licentric.CodeValid) {
			t.Errorf("the table lacks %s", code)
		}
	}
	if all := wordsOfServices(); !slices.ContainsFunc(all, func(w word) bool { return w.by == "Licentric BANNED" }) || len(all) < 17 {
		t.Errorf("%d words", len(all))
	}
}

package chaos_test

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/execguard/execguard/internal/faulty"
)

// spoken is an ALLOW as MachineID sends it, but for the brace at its end.
const spoken = `{"allowed":true,"code":"ALLOW","request_id":"3d1f6a0c-0d0a-4b0e-8c39-5a2e7d9b4f10"`

// dialect is how the authority speaks when it is not itself that speaks: whatever comes of it, its
// request id is none that the authority has given, so that a run that starts on it is found out.
func dialect() faulty.Dialect {
	lie := func(name, body string) faulty.Answer { return faulty.Answer{Name: name, Body: faulty.Always(body)} }
	return faulty.Dialect{
		DeviceID: func(q faulty.Question) string {
			var about struct {
				DeviceID string `json:"deviceId"`
			}
			_ = json.Unmarshal(q.Body, &about) // nobody, where it does not say
			return about.DeviceID
		},
		Yes: faulty.Always(spoken + `}`),
		No:  faulty.Always(`{"allowed":false,"code":"DEVICE_REVOKED","request_id":"90b1c0de-64a5-4e7f-9f3b-2f6a1c7d8e21"}`),
		Another: func(q faulty.Question) string {
			return spoken + `,"deviceId":` + strconv.Quote("not-"+q.DeviceID) + `}`
		},
		Own: []faulty.Answer{
			lie("duplicate keys", `{"allowed":false,"allowed":true,"code":"DEVICE_REVOKED","code":"ALLOW","request_id":"x"}`),
			lie("keys in another case", `{"Allowed":true,"CODE":"ALLOW","Request_ID":"x"}`),
			lie("allowed as a string", `{"allowed":"true","code":"ALLOW","request_id":"x"}`),
			lie("allowed as 1", `{"allowed":1,"code":"ALLOW","request_id":"x"}`),
			lie("allowed as null", `{"allowed":null,"code":"ALLOW","request_id":"x"}`),
			lie("allowed missing", `{"code":"ALLOW","request_id":"x"}`),
			lie("code missing", `{"allowed":true,"request_id":"x"}`),
			lie("allowed with a deny code", `{"allowed":true,"code":"DEVICE_REVOKED","request_id":"x"}`),
			lie("denied with the code ALLOW", `{"allowed":false,"code":"ALLOW","request_id":"x"}`),
			lie("unknown code, allowed", `{"allowed":true,"code":"QUOTA_EXHAUSTED","request_id":"x"}`),
			{
				Name: "unknown code, denied", Code: "QUOTA_EXHAUSTED",
				Body: faulty.Always(`{"allowed":false,"code":"QUOTA_EXHAUSTED","request_id":"x"}`),
			},
			{
				Name: "429 with Retry-After in seconds", Status: http.StatusTooManyRequests, RetryAfter: time.Second,
				Header: http.Header{"Retry-After": {"1"}}, Body: faulty.Always(`{"error":"rate_limited"}`),
			},
			{
				Name: "503", Status: http.StatusServiceUnavailable,
				Body: faulty.Always(`{"allowed":false,"code":"SYSTEM_UNAVAILABLE","request_id":"x"}`),
			},
		},
	}
}

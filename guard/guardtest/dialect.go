package guardtest

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/execguard/execguard/internal/faulty"
)

// head is an ALLOW as MachineID sends it, but for the brace that ends it, and no is a denial.
const (
	head = `{"allowed":true,"code":"ALLOW","request_id":"5f0c7a52-9d0e-4c1b-8d1e-3f6a0e2b7c41"`
	no   = `{"allowed":false,"code":"DEVICE_REVOKED","request_id":"0c9be1d7-5b1b-4f0a-9a57-64f1f3b8a2de"}`
)

// dialect is how MachineID speaks.
func dialect() faulty.Dialect {
	return faulty.Dialect{
		DeviceID: deviceID,
		Yes:      faulty.Always(head + `}`),
		No:       faulty.Always(no),
		Another: func(q faulty.Question) string {
			return head + `,"deviceId":` + strconv.Quote("not-"+q.DeviceID) + `}`
		},
		Failure: failure,
		Own:     contradictions(),
	}
}

// contradictions are the answers that are JSON and no decision, and one that is new.
func contradictions() []faulty.Answer {
	says := func(name, body string) faulty.Answer { return faulty.Answer{Name: name, Body: faulty.Always(body)} }
	return []faulty.Answer{
		says("duplicate keys", `{"allowed":false,"allowed":true,"code":"DEVICE_REVOKED","code":"ALLOW"}`),
		says("keys in another case", `{"Allowed":true,"CODE":"ALLOW"}`),
		says("allowed as a string", `{"allowed":"true","code":"ALLOW"}`),
		says("allowed as 1", `{"allowed":1,"code":"ALLOW"}`),
		says("allowed as null", `{"allowed":null,"code":"ALLOW"}`),
		says("allowed missing", `{"code":"ALLOW"}`),
		says("code missing", `{"allowed":true}`),
		says("allowed with a deny code", `{"allowed":true,"code":"DEVICE_REVOKED"}`),
		says("denied with the code ALLOW", `{"allowed":false,"code":"ALLOW"}`),
		says("unknown code, allowed", `{"allowed":true,"code":"QUOTA_EXHAUSTED"}`),
		{Name: "unknown code, denied", Code: "QUOTA_EXHAUSTED", Body: faulty.Always(`{"allowed":false,"code":"QUOTA_EXHAUSTED"}`)},
		{Name: "503", Status: http.StatusServiceUnavailable, Body: faulty.Always(`{"allowed":false,"code":"SYSTEM_UNAVAILABLE"}`)},
	}
}

// deviceID is the device that a request's body names.
func deviceID(q faulty.Question) string {
	var body struct {
		DeviceID string `json:"deviceId"`
	}
	if json.Unmarshal(q.Body, &body) != nil {
		return ""
	}
	return body.DeviceID
}

// failure is the body of an error.
func failure(status int) string {
	switch status {
	case http.StatusTooManyRequests:
		return `{"error":"rate_limited"}`
	case http.StatusInternalServerError:
		return `{"error":"internal"}`
	default:
		return `{"error":"unavailable"}`
	}
}

package machineid_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/machineid"
	"github.com/google/go-cmp/cmp"
)

// batches answers batch requests in the service's form and remembers the ids of each.
type batches struct {
	asked  [][]string
	failAt int // the number of the request that fails, from 1; 0: none
}

func (b *batches) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct {
		DeviceIDs []string `json:"deviceIds"`
	}
	doc, _ := io.ReadAll(r.Body)
	if err := json.Unmarshal(doc, &body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	b.asked = append(b.asked, body.DeviceIDs)
	if len(b.asked) == b.failAt {
		answer(503, `{"error":"maintenance","request_id":"r-503"}`)(w, r)
		return
	}
	var items []string
	for _, id := range body.DeviceIDs {
		items = append(items, `{"deviceId":`+strconv.Quote(id)+`,"status":"revoked"}`)
	}
	answer(200, fmt.Sprintf(`{"status":"ok","request_id":"r-%d","results":[%s]}`, len(b.asked), strings.Join(items, ",")))(w, r)
}

func ids(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("agent-%04d", i)
	}
	return all
}

// bothBatches are the two calls that name many ids.
var bothBatches = map[string]func(*machineid.Client, context.Context, []string) (machineid.Batch, error){
	"devices/revoke_batch":   (*machineid.Client).RevokeBatch,
	"devices/unrevoke_batch": (*machineid.Client).UnrevokeBatch,
}

// Batches are split at 500 ids and joined again, in order.
func TestBatchIsSplit(t *testing.T) {
	for name, do := range bothBatches {
		for n, chunks := range map[int][]int{
			0: nil, 1: {1}, 499: {499}, 500: {500}, 501: {500, 1}, 1000: {500, 500}, 1203: {500, 500, 203},
		} {
			t.Run(fmt.Sprint(name, " ", n), func(t *testing.T) {
				service := &batches{}
				got, err := do(newClient(t, serve(t, service.ServeHTTP)), t.Context(), ids(n))
				if err != nil {
					t.Fatal(err)
				}
				var sizes []int
				for _, asked := range service.asked {
					sizes = append(sizes, len(asked))
				}
				if diff := cmp.Diff(chunks, sizes); diff != "" {
					t.Error(diff)
				}
				if len(got.Items) != n || len(got.Answers) != len(chunks) {
					t.Fatalf("%d items, %d answers", len(got.Items), len(got.Answers))
				}
				for i, id := range ids(n) {
					if want := (machineid.Item{DeviceID: id, Status: "revoked"}); got.Items[i] != want {
						t.Fatalf("item %d: %+v", i, got.Items[i])
					}
				}
				for i, one := range got.Answers {
					if one.RequestID != fmt.Sprintf("r-%d", i+1) || !json.Valid(one.Raw) {
						t.Errorf("answer %d: %s, %s", i, one.RequestID, one.Raw)
					}
				}
			})
		}
	}
}

// Equal ids are one, also where only white space tells them apart and across chunks; ids against
// the rule are not sent, and reported.
func TestBatchIsSifted(t *testing.T) {
	for name, do := range bothBatches {
		service := &batches{}
		given := append([]string{"", "a b", " agent-0001", "a b", "a\x01b", "x" + key}, ids(600)...)
		given = append(given, "agent-0000", "agent-0599\n", " ")
		got, err := do(newClient(t, serve(t, service.ServeHTTP)), t.Context(), given)
		if err != nil {
			t.Fatal(err)
		}
		if len(service.asked) != 2 || len(service.asked[0]) != 500 || len(service.asked[1]) != 100 {
			t.Errorf("%s: asked %v", name, service.asked)
		}
		want := []machineid.Item{
			{DeviceID: "", Status: "invalid", Error: "invalid_device_id"},
			{DeviceID: "a b", Status: "invalid", Error: "invalid_device_id"},
			{DeviceID: "a b", Status: "invalid", Error: "invalid_device_id"},
			{DeviceID: "x[redacted]", Status: "invalid", Error: "invalid_device_id"},
			{DeviceID: "agent-0001", Status: "revoked"},
			{DeviceID: "agent-0000", Status: "revoked"},
		}
		if diff := cmp.Diff(want, got.Items[:len(want)]); diff != "" || len(got.Items) != 604 {
			t.Errorf("%s: %d items, %s", name, len(got.Items), diff)
		}
		checkSecret(t, got)
	}
}

// When a later request fails, what is done is told beside the error, and nothing more is sent.
func TestBatchFailsHalfWay(t *testing.T) {
	for name, do := range bothBatches {
		service := &batches{failAt: 3}
		got, err := do(newClient(t, serve(t, service.ServeHTTP)), t.Context(), append(ids(2000), "?"))
		sameError(t, err, &machineid.Error{Op: name, Status: 503, Code: "maintenance", RequestID: "r-503"})
		if !errors.Is(err, guard.ErrUnavailable) || len(service.asked) != 3 {
			t.Errorf("%s: %v after %d requests", name, err, len(service.asked))
		}
		if len(got.Items) != 1001 || len(got.Answers) != 2 || got.Items[0].DeviceID != "?" || got.Items[1000].DeviceID != "agent-0999" {
			t.Errorf("%s: %d items, %d answers", name, len(got.Items), len(got.Answers))
		}
	}
}

// All that is wrong with an answer is told id by id.
func TestBatchItems(t *testing.T) {
	client := newClient(t, serve(t, answer(200, `{"status":"ok","results":[
		{"deviceId":"c","status":"not_found","error":"device_not_found"},
		{"deviceId":"a","status":"unrevoked"},
		{"deviceId":"stranger","status":"unrevoked"},
		{"deviceId":"b","status":"blocked","error":"device_limit_reached"},
		{"status":"unrevoked"}]}`)))
	got, err := client.UnrevokeBatch(t.Context(), []string{"a", "b", "c", "d"})
	want := []machineid.Item{
		{DeviceID: "a", Status: "unrevoked"},
		{DeviceID: "b", Status: "blocked", Error: "device_limit_reached"},
		{DeviceID: "c", Status: "not_found", Error: "device_not_found"},
		{DeviceID: "d", Error: "not_reported"},
	}
	if diff := cmp.Diff(want, got.Items); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
	for _, body := range []string{`{}`, `{"results":{}}`, `{"results":["a"]}`, `{"results":[{"deviceId":"a","deviceid":"b"}]}`} {
		got, err := newClient(t, serve(t, answer(200, body))).RevokeBatch(t.Context(), []string{"a"})
		sameError(t, err, &machineid.Error{Op: "devices/revoke_batch", Status: 200, Reason: "no list of results in the answer"})
		if len(got.Items) != 0 {
			t.Errorf("%s: %+v", body, got)
		}
	}
}

func TestBatchByScope(t *testing.T) {
	const all = `{"revokedCount":3,"unrevokedCount":2,"unrevokedSample":["a","b"],"reason":"at_cap","request_id":"r-8"}`
	client := newClient(t, serve(t, answer(200, all)))
	revoked, err := client.RevokeAllActive(t.Context())
	if err != nil || revoked.Count != 3 {
		t.Errorf("%+v, %v", revoked, err)
	}
	unrevoked, err := client.UnrevokeAllRevoked(t.Context())
	want := machineid.Batch{
		Count: 2, Sample: []string{"a", "b"}, Reason: "at_cap",
		Answers: []machineid.Answer{{RequestID: "r-8", Raw: []byte(all)}},
	}
	if diff := cmp.Diff(want, unrevoked); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
	client = newClient(t, serve(t, answer(403, `{"error":"forbidden"}`)))
	if got, err := client.RevokeAllActive(t.Context()); err == nil || got.Count != 0 || got.Answers != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

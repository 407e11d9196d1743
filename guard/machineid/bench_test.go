package machineid_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"
)

// BenchmarkValidate sets Validate beside the same request sent with net/http and read with
// encoding/json, as a program without this package might, to the same server in the same run.
// «deadline» is what a guard does: its context ends before the client's timeout.
func BenchmarkValidate(b *testing.B) {
	base := serve(b, answer(200, allow))
	b.Run("machineid", func(b *testing.B) {
		client := newClient(b, base)
		b.ReportAllocs()
		for b.Loop() {
			if d, err := client.Validate(b.Context(), device); err != nil || !d.Allowed {
				b.Fatal(d, err)
			}
		}
	})
	b.Run("machineid/deadline", func(b *testing.B) {
		client := newClient(b, base)
		ctx, cancel := context.WithTimeout(b.Context(), 9*time.Second)
		defer cancel()
		b.ReportAllocs()
		for b.Loop() {
			if d, err := client.Validate(ctx, device); err != nil || !d.Allowed {
				b.Fatal(d, err)
			}
		}
	})
	b.Run("net-http", func(b *testing.B) {
		client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
		b.Cleanup(client.CloseIdleConnections)
		b.ReportAllocs()
		for b.Loop() {
			if err := bare(b.Context(), client, base); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func bare(ctx context.Context, client *http.Client, base string) error {
	body, err := json.Marshal(map[string]string{"deviceId": device})
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/api/v1/devices/validate", bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("X-Org-Key", key)
	r.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	doc, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var answer struct {
		Allowed bool   `json:"allowed"`
		Code    string `json:"code"`
	}
	return json.Unmarshal(doc, &answer)
}

// BenchmarkDecide is what Validate costs beyond the transport.
func BenchmarkDecide(b *testing.B) {
	client := offline(b, canned(200, []byte(allow)))
	b.ReportAllocs()
	for b.Loop() {
		if d, err := client.Validate(b.Context(), device); err != nil || !d.Allowed {
			b.Fatal(d, err)
		}
	}
}

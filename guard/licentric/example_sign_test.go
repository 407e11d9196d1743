package licentric_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/licentric"
)

// sign writes a file of FormatCertificate for one machine. It belongs into a tool of whoever sells the program, beside the
// private key; the program has the public one.
func sign(key ed25519.PrivateKey, fingerprint string, from time.Time, life time.Duration) ([]byte, error) {
	from = from.UTC().Truncate(time.Second)
	payload, err := json.Marshal(map[string]any{
		"data": map[string]any{"id": "licence-42", "type": "licenses", "fingerprint": fingerprint},
		"meta": map[string]any{"issued": from, "expiry": from.Add(life), "ttl": int(life.Seconds())},
	})
	if err != nil {
		return nil, err
	}
	enc := base64.StdEncoding.EncodeToString(payload)
	sig := base64.StdEncoding.EncodeToString(ed25519.Sign(key, []byte("license/"+enc)))
	signed := fmt.Sprintf(`{"enc":"%s","sig":"%s","alg":"base64+ed25519"}`, enc, sig)
	body := base64.StdEncoding.EncodeToString([]byte(signed))
	return []byte("-----BEGIN LICENSE FILE-----\n" + body + "\n-----END LICENSE FILE-----\n"), nil
}

// A file needs no service: who has the private key signs one, and the machine that it is for runs by it.
func ExampleOffline_signed() {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	file, err := sign(private, "machine-7f3a9c", time.Now(), 14*24*time.Hour)
	if err != nil {
		fmt.Println(err)
		return
	}
	offline, err := licentric.Offline(file, licentric.FormatCertificate, public)
	if err != nil {
		fmt.Println(err)
		return
	}
	g, err := guard.New(offline)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	fmt.Println(g.Run(context.Background(), "machine-7f3a9c", func(context.Context) error {
		fmt.Println("works")
		return nil
	}))
	// Output:
	// works
	// <nil>
}

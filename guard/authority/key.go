package authority

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// The bounds keep a stranger from choosing how much the authority hashes, stores and sends.
const (
	keyPrefix = "org_"
	maxKey    = 256 // bytes
	maxID     = 128 // bytes, all of them ASCII
)

// digest splits the SHA-256 of a key in two: id finds the organisation, proof is compared in
// constant time. A look-up by the whole digest would leave nothing to compare, and how long an
// index takes to find something can tell how much of it was right. A plain hash is enough
// because keys are long and random; a salted one could not be looked up.
func digest(key string) (id, proof string, ok bool) {
	if len(key) <= len(keyPrefix) || len(key) > maxKey || !strings.HasPrefix(key, keyPrefix) {
		return "", "", false
	}
	for _, c := range []byte(key) {
		if c <= ' ' || c > '~' {
			return "", "", false
		}
	}
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:16]), hex.EncodeToString(sum[16:]), true
}

// canonical returns the id that a device is stored under. The hosted service publishes no
// rule; this one takes every form that it recommends and keeps ids fit for logs and URLs.
func canonical(deviceID string) (id string, ok bool) {
	id = strings.TrimSpace(deviceID)
	if id == "" || len(id) > maxID || strings.IndexByte("._:-", id[0]) >= 0 {
		return "", false
	}
	for _, c := range []byte(id) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
			strings.IndexByte("._:-", c) >= 0) {
			return "", false
		}
	}
	return id, true
}

// newRequestID is a version 4 UUID, as the hosted service sends them.
func newRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // documented never to fail
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

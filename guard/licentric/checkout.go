package licentric

import (
	"context"
	"errors"
	"strings"
	"time"
)

// The bounds that the service has for the life of a licence file.
const (
	shortestTTL = time.Hour
	longestTTL  = 90 * 24 * time.Hour
)

// CheckoutParams says what licence file is wanted.
type CheckoutParams struct {
	Fingerprint string        // of the machine that the file is for, 8 to 256 characters
	TTL         time.Duration // how long it may be used: whole seconds, an hour to 90 days; 0: the service's 14 days
}

// LicenseFile is a licence file, with which a machine may run offline.
type LicenseFile struct {
	Certificate []byte // the file, for Offline or VerifyFile; whether its format is one that they know they tell
	Answer
}

// Checkout returns a licence file for one machine. What is in the file, and whether it is any
// good, nobody has looked at: that is VerifyFile's part, on the machine that uses it. It needs an
// API key, and so belongs on a server of the vendor's customer, not on that machine.
func (c *Client) Checkout(ctx context.Context, licenseID string, params CheckoutParams) (LicenseFile, error) {
	q, fail := c.checkout(licenseID, params)
	if fail != nil {
		return LicenseFile{}, fail
	}
	r, fail := c.ask(ctx, q)
	if fail != nil {
		return LicenseFile{}, fail
	}
	file := text(below(r.object, "data"), c.paths.CertificateMember)
	if strings.TrimSpace(file) == "" {
		return LicenseFile{Answer: r.answer()}, r.undecided("no licence file in the answer")
	}
	return LicenseFile{Certificate: []byte(file), Answer: r.answer()}, nil
}

// checkout is the request, once params are found good.
func (c *Client) checkout(licenseID string, params CheckoutParams) (request, *Error) {
	q, fail := c.managed(opCheckout)
	if fail != nil {
		return q, fail
	}
	if q.id, fail = checkID(opCheckout, licenseID); fail != nil {
		return q, fail
	}
	if err := errors.Join(checkFingerprint(params.Fingerprint, q.secrets), checkTTL(params.TTL)); err != nil {
		return q, unasked(opCheckout, wordInvalid, err.Error())
	}
	body := map[string]any{"fingerprint": params.Fingerprint}
	if params.TTL > 0 {
		body["ttl"] = int64(params.TTL / time.Second)
	}
	q.body, fail = encode(opCheckout, body)
	return q, fail
}

func checkTTL(ttl time.Duration) error {
	if ttl == 0 || ttl >= shortestTTL && ttl <= longestTTL && ttl%time.Second == 0 {
		return nil
	}
	return errors.New("the TTL must be whole seconds from 1h to 2160h, or 0")
}

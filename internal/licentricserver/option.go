package licentricserver

import (
	"crypto/ed25519"
	"errors"
	"fmt"
)

// Variant is the form of the answer to validate, which the vendor has not published.
type Variant int

// The two forms that the documentation can be read as. All other answers stand in the documented
// envelope, whatever the variant.
const (
	Bare      Variant = iota // {"valid":true,"code":"VALID",…}
	Enveloped                // {"data":{"valid":true,"code":"VALID",…}}
)

// Option changes how New and Start build a service.
type Option interface{ apply(c *config) error }

type option func(c *config) error

func (o option) apply(c *config) error { return o(c) }

type config struct {
	variant   Variant
	objects   bool // entitlements are objects
	oldErrors bool
	noContent bool
	limits    bool
	plain     bool
	paths     Paths
	signer    ed25519.PrivateKey
}

// WithVariant picks the form of the answer to validate. The default is Bare.
func WithVariant(v Variant) Option {
	return option(func(c *config) error {
		if v != Bare && v != Enveloped {
			return fmt.Errorf("licentricserver: WithVariant(%d): neither Bare nor Enveloped", v)
		}
		c.variant = v
		return nil
	})
}

// WithEntitlementObjects has answers name entitlements as objects with a code. The default is
// strings.
func WithEntitlementObjects() Option {
	return option(func(c *config) error { c.objects = true; return nil })
}

// WithOldErrors has errors bear the HTTP status in the place of the request id, as older copies
// of the service do. The default is the request id.
func WithOldErrors() Option {
	return option(func(c *config) error { c.oldErrors = true; return nil })
}

// WithNoContent has deactivate and heartbeat answer 204 without a body. The default is 200 with
// the machine, and, where it is gone, the time of its deletion.
func WithNoContent() Option {
	return option(func(c *config) error { c.noContent = true; return nil })
}

// WithRateLimits enforces the documented limits: 60 validations and 10 activations a minute for
// one address, and 120 other calls a minute for one key. The default is no limit, since a test
// asks more in a minute than any customer does.
func WithRateLimits() Option {
	return option(func(c *config) error { c.limits = true; return nil })
}

// WithPlainHTTP has the server speak HTTP without TLS. The faults of TLS cannot be injected then.
// The default is HTTPS.
func WithPlainHTTP() Option {
	return option(func(c *config) error { c.plain = true; return nil })
}

// WithPaths moves calls to other paths, and renames members. The default is Paths{}.
func WithPaths(p Paths) Option {
	return option(func(c *config) error { c.paths = p.named(); return nil })
}

// WithSeed derives the first key that licence files are signed with from a seed of 32 bytes, so
// that its files are the same each time. The default is a random key.
func WithSeed(seed []byte) Option {
	return option(func(c *config) error {
		if len(seed) != ed25519.SeedSize {
			return fmt.Errorf("licentricserver: WithSeed: %d bytes, want %d", len(seed), ed25519.SeedSize)
		}
		c.signer = ed25519.NewKeyFromSeed(seed)
		return nil
	})
}

// configure applies the options in order.
func configure(opts []Option) (config, error) {
	c := config{paths: Paths{}.named()}
	for _, o := range opts {
		if o == nil {
			return config{}, errors.New("licentricserver: an option is nil")
		}
		if err := o.apply(&c); err != nil {
			return config{}, err
		}
	}
	return c, nil
}

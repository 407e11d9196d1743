package clerkserver

import (
	"fmt"
	"time"
)

// Option changes how New and Start build a service.
type Option interface{ apply(c *config) }

type option func(c *config)

func (o option) apply(c *config) { o(c) }

type config struct {
	deleteNull bool
	traceless  bool
	plain      bool
	verbatim   bool
	rate       int
	per        time.Duration
	rated      bool
}

// check tells a misuse by the option's name.
func (c *config) check() error {
	if c.rated && (c.rate < 1 || c.per <= 0) {
		return fmt.Errorf("clerkserver: WithRateLimit(%d, %v): want at least one request in a positive time", c.rate, c.per)
	}
	return nil
}

// WithDeleteNull has every DELETE that succeeds answer 200 with the body null in place of an
// object. The default is the object that Clerk's description of its API shows.
func WithDeleteNull() Option {
	return option(func(c *config) { c.deleteNull = true })
}

// WithoutTrace leaves out both the header Clerk-Trace-Id and the member clerk_trace_id. The
// default is a header on every answer, and the member in the errors of machines; the errors of
// tokens have none, as Clerk describes them.
func WithoutTrace() Option {
	return option(func(c *config) { c.traceless = true })
}

// WithRateLimit answers 429 with a Retry-After in whole seconds after so many requests, until
// the time that began with the first of them is over. Clerk's own limits are 1000 requests in
// 10 s, and 100 for instances in development. The default is no limit.
func WithRateLimit(requests int, per time.Duration) Option {
	return option(func(c *config) { c.rate, c.per, c.rated = requests, per, true })
}

// WithPlainHTTP has Start serve HTTP without TLS, for clients that cannot be told which
// certificate to trust. The faults of TLS cannot be injected then. The default is HTTPS.
func WithPlainHTTP() Option {
	return option(func(c *config) { c.plain = true })
}

// WithVerbatim has Start keep the header and the body of every request, for tests of what a
// client sends: see faulty.Request. The default is to keep neither.
func WithVerbatim() Option {
	return option(func(c *config) { c.verbatim = true })
}

package guardtest

import "github.com/execguard/execguard/guard/authority"

// Option changes how NewServer builds a Server.
type Option interface{ apply(c *config) }

type option func(c *config)

func (o option) apply(c *config) { o(c) }

type config struct {
	plan      authority.Plan
	authority []authority.Option
	plain     bool
}

// WithPlan gives the organisation a plan, and so a cap on active devices. The default is
// authority.PlanMax.
func WithPlan(p authority.Plan) Option {
	return option(func(c *config) { c.plan = p })
}

// WithAuthority hands options on to authority.New, such as authority.WithDenyStatus. The
// default is none.
func WithAuthority(opts ...authority.Option) Option {
	return option(func(c *config) { c.authority = append(c.authority, opts...) })
}

// WithPlainHTTP has the server speak HTTP without TLS, for clients that cannot be told which
// certificate to trust. The faults of TLS cannot be injected then. The default is HTTPS.
func WithPlainHTTP() Option {
	return option(func(c *config) { c.plain = true })
}

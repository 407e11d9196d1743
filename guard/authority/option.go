package authority

import (
	"errors"
	"fmt"
	"net/http"
)

// Option changes how New builds an Authority.
type Option interface{ apply(*config) }

// config is what the options have made of the defaults.
type config struct {
	store      Store
	denyStatus int
}

// option is the one implementation of Option, so that there is nothing to export.
type option func(*config)

func (o option) apply(c *config) { o(c) }

// WithStore keeps the organisations in s. Default: in memory, gone with the process.
func WithStore(s Store) Option {
	return option(func(c *config) { c.store = s })
}

// WithDenyStatus sets the HTTP status of a validate denial: 200, or any of 400 to 499. What
// the hosted service does is not published, so clients must be right under both. A request
// that cannot be read keeps the status of its own error. Default: 200.
func WithDenyStatus(status int) Option {
	return option(func(c *config) { c.denyStatus = status })
}

// check is run on the outcome of all options: of one given twice the last one counts. It names
// the option and the value that cannot be used.
func (c *config) check() error {
	if c.store == nil {
		return errors.New("authority: WithStore: the store is nil")
	}
	if c.denyStatus != http.StatusOK && (c.denyStatus < 400 || c.denyStatus > 499) {
		return fmt.Errorf("authority: WithDenyStatus: %d is neither 200 nor in 400 to 499", c.denyStatus)
	}
	return nil
}

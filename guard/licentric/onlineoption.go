package licentric

import (
	"fmt"
	"time"
)

// onlineConfig is what the options may change that Client.Validator alone has.
type onlineConfig struct {
	heartbeats bool          // they are demanded from the first question on
	period     time.Duration // between two; 0: usualPeriod
	expired    bool          // an expired licence may go on
}

// usualPeriod is how far apart heartbeats are unless told otherwise.
const usualPeriod = 5 * time.Minute

// WithHeartbeats sends a heartbeat for each device whose last one is older than period, whenever
// it is found valid: from the first question on, whether or not the service asks for it. Choose
// period well below what the policy demands, and a guard's interval below period, for a heartbeat
// is sent with a question or not at all. At least a second and at most a day. Default: heartbeats
// begin when the service asks for them, or shows that it knows of some, and are 5 minutes apart.
func WithHeartbeats(period time.Duration) ValidatorOption {
	return validatorOption(func(cfg *validatorConfig) error {
		if period < time.Second || period > 24*time.Hour {
			return fmt.Errorf("licentric: WithHeartbeats(%v): must be at least 1s and at most 24h", period)
		}
		cfg.heartbeats, cfg.period = true, period
		return nil
	})
}

// WithExpiredAccess gives up that an expired licence denies: where the policy is ALLOW_ACCESS, so
// that the service says EXPIRED together with "valid":true, the device is allowed, with EXPIRED as
// the Reason. Default: EXPIRED is a denial, whatever else is said.
func WithExpiredAccess() ValidatorOption {
	return validatorOption(func(cfg *validatorConfig) error {
		cfg.expired = true
		return nil
	})
}

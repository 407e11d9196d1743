package machineid

import (
	"context"
	"net/url"
	"strings"
	"time"

	"github.com/execguard/execguard/guard/internal/httpapi"
)

// Usage is the organisation's plan and how much of it is taken. What the service does not tell
// is zero.
type Usage struct {
	PlanTier        string    // "free", "pro", "scale" or "max"
	PlanState       string    // such as "active"
	AccessUntil     time.Time // when the plan ends; zero: the service names no end
	Limit           int       // how many devices may be active
	DevicesUsed     int       // how many are
	Remaining       int
	OverLimit       bool
	SoftGraceWindow bool
	Answer
}

// Checkout is where a plan can be paid.
type Checkout struct {
	URL string // always https
	Answer
}

// Usage returns the organisation's plan and how much of it is taken.
func (c *Client) Usage(ctx context.Context) (Usage, error) {
	r, err := c.ask(ctx, opUsage, nil)
	return r.usage(), err
}

// Checkout begins the purchase of a plan ("pro", "scale", "max") and returns the page where it is
// paid. It changes nothing until somebody pays there. An address that is not https is an error,
// for people type card numbers into it.
func (c *Client) Checkout(ctx context.Context, plan string) (Checkout, error) {
	plan = strings.TrimSpace(plan)
	if plan == "" {
		return Checkout{}, &Error{Op: string(opCheckout), Code: "missing_params", Reason: "the plan is blank"}
	}
	r, err := c.ask(ctx, opCheckout, textBody("plan", plan))
	result := Checkout{Answer: r.answer()}
	if err != nil {
		return result, err
	}
	page := text(r.object, "url", "checkoutUrl")
	if u, err := url.Parse(page); err != nil || u.Scheme != "https" || u.Host == "" || strings.Contains(page, httpapi.Redacted) {
		return result, r.undecided(opCheckout, "no https address in the answer")
	}
	result.URL = page
	return result, nil
}

// usage reads what Register and Usage have in common.
func (r *reply) usage() Usage {
	u := Usage{
		PlanTier:  text(r.object, "planTier"),
		PlanState: text(r.object, "planState"),
		Answer:    r.answer(),
	}
	u.AccessUntil, _ = time.Parse(time.RFC3339, text(r.object, "accessUntil"))
	u.Limit, _ = r.object.Int("limit")
	u.DevicesUsed, _ = r.object.Int("devicesUsed")
	u.Remaining, _ = r.object.Int("remaining")
	u.OverLimit, _ = r.object.Bool("overLimit")
	u.SoftGraceWindow, _ = r.object.Bool("softGraceWindow")
	return u
}

package authority

import (
	"context"
	"net/url"
)

// Checkout returns a link in the place of the hosted service's payment page. Nobody can pay
// there: .invalid is reserved never to resolve (RFC 2606), and Notice says so. The plan does
// not change by it; SetPlan does that. The free plan and unknown ones are refused.
func (o *Organisation) Checkout(ctx context.Context, plan Plan) (Checkout, error) {
	if _, err := o.load(ctx); err != nil {
		return Checkout{}, err
	}
	if plan.Limit() == 0 || plan == PlanFree {
		return Checkout{}, refuse(codeInvalidPlan)
	}
	// No id of the organisation, let alone its key: links end up in logs and histories.
	link := url.URL{
		Scheme: "https", Host: "checkout.invalid", Path: "/not-a-payment-page",
		RawQuery: url.Values{"plan": {string(plan)}}.Encode(),
	}
	return Checkout{
		Status: statusOK, Handler: "billing/checkout", Plan: plan, URL: link.String(),
		Notice: "not a payment page: this authority sells nothing; its operator sets the plan",
	}, nil
}

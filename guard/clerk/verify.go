package clerk

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	sdk "github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/m2m_token"
	"github.com/execguard/execguard/guard"
)

// VerifyToken asks the service about a token, and tells by its error whether the token is good now:
// nil where it is neither revoked nor expired and its end is to come (or is not, with
// WithEndlessTokens). A token that is not good is a *TokenError, beside the Token; one that the
// service does not know is an *Error of status 404 or another below 500. It does not look at scopes:
// who is let in by a token is VerifyMachine's question.
func (c *Client) VerifyToken(ctx context.Context, token string, opts ...CallOption) (Token, error) {
	if why := checkToken(token); why != "" {
		return Token{}, &TokenError{Reason: why}
	}
	q := c.cache.begin(token)
	defer c.cache.end(q)
	t, x, err := c.verify(ctx, token, c.reading(opts))
	if err != nil {
		if !errors.Is(aboutTheToken(err), guard.ErrUnavailable) {
			c.cache.refuse(q)
		}
		return Token{}, err
	}
	if why := c.notGood(t); why != "" {
		c.cache.refuse(q)
		return t, &TokenError{TraceID: x.trace(), Reason: why}
	}
	return t, nil
}

func (c *Client) verify(ctx context.Context, token string, r reading) (Token, *exchange, error) {
	t, x, err := read(ctx, c, r,
		func() *exchange { return &exchange{op: opVerifyToken, key: c.key.unlessShort(token)} },
		func(ctx context.Context) (*sdk.M2MToken, error) {
			return c.tokens.Verify(ctx, &m2m_token.VerifyParams{Token: token})
		}, wrongToken)
	if err != nil {
		return Token{}, x, err
	}
	return tokenOf(t), x, nil
}

// notGood says why nobody is let in by the token now, "" where somebody may be.
func (c *Client) notGood(t Token) string {
	switch {
	case t.Revoked:
		return "it was revoked"
	case t.Expired:
		return "it has expired"
	case t.ExpiresAt.IsZero() && !c.endless:
		return "it has no end"
	case !t.ExpiresAt.IsZero() && !time.Now().Before(t.ExpiresAt):
		return "its expiration has passed"
	}
	return ""
}

// VerifyMachine returns the machine that the token was made for, if the token is good now, as
// VerifyToken says, and our own machine (WithMachineID) stands in its scopes. It is what FromBearer
// of httpmw and grpcmw wants; whether that machine may run is then for a guard to ask.
//
// The error matches guard.ErrUnavailable where the service could not be asked, and so it does where
// the service does not take our key (401, 403) or WithMachineID is missing, for which the caller
// cannot be blamed. Any other error is a no: a *TokenError, or the service's refusal of the token (400,
// 404, 410, 422) as an *Error.
func (c *Client) VerifyMachine(ctx context.Context, token string) (machineID string, err error) {
	if c.own == "" {
		return "", mistake(opVerifyToken, "VerifyMachine needs WithMachineID").couldNotAsk()
	}
	if why := checkToken(token); why != "" {
		return "", &TokenError{Reason: why}
	}
	if c.closed.Load() || ctx.Err() != nil {
		return c.verifyMachine(ctx, token) // which says so, whatever is remembered
	}
	if machineID, ok := c.cache.find(token); ok {
		return machineID, nil
	}
	return c.verifyMachine(ctx, token)
}

// verifyMachine asks.
func (c *Client) verifyMachine(ctx context.Context, token string) (machineID string, err error) {
	q := c.cache.begin(token)
	defer c.cache.end(q)
	t, x, err := c.verify(ctx, token, c.reading(nil))
	if err != nil {
		if err = aboutTheToken(err); !errors.Is(err, guard.ErrUnavailable) {
			c.cache.refuse(q)
		}
		return "", err
	}
	why := c.notGood(t)
	if why == "" && !slices.Contains(t.Scopes, c.own) {
		why = "this machine is not in its scopes"
	}
	if why != "" {
		c.cache.refuse(q)
		return "", &TokenError{TraceID: x.trace(), Reason: why}
	}
	c.cache.put(q, t)
	return t.Subject, nil
}

// aboutTheToken is the error of a verification. A refusal that is not about the token, such as that of
// our own key, is no answer to the question.
func aboutTheToken(err error) error {
	refused := (*Error)(nil)
	if !errors.As(err, &refused) {
		return err
	}
	switch refused.Status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusGone, http.StatusUnprocessableEntity:
		return err
	}
	return refused.couldNotAsk()
}

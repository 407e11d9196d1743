package clerk

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	sdk "github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/m2m_token"
	"github.com/execguard/execguard/guard/internal/strictjson"
)

// TokenFormat is the form of a token.
type TokenFormat string

// The forms of a token. Both are verified by asking the service.
const (
	TokenOpaque TokenFormat = "opaque" // mt_…: RevokeToken ends it at once
	TokenJWT    TokenFormat = "jwt"    // eyJ…: cannot be revoked, only run out
)

// TokenParams are what CreateToken makes a token of.
type TokenParams struct {
	TTL    time.Duration   // 1 s to ten years, in whole seconds; 0: an hour. Always sent
	Format TokenFormat     // "": TokenOpaque
	Claims json.RawMessage // a JSON object that the token carries; nil: none
}

// Token is a machine-to-machine token as the service describes it.
type Token struct {
	ID        string   // mt_…, for RevokeToken
	Subject   string   // the machine that it was made for, mch_…
	Scopes    []string // the machines that it is good for
	Revoked   bool
	Expired   bool
	ExpiresAt time.Time       // UTC; zero: it has no end
	Claims    json.RawMessage // nil when it carries none
}

// CreatedToken is the outcome of CreateToken.
type CreatedToken struct {
	Token

	Secret Secret // what goes behind «Bearer»
}

// CreateToken makes a token for the machine whose secret key is machineSecret (ak_…, from Create,
// SecretKey or RotateSecretKey): the service lets nobody else, so this call sends that key and not
// the client's. It is sent once; a token whose answer is lost runs out by itself.
func (c *Client) CreateToken(ctx context.Context, machineSecret string, params TokenParams) (CreatedToken, error) {
	if why := params.wrong(machineSecret); why != "" {
		return CreatedToken{}, mistake(opCreateToken, why)
	}
	if params.TTL == 0 {
		params.TTL = time.Hour
	}
	format := string(params.Format)
	ask := &m2m_token.CreateParams{SecondsUntilExpiration: seconds(params.TTL), TokenFormat: unlessEmpty(format)}
	if params.Claims != nil {
		ask.Claims = &params.Claims
	}
	x := &exchange{op: opCreateToken, key: newCredential(machineSecret)}
	made, err := send(ctx, c, x, func(ctx context.Context) (*sdk.M2MTokenWithToken, error) {
		return c.tokens.Create(ctx, ask)
	}, func(o strictjson.Object) string { return join(wrongToken(o), wrongSecret(o, "token")) })
	if err != nil {
		return CreatedToken{}, err
	}
	return CreatedToken{Token: tokenOf(&made.M2MToken), Secret: newSecret(made.Token)}, nil
}

// RevokeToken ends an opaque token: it is no good from its next verification on, and this client
// forgets it where it remembers tokens. tokenID is the token's id and not the token itself. why is
// kept by the service; "" for none.
func (c *Client) RevokeToken(ctx context.Context, tokenID, why string) (Token, error) {
	if err := checkID(tokenID, tokenPrefix); err != nil {
		return Token{}, mistake(opRevokeToken, err.Error())
	}
	if wrong := wrongText("the reason", why, 0); wrong != "" {
		return Token{}, mistake(opRevokeToken, wrong)
	}
	// Afterwards, also for what was verified meanwhile, and whatever came of it: it may be done.
	defer c.cache.forget(func(t *remembered) bool { return t.tokenID == tokenID })
	x := &exchange{op: opRevokeToken, key: c.key}
	token, err := send(ctx, c, x, func(ctx context.Context) (*sdk.M2MToken, error) {
		return c.tokens.Revoke(ctx, tokenID, &m2m_token.RevokeParams{RevocationReason: unlessEmpty(why)})
	}, wantRevoked(tokenID))
	if err != nil {
		return Token{}, err
	}
	return tokenOf(token), nil
}

// wrong says why no token can be made so.
func (p TokenParams) wrong(machineSecret string) string {
	switch {
	case !strings.HasPrefix(machineSecret, "ak_") || checkToken(machineSecret) != "":
		return "a machine's secret key begins with ak_ and has no white space in it"
	case p.Format != "" && p.Format != TokenOpaque && p.Format != TokenJWT:
		return "the format is neither opaque nor jwt"
	}
	if p.Claims != nil {
		if _, err := strictjson.Parse(p.Claims); err != nil {
			return "the claims are no JSON object: " + err.Error()
		}
	}
	return wrongTTL(p.TTL)
}

// wantRevoked wants the token with that id, revoked.
func wantRevoked(tokenID string) func(o strictjson.Object) string {
	return func(o strictjson.Object) string {
		if why := wrongToken(o); why != "" {
			return why
		}
		if revoked, _ := o.Bool("revoked"); !revoked || !says(o, "id", tokenID) {
			return "it does not say that this token was revoked"
		}
		return ""
	}
}

// wrongToken says why o is no token. Nothing that decides may be missing: a token of which the
// service does not say whether it was revoked is not one that was not.
func wrongToken(o strictjson.Object) string {
	subject, _ := o.Text("subject")
	_, revoked := o.Bool("revoked")
	_, expired := o.Bool("expired")
	_, scopes := o.Texts("scopes")
	end, ends := integer(o, "expiration")
	switch {
	case o.Raw("object") != nil && !says(o, "object", kindOfToken):
		return "the object is not a token"
	case checkID(string(subject), machinePrefix) != nil:
		return "the subject is missing or no machine"
	case !revoked || !expired:
		return "revoked or expired is missing or not a boolean"
	case !scopes:
		return "the scopes are missing or not a list of texts"
	case string(o.Raw("expiration")) != null && (!ends || timeOf(end).IsZero()):
		return "the expiration is missing or not a time"
	}
	return ""
}

// tokenOf is the SDK's token as ours.
func tokenOf(t *sdk.M2MToken) Token {
	own := Token{ID: t.ID, Subject: t.Subject, Scopes: t.Scopes, Revoked: t.Revoked, Expired: t.Expired}
	if t.Expiration != nil {
		own.ExpiresAt = timeOf(*t.Expiration)
	}
	if len(t.Claims) > 0 && string(t.Claims) != null {
		own.Claims = t.Claims
	}
	return own
}

package clerk_test

import (
	"testing"

	"github.com/execguard/execguard/guard/clerk"
)

// S8: a token in a header of the answer is hidden as it is in the body.
func TestHeadersOfAnswersHideTokens(t *testing.T) {
	const odd = "0pen.sesame-0000111122223333-tail8y" // of no form that looks like a secret
	for status, body := range map[int]string{404: refusalOf("resource_not_found"), 200: "<html>", 503: "{}"} {
		client := offline(t, canned(status, body, "Clerk-Trace-Id", "for "+odd, "Content-Type", "text/"+odd))
		_, err := client.VerifyToken(t.Context(), odd)
		wantNoSecret(t, err)
	}
	client := offline(t, canned(200, aToken("null"), "Clerk-Trace-Id", "for "+odd))
	_, err := client.VerifyToken(t.Context(), odd)
	wantNoSecret(t, wantError[*clerk.TokenError](t, err))
}

package machineid

import (
	"fmt"
	"net/http"

	"github.com/execguard/execguard/guard/internal/httpapi"
)

// keyPrefix is how the service's keys begin.
const keyPrefix = "org_"

// keySource ends the messages of those who have no key yet.
const keySource = "; the key begins with " + keyPrefix + " and stands on the organisation's page at the service"

// secret is the organisation key. Where it is sent it comes out of a closure, which fmt cannot
// look into.
type secret struct {
	httpapi.Secrets
	header func(h http.Header) // puts the key where it belongs
}

// newSecret refuses a key that no header can carry.
func newSecret(key string) (secret, error) {
	if err := httpapi.CheckKey(key); err != nil {
		return secret{}, fmt.Errorf("machineid: the organisation key %w%s", err, keySource)
	}
	value := []string{key}
	return secret{
		Secrets: httpapi.NewSecrets(key),
		header:  func(h http.Header) { h["X-Org-Key"] = value },
	}, nil
}

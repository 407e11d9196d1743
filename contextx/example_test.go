package contextx_test

import (
	"context"
	"fmt"

	"github.com/execguard/execguard/contextx"
)

// A key belongs into a package variable; its type is that of its values.
func ExampleNewKey() {
	tenant := contextx.NewKey[string]("tenant")

	ctx := tenant.With(context.Background(), "acme")
	fmt.Println(tenant.From(ctx))
	_, ok := tenant.From(context.Background())
	fmt.Println(ok)
	other := contextx.NewKey[string]("tenant") // another key, whatever its name
	_, ok = other.From(ctx)
	fmt.Println(ok)
	// Output:
	// acme true
	// false
	// false
}

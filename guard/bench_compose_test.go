package guard_test

import (
	"context"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
)

// What All and Fallback add to the validators that they are made of, for one question.
func BenchmarkComposed(b *testing.B) {
	yes := guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) {
		return guard.Decision{Allowed: true, Code: guard.CodeAllow}, nil
	})
	no := guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) { return guard.Decision{}, errCable })
	ids := deviceIDs(1000)
	for name, v := range map[string]guard.Validator{
		"bare": yes, "all of one": guard.All(yes), "all of three": guard.All(yes, yes, yes),
		"fallback, online": guard.Fallback(yes, yes), "fallback, offline": guard.Fallback(no, yes),
	} {
		ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
		defer cancel()
		both(b, name, func(i int) { _, _ = v.Validate(ctx, ids[i%len(ids)]) })
	}
}

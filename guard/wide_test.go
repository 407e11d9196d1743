package guard

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// S3: an organisation's denial concerns every device at once. While the contexts of thousands of
// runs are being cancelled, no Checkpoint may say that all is well. Here that takes for ever,
// because somebody holds the lock of one device; which of the others have had their turn by then
// is left to chance, so there are twenty, none of which shares that lock.
func TestS3_CheckpointKnowsOfAnOrganisationsDenialAtOnce(t *testing.T) {
	g, err := New(ValidatorFunc(func(_ context.Context, id string) (Decision, error) {
		if strings.HasPrefix(id, "frozen") {
			return Decision{Code: CodePlanFrozen}, nil
		}
		return Decision{Allowed: true, Code: CodeAllow}, nil
	}), WithReuse(10e9))
	if err != nil {
		t.Fatal(err)
	}
	var runs sync.WaitGroup
	defer runs.Wait()
	defer func() { _ = g.Close() }()
	contexts := make(chan context.Context)
	frozen, others := elsewhere(g, "held", "frozen", 1)[0], elsewhere(g, "held", "other", 20)
	for _, id := range others {
		runs.Go(func() {
			_ = g.Run(t.Context(), id, func(ctx context.Context) error {
				contexts <- ctx
				<-ctx.Done()
				return nil
			})
		})
	}
	var ctxs []context.Context
	for range 20 {
		ctxs = append(ctxs, <-contexts)
	}
	if err := g.Run(t.Context(), "held", func(context.Context) error { return nil }); err != nil {
		t.Fatal(err)
	}
	held := g.registry.one("held")[0]
	held.stripe.mu.Lock()
	defer held.stripe.mu.Unlock()
	if d, err := g.Validate(t.Context(), frozen); d.Code != CodePlanFrozen || err != nil {
		t.Fatalf("Validate: %+v, %v", d, err)
	}
	for _, ctx := range ctxs {
		denied := (*DeniedError)(nil)
		if err := Checkpoint(ctx); !errors.As(err, &denied) || denied.Decision.Code != CodePlanFrozen {
			t.Errorf("Checkpoint is %v when the organisation is known to be frozen", err)
		}
	}
	// And nothing starts on what was held for reuse.
	for _, id := range others {
		err := g.Run(t.Context(), id, func(ctx context.Context) error {
			return Checkpoint(ctx)
		})
		if err != nil {
			t.Errorf("a device that is allowed anew: %v", err)
		}
	}
}

// elsewhere makes up n ids of devices whose lock is another than that of id.
func elsewhere(g *Guard, id, name string, n int) []string {
	var ids []string
	for i := 0; len(ids) < n; i++ {
		if other := fmt.Sprint(name, i); g.registry.stripe(other) != g.registry.stripe(id) {
			ids = append(ids, other)
		}
	}
	return ids
}

// lateContext has f called when its Err is asked for the last time before the start: after the answer.
type lateContext struct {
	context.Context

	n *int
	f func()
}

func (c lateContext) Err() error {
	if *c.n++; *c.n == 3 {
		c.f()
	}
	return c.Context.Err()
}

// The place of an organisation's denial in the order of things is drawn before it is made known, and
// somebody's request may be sent between the two. Its ALLOW is younger than the denial, so that by S5
// it stands; or else, the denial having been learnt only when it was made known, the start is refused
// with its code. It is refused SYSTEM_UNAVAILABLE, «the ALLOW ran out before the start».
func TestS5_AnOrganisationsDenialThatIsSlowToBeMadeKnown(t *testing.T) {
	g, err := New(ValidatorFunc(func(context.Context, string) (Decision, error) {
		return Decision{Allowed: true, Code: CodeAllow}, nil
	}), WithInterval(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	n := &denial{seq: g.seq.Add(1), err: &DeniedError{DeviceID: "a", Decision: Decision{Code: CodePlanFrozen}}} // device.deny, first half
	calls := 0
	err = g.Run(lateContext{t.Context(), &calls, func() { g.learnWide(n) }}, "b", func(context.Context) error { return nil }) // second half
	if denied := (*DeniedError)(nil); err != nil && (!errors.As(err, &denied) || denied.Decision.Code != CodePlanFrozen) {
		t.Errorf("Run: %v (Err was asked %d times)", err, calls)
	}
}

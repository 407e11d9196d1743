package guard_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
)

// benchStrict has every call validated, as is the default, by workers each of whom runs a device
// of his own: over loopback HTTP by an authority that is a process of its own, and in this
// process, beside what that validator takes alone.
func benchStrict(b *testing.B) {
	client := newWireClient(b)
	for _, workers := range []int{8, 64} {
		// Starts may have three quarters of the requests, and nobody is to wait for one here.
		g := benchGuard(b, client, guard.WithMaxRequests(max(workers*4/3+2, 64)))
		ids := deviceIDs(workers)
		b.Run(strconv.Itoa(workers), func(b *testing.B) {
			drive(b, workers, func(w int) error { return g.Run(context.Background(), ids[w], asksNothing) })
		})
	}
	allowing, id := new(inProcess), deviceIDs(1)[0]
	g := benchGuard(b, allowing)
	b.Run("in-process", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := g.Run(context.Background(), id, asksNothing); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("in-process-validator", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if d, err := allowing.Validate(context.Background(), id); !d.Allowed || err != nil {
				b.Fatal(d, err)
			}
		}
	})
}

// benchCoalesced has 64 workers run one and the same device, and every call backed by a question
// that was sent after it had begun.
func benchCoalesced(b *testing.B) {
	const workers = 64
	client := newWireClient(b)
	id := deviceIDs(1)[0]
	b.Run("64", func(b *testing.B) {
		g := benchGuard(b, client)
		drive(b, workers, func(int) error { return g.Run(context.Background(), id, asksNothing) })
	})
	b.Run("burst64", func(b *testing.B) {
		a := &burstAuthority{client: client, callers: workers}
		g := benchGuard(b, a)
		b.ReportAllocs()
		for b.Loop() {
			burst(b, a, g, id)
		}
		b.ReportMetric(float64(a.asked.Load())/float64(b.N), "asked/burst")
	})
}

// burstAuthority counts the questions, and gives its answers their numbers. It holds the first
// answer in a burst until all of its callers are there: what one costs who come at once is what
// is measured, and not whether the machine lets them.
type burstAuthority struct {
	client  *wireClient
	callers int64
	asked   atomic.Int64
	first   atomic.Pointer[chan struct{}] // of the burst that has not asked yet; closed when all have come
	come    atomic.Int64
}

// Validate is guard.Validator's.
func (a *burstAuthority) Validate(ctx context.Context, deviceID string) (guard.Decision, error) {
	number := a.asked.Add(1)
	d, err := a.client.Validate(ctx, deviceID)
	d.RequestID = strconv.FormatInt(number, 10)
	if all := a.first.Swap(nil); all != nil {
		const later = 2 * time.Millisecond // who has come has still to join the question
		select {
		case <-*all:
			<-time.After(later)
		case <-ctx.Done():
		}
	}
	return d, err
}

// burst has all callers run the device at once, none on an answer decided before he came.
func burst(b *testing.B, a *burstAuthority, g *guard.Guard, id string) {
	b.Helper()
	all := make(chan struct{})
	a.first.Store(&all)
	a.come.Store(0)
	var wg sync.WaitGroup
	for range a.callers {
		wg.Go(func() {
			before := a.asked.Load()
			if a.come.Add(1) == a.callers {
				close(all)
			}
			if err := g.Run(context.Background(), id, func(ctx context.Context) error { return askedAfter(ctx, before) }); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
}

// askedAfter looks at the number of the question that the run of ctx was allowed on.
func askedAfter(ctx context.Context, before int64) error {
	d, _ := guard.DecisionFrom(ctx)
	if n, err := strconv.ParseInt(d.RequestID, 10, 64); err != nil || n <= before {
		return fmt.Errorf("run on the answer to question %q, when %d had been asked before", d.RequestID, before)
	}
	return nil
}

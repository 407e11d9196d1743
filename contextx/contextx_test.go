package contextx_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/execguard/execguard/contextx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestKeysOfTheSameNameAndTypeAreDifferent(t *testing.T) {
	a, b := contextx.NewKey[int]("n"), contextx.NewKey[int]("n")
	ctx := a.With(b.With(t.Context(), 2), 1)
	if v, ok := a.From(ctx); v != 1 || !ok {
		t.Errorf("a = %d, %t", v, ok)
	}
	if v, ok := b.From(ctx); v != 2 || !ok {
		t.Errorf("b = %d, %t", v, ok)
	}
	if got := a.String(); got != "n" {
		t.Errorf("String() = %q", got)
	}
}

func TestAKeyThatIsNotThere(t *testing.T) {
	k := contextx.NewKey[*int]("p")
	if v, ok := k.From(t.Context()); v != nil || ok {
		t.Errorf("From = %v, %t", v, ok)
	}
	// A nil that was put there is there.
	if v, ok := k.From(k.With(t.Context(), nil)); v != nil || !ok {
		t.Errorf("From = %v, %t", v, ok)
	}
}

func TestMergeEndsWithEither(t *testing.T) {
	first, second := errors.New("first"), errors.New("second")
	for _, tc := range []struct {
		name string
		end  func(one, two context.CancelCauseFunc)
		want error
	}{
		{"the first", func(one, _ context.CancelCauseFunc) { one(first) }, first},
		{"the second", func(_, two context.CancelCauseFunc) { two(second) }, second},
		{"the first, then the second", func(one, two context.CancelCauseFunc) {
			one(first)
			synctest.Wait()
			two(second)
		}, first},
		{"the second, then the first", func(one, two context.CancelCauseFunc) {
			two(second)
			synctest.Wait()
			one(first)
		}, second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				one, endOne := context.WithCancelCause(t.Context())
				two, endTwo := context.WithCancelCause(t.Context())
				ctx, cancel := contextx.Merge(one, two)
				defer cancel()
				if ctx.Err() != nil {
					t.Fatal("ended before either")
				}
				tc.end(endOne, endTwo)
				synctest.Wait()
				if got := context.Cause(ctx); !errors.Is(got, tc.want) {
					t.Errorf("cause = %v, want %v", got, tc.want)
				}
				// A context derived from the merged one sees the same.
				child, stop := context.WithCancel(ctx)
				defer stop()
				if got := context.Cause(child); !errors.Is(got, tc.want) {
					t.Errorf("the child's cause = %v, want %v", got, tc.want)
				}
			})
		})
	}
}

func TestMergeOfOneThatHasEndedIsDoneAtOnce(t *testing.T) {
	over := errors.New("over")
	ended, end := context.WithCancelCause(t.Context())
	end(over)
	for _, pair := range [][2]context.Context{{t.Context(), ended}, {ended, t.Context()}} {
		ctx, cancel := contextx.Merge(pair[0], pair[1])
		if ctx.Err() == nil || !errors.Is(context.Cause(ctx), over) {
			t.Errorf("err = %v, cause = %v", ctx.Err(), context.Cause(ctx))
		}
		cancel()
	}
}

func TestMergeKeepsTheValuesOfTheFirst(t *testing.T) {
	k := contextx.NewKey[string]("k")
	ctx, cancel := contextx.Merge(k.With(t.Context(), "one"), k.With(t.Context(), "two"))
	defer cancel()
	if v, _ := k.From(ctx); v != "one" {
		t.Errorf("value = %q", v)
	}
}

func TestMergeHasTheEarlierDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plain := context.Background()
		soon, stop := context.WithTimeout(plain, time.Second)
		defer stop()
		late, stop := context.WithTimeout(plain, time.Minute)
		defer stop()
		for _, tc := range []struct {
			name     string
			one, two context.Context
			want     time.Duration // 0: none
		}{
			{"none", plain, plain, 0},
			{"the first has one", soon, plain, time.Second},
			{"the second has one", plain, soon, time.Second},
			{"the first's is earlier", soon, late, time.Second},
			{"the second's is earlier", late, soon, time.Second},
		} {
			ctx, cancel := contextx.Merge(tc.one, tc.two)
			at, ok := ctx.Deadline()
			if ok != (tc.want > 0) || ok && time.Until(at) != tc.want {
				t.Errorf("%s: deadline = %v, %t", tc.name, time.Until(at), ok)
			}
			cancel()
		}
		ctx, cancel := contextx.Merge(late, soon)
		defer cancel()
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
			t.Errorf("cause = %v", context.Cause(ctx))
		}
	})
}

func TestMergeLetsGo(t *testing.T) {
	one, endOne := context.WithCancelCause(t.Context())
	defer endOne(nil)
	ctx, cancel := contextx.Merge(t.Context(), one)
	cancel()
	if !errors.Is(context.Cause(ctx), context.Canceled) {
		t.Errorf("cause = %v", context.Cause(ctx))
	}
	endOne(errors.New("late"))
	if !errors.Is(context.Cause(ctx), context.Canceled) {
		t.Errorf("cause = %v", context.Cause(ctx))
	}
}

func TestCleanupOutlivesItsParentForAStatedTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := contextx.NewKey[string]("k")
		parent, end := context.WithCancel(k.With(t.Context(), "kept"))
		end()
		ctx, cancel := contextx.Cleanup(parent, 5*time.Second)
		defer cancel()
		if v, _ := k.From(ctx); v != "kept" || ctx.Err() != nil {
			t.Errorf("value = %q, err = %v", v, ctx.Err())
		}
		start := time.Now()
		<-ctx.Done()
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("ended after %v", took)
		}
	})
}

func ExampleMerge() {
	request, gone := context.WithCancelCause(context.Background())
	server := context.Background()
	ctx, cancel := contextx.Merge(server, request)
	defer cancel()

	gone(errors.New("the client has hung up"))
	<-ctx.Done()
	fmt.Println(context.Cause(ctx))
	// Output: the client has hung up
}

func ExampleCleanup() {
	work, stop := context.WithCancel(context.Background())
	stop()

	ctx, cancel := contextx.Cleanup(work, time.Second)
	defer cancel()
	fmt.Println(work.Err(), "/", ctx.Err())
	// Output: context canceled / <nil>
}

package asynqmw

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hibiken/asynq"
)

type several []string // an error that cannot be compared

func (several) Error() string { return "several" }

// same is ==, and where that would panic the type decides: but the type of both.
func TestSame(t *testing.T) {
	one, other := errors.New("one"), errors.New("one")
	for name, test := range map[string]struct {
		a, b error
		want bool
	}{
		"nothing":                      {nil, nil, true},
		"the same":                     {one, one, true},
		"another that says the same":   {one, other, false},
		"nothing and one":              {nil, one, false},
		"one and nothing":              {one, nil, false},
		"two that cannot be compared":  {several{"a"}, several{"a"}, true},
		"one that cannot, and another": {several{"a"}, one, false},
		"another, and one that cannot": {one, several{"a"}, false},
		"one that cannot, and nothing": {several{"a"}, nil, false},
		"nothing, and one that cannot": {nil, several{"a"}, false},
	} {
		if got := same(test.a, test.b); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// A task that was parked twice is known until it is back twice, and then there is nothing left of it.
func TestTaskParkedTwice(t *testing.T) {
	task := parkedTask{"default", "id"}
	r := &returns{parked: map[parkedTask]int{task: 2}}
	r.forget(task)
	if !r.knows(task) {
		t.Error("it is not known any longer")
	}
	r.forget(task)
	if r.knows(task) || len(r.parked) != 0 {
		t.Errorf("left: %v", r.parked)
	}
}

// A Runner that comes to its function when the wait is over is told so: nothing has run.
func TestRunnerThatComesTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		w := newWait(ctx, little)
		defer w.end()
		ran := 0
		run := w.during(func(ctx context.Context, _ string, fn func(context.Context) error) error { return fn(ctx) })
		work := func(context.Context) error {
			ran++
			return nil
		}
		if err := run(ctx, "", work); err != nil || ran != 1 || w.ctx.Err() != nil {
			t.Errorf("in time: %v, %d runs, and %v", err, ran, w.ctx.Err())
		}
		time.Sleep(time.Minute - 500*time.Millisecond) // the last second is for asynq
		if err := run(ctx, "", work); err != errTimeUp || ran != 1 || context.Cause(w.ctx) != errTimeUp {
			t.Errorf("too late: %v, %d runs, and %v", err, ran, context.Cause(w.ctx))
		}
	})
}

// The time before a deadline that asynq needs is a second, or a tenth of what there is.
func TestLittle(t *testing.T) {
	for left, want := range map[time.Duration]time.Duration{
		time.Hour: time.Second, 10 * time.Second: time.Second, 5 * time.Second: 500 * time.Millisecond, 0: 0,
	} {
		if got := little(left); got != want {
			t.Errorf("of %v: %v, want %v", left, got, want)
		}
	}
}

// Whoever waits for a place in the archive gets none when its wait is over, and has none to give back.
func TestNoPlaceInTheArchive(t *testing.T) {
	r := &returns{places: make(chan struct{}, 1)}
	give := r.takePlace(t.Context())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.takePlace(ctx)()
	if len(r.places) != 1 {
		t.Errorf("%d places are taken", len(r.places))
	}
	give()
	if len(r.places) != 0 {
		t.Error("the place was not given back")
	}
}

// A task that is given up is forgotten, and its place is free.
func TestTaskThatIsGivenUpIsForgotten(t *testing.T) {
	i := asynq.NewInspector(asynq.RedisClientOpt{Addr: "127.0.0.1:1"}) // where there is no Redis
	defer func() { _ = i.Close() }()
	task, given := parkedTask{"default", "id"}, 0
	r := newReturns(i, time.Hour)
	r.parked[task] = 1
	p := &parking{returns: r, parkedTask: task, place: func() { given++ }, log: loggerOf(t.Context())}
	p.putBack()
	if r.knows(task) || given != 1 {
		t.Errorf("known: %t, %d places given back", r.knows(task), given)
	}
}

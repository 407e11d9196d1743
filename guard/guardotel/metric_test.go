package guardotel_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

var (
	asked = []string{"execguard.decisions", "execguard.validate.duration"}
	ran   = []string{"execguard.runs", "execguard.run.overruns", "execguard.run.stop.duration"}
)

func TestMetrics_OfADecision(t *testing.T) {
	for _, code := range append(everyCode, guard.CodeAllow) {
		t.Run(string(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				l.authority.Always("d", answer(2*time.Second, guard.Decision{Allowed: code == guard.CodeAllow, Code: code}))
				for range 2 {
					_, _ = l.guard.Validate(t.Context(), "d")
				}
				synctest.Wait()
				with, _ := labelled(code)
				with = "decision.code=" + with
				if code == guard.CodeSystemUnavailable {
					with += " error.type=SYSTEM_UNAVAILABLE"
				}
				l.want(t, asked, "execguard.decisions{"+with+"} 2", "execguard.validate.duration{"+with+"} 2 in 4s")
			})
		})
	}
}

func TestMetrics_OfAQuestionThatBringsNoDecision(t *testing.T) {
	for name, c := range map[string]struct {
		answer guard.ValidatorFunc
		took   string
	}{
		"an error":        {guardtest.Delay(time.Second, guardtest.Reply(guard.Decision{}, errOwn)), "1 in 1s"},
		"silence":         {guardtest.Hang(), "1 in 3s"},
		"a panic":         {guardtest.Panic("boo"), "1 in 0s"},
		"a contradiction": {guardtest.Reply(guard.Decision{Allowed: true, Code: guard.CodePlanFrozen}, nil), "1 in 0s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				l.authority.Always("d", c.answer)
				_, _ = l.guard.Validate(t.Context(), "d")
				synctest.Wait()
				const with = "decision.code=SYSTEM_UNAVAILABLE error.type=SYSTEM_UNAVAILABLE"
				l.want(t, asked, "execguard.decisions{"+with+"} 1", "execguard.validate.duration{"+with+"} "+c.took)
			})
		})
	}
}

func TestMetrics_OfARunThatFinishes(t *testing.T) {
	l := newLab(t)
	for _, err := range []error{nil, nil, errOwn, fmt.Errorf("more: %w", errOwn), context.Canceled, ownType{}, &ownType{}} {
		if got := l.guard.Run(t.Context(), "d", func(context.Context) error { return err }); got != err {
			t.Errorf("Run returned %v", got)
		}
	}
	const with = "execguard.runs{decision.code=ALLOW "
	l.want(
		t, ran,
		with+"run.outcome=finished} 2",
		with+"error.type=*errors.errorString run.outcome=finished} 2",
		with+"error.type=context.Canceled run.outcome=finished} 1",
		with+"error.type=github.com/execguard/execguard/guard/guardotel_test.ownType run.outcome=finished} 1",
		with+"error.type=*guardotel_test.ownType run.outcome=finished} 1",
	)
}

type ownType struct{}

func (ownType) Error() string { return "own" }

// Nothing of a function's error is called: its methods are the function's.
func TestMetrics_OfAnErrorThatIsHardToLookAt(t *testing.T) {
	var none *panicky
	for _, c := range []struct {
		err  error
		want string
	}{
		{none, "*guardotel_test.panicky"},
		{&panicky{}, "*guardotel_test.panicky"},
		{uncomparable{"a"}, "github.com/execguard/execguard/guard/guardotel_test.uncomparable"},
		{fmt.Errorf("%w", uncomparable{"a"}), "github.com/execguard/execguard/guard/guardotel_test.uncomparable"},
		{fmt.Errorf("%w and %w", errOwn, errOwn), "*fmt.wrapErrors"},
		{errors.Join(errOwn), "*errors.joinError"},
		{fmt.Errorf("a: %w", fmt.Errorf("b: %w", context.Canceled)), "context.Canceled"},
		{context.DeadlineExceeded, "context.deadlineExceededError"},
		{fmt.Errorf("%w", nil), "*fmt.wrapError"},
	} {
		s := newSDK()
		s.telemetry(t).Observe(t.Context(), guard.Event{
			Kind: guard.EventFinished, Decision: guard.Decision{Allowed: true, Code: guard.CodeAllow}, Err: c.err,
		})
		s.want(t, ran, "execguard.runs{decision.code=ALLOW error.type="+c.want+" run.outcome=finished} 1")
	}
}

type panicky struct{ _ int }

func (*panicky) Error() string     { panic("Error") }
func (*panicky) Unwrap() error     { panic("Unwrap") }
func (*panicky) Is(error) bool     { panic("Is") }
func (*panicky) As(any) bool       { panic("As") }
func (*panicky) ErrorType() string { panic("ErrorType") }

type uncomparable []string

func (uncomparable) Error() string { return "uncomparable" }

func TestMetrics_OfARunThatIsRefused(t *testing.T) {
	for _, code := range everyCode {
		t.Run(string(code), func(t *testing.T) {
			l := newLab(t)
			l.authority.Deny("d", code)
			if err := l.run(t, "d"); !errors.Is(err, guard.ErrDenied) {
				t.Fatal(err)
			}
			with, failure := labelled(code)
			l.want(t, ran, "execguard.runs{decision.code="+with+" error.type="+failure+" run.outcome=refused} 1")
		})
	}
	t.Run("unasked", func(t *testing.T) {
		l := newLab(t)
		_ = l.run(t, " ")
		l.want(t, ran, "execguard.runs{decision.code=INVALID_DEVICE_ID error.type=INVALID_DEVICE_ID run.outcome=refused} 1")
		l.want(t, asked)
	})
	t.Run("closed", func(t *testing.T) {
		l := newLab(t)
		l.guard.Close()
		_ = l.run(t, "d")
		l.want(t, ran, "execguard.runs{error.type=closed run.outcome=refused} 1")
	})
}

func TestMetrics_OfARunThatIsStopped(t *testing.T) {
	for _, code := range everyCode {
		t.Run(string(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t)
				l.stop(t, 1500*time.Millisecond, errOwn, func() { l.authority.Deny("d", code) })
				with, failure := labelled(code)
				l.want(
					t, ran, "execguard.runs{decision.code="+with+" error.type="+failure+" run.outcome=stopped} 1",
					"execguard.run.stop.duration{decision.code="+with+"} 1 in 1.5s",
				)
			})
		})
	}
	t.Run("closed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t)
			l.stop(t, time.Second, nil, func() { l.guard.Close() })
			l.want(t, ran, "execguard.runs{error.type=closed run.outcome=stopped} 1", "execguard.run.stop.duration{} 1 in 1s")
		})
	})
}

func TestMetrics_OfARunThatOverruns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.stop(t, timeout+time.Second, nil, func() { l.authority.Deny("d", guard.CodeDeviceRevoked) })
		l.want(
			t, ran, "execguard.runs{decision.code=DEVICE_REVOKED error.type=DEVICE_REVOKED run.outcome=stopped} 1",
			"execguard.run.overruns{decision.code=DEVICE_REVOKED} 1",
			"execguard.run.stop.duration{decision.code=DEVICE_REVOKED} 1 in 4s",
		)
	})
}

func TestMetrics_OfHints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		for _, device := range []string{"d", "e", ""} {
			l.guard.Hint(device)
		}
		synctest.Wait()
		l.want(t, nil, "execguard.hints{} 3")
	})
}

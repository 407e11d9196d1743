package guardtest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// Each check must be able to fail: here are validators that do one thing wrong, and the check
// that must say so.

// over wraps the validator of the scripted subject.
func over(wrap func(ctx context.Context, id string, v guard.Validator) (guard.Decision, error)) func() guardtest.Subject {
	return func() guardtest.Subject {
		s := scripted()
		v := s.Validator
		s.Validator = guard.ValidatorFunc(func(ctx context.Context, id string) (guard.Decision, error) {
			return wrap(ctx, id, v)
		})
		return s
	}
}

// change wraps it where only the answer is wrong.
func change(wrong func(id string, d guard.Decision, err error) (guard.Decision, error)) func() guardtest.Subject {
	return over(func(ctx context.Context, id string, v guard.Validator) (guard.Decision, error) {
		d, err := v.Validate(ctx, id)
		return wrong(id, d, err)
	})
}

// with changes the subject, for what must be remembered from call to call.
func with(change func(s *guardtest.Subject)) func() guardtest.Subject {
	return func() guardtest.Subject {
		s := scripted()
		change(&s)
		return s
	}
}

var allow = guard.Decision{Allowed: true, Code: guard.CodeAllow}

type brokenCase struct {
	name  string
	make  func() guardtest.Subject
	check string // that must fail
	says  string // a part of what it must say
}

func brokenValidators(t *testing.T) []brokenCase {
	t.Helper()
	const (
		allowed, stranger, blank = "an allowed device is allowed", "a stranger is denied", "a blank id is refused"
		revoked, apart           = "revoked is denied, restored is allowed", "one device does not decide for another"
		organisation, outage     = "the organisation switched off is denied", "an outage is no answer"
		isOver, ends             = "a context that is over is no answer", "a context that ends is obeyed"
		sideBySide, ids          = "calls side by side", "request ids differ"
		stay, secret, running    = "answers stay as they were", "secrets stay secret", "nothing is left running"
	)
	type answer = func(id string, d guard.Decision, err error) (guard.Decision, error)
	edit := func(f func(d *guard.Decision)) answer {
		return func(_ string, d guard.Decision, err error) (guard.Decision, error) {
			f(&d)
			return d, err
		}
	}
	return []brokenCase{
		{"denies everyone", change(func(string, guard.Decision, error) (guard.Decision, error) {
			return guard.Decision{Code: guard.CodeDeviceNotFound}, nil
		}), allowed, "want it allowed"},
		{"allows everyone", change(func(string, guard.Decision, error) (guard.Decision, error) {
			return allow, nil
		}), stranger, "want a denial"},
		{"allows blank ids", change(func(id string, d guard.Decision, err error) (guard.Decision, error) {
			if strings.TrimSpace(id) == "" {
				return allow, nil
			}
			return d, err
		}), blank, "allowed true"},
		{"has another code for blank ids", change(func(id string, d guard.Decision, err error) (guard.Decision, error) {
			if strings.TrimSpace(id) == "" {
				d.Code = guard.CodeDeviceNotFound
			}
			return d, err
		}), blank, "INVALID_DEVICE_ID or an error"},
		{"panics on blank ids", change(func(id string, d guard.Decision, err error) (guard.Decision, error) {
			if id == "" {
				panic("no id")
			}
			return d, err
		}), blank, "panicked: no id"},
		{"exits on blank ids", change(func(id string, d guard.Decision, err error) (guard.Decision, error) {
			if id == "" {
				runtime.Goexit()
			}
			return d, err
		}), blank, "ended its goroutine"},
		{"remembers an ALLOW", with(remembering(func(d guard.Decision) bool { return d.Allowed })), revoked, "revoked: allowed true"},
		{"remembers a denial", with(remembering(func(d guard.Decision) bool { return !d.Allowed })), revoked, "want it allowed"},
		{"denies without code", change(edit(func(d *guard.Decision) {
			if !d.Allowed {
				d.Code = ""
			}
		})), revoked, "neither code nor error"},
		{"calls a denial unavailable", change(edit(func(d *guard.Decision) {
			if !d.Allowed {
				d.Code = guard.CodeSystemUnavailable
			}
		})), revoked, "the authority's code"},
		{"denies with the code ALLOW", change(edit(func(d *guard.Decision) { d.Code = guard.CodeAllow })), revoked, "denied with the code ALLOW"},
		{"allows with the code of a denial", change(edit(func(d *guard.Decision) { d.Allowed = true })), revoked, "the code of a denial"},
		{"allows beside an error", change(func(_ string, d guard.Decision, _ error) (guard.Decision, error) {
			return d, errors.New("and yet")
		}), allowed, "allowed beside an error"},
		{"names another device", change(edit(func(d *guard.Decision) { d.DeviceID = "somebody" })), allowed, "decided about device somebody"},
		{"negative RetryAfter", change(edit(func(d *guard.Decision) { d.RetryAfter = -1 })), stranger, "negative RetryAfter"},
		{"allowed until yesterday", change(edit(func(d *guard.Decision) {
			d.ExpiresAt = time.Now().Add(-24 * time.Hour)
		})), allowed, "until before the question"},
		{"answers for the device before", with(answersForTheOneBefore), apart, ""},
		{"revokes all devices", with(func(s *guardtest.Subject) {
			v := s.Validator.(*guardtest.Validator)
			s.Revoke = func(string) func() {
				v.Deny("", guard.CodeDeviceRevoked)
				return func() { v.Always("", nil) }
			}
		}), apart, "beside a revoked one"},
		{"does not hear of the organisation", with(func(s *guardtest.Subject) {
			s.SwitchOff = func() func() { return func() {} }
		}), organisation, "the organisation is off"},
		{"stays off", with(func(s *guardtest.Subject) {
			off := s.SwitchOff
			s.SwitchOff = func() func() {
				off()
				return func() {}
			}
		}), organisation, "on again"},
		{"allows in an outage", with(func(s *guardtest.Subject) {
			s.Outage = func() func() { return func() {} }
		}), outage, "in an outage: allowed true"},
		{"calls an outage a denial", change(func(_ string, d guard.Decision, err error) (guard.Decision, error) {
			if d.Code == guard.CodeSystemUnavailable {
				d.Code = guard.CodeDeviceRevoked
			}
			return d, err
		}), outage, "no other code"},
		{"does not recover", with(func(s *guardtest.Subject) {
			outage := s.Outage
			s.Outage = func() func() {
				outage()
				return func() {}
			}
		}), outage, "after an outage"},
		{"does not look at its context", over(func(_ context.Context, id string, v guard.Validator) (guard.Decision, error) {
			return v.Validate(context.Background(), id)
		}), isOver, "allowed true"},
		{"hides why it gave up", change(func(_ string, d guard.Decision, err error) (guard.Decision, error) {
			if err != nil {
				err = errors.New("it did not work")
			}
			return d, err
		}), isOver, "matches neither"},
		{"gives up without an error", change(func(_ string, d guard.Decision, _ error) (guard.Decision, error) {
			return d, nil
		}), isOver, "matches neither"},
		{"calls a lost caller a denial", change(func(_ string, d guard.Decision, err error) (guard.Decision, error) {
			if err != nil {
				d.Code = guard.CodeDeviceRevoked
			}
			return d, err
		}), isOver, "no other code"},
		{"waits for another end than its context's", over(func(_ context.Context, id string, v guard.Validator) (guard.Decision, error) {
			return v.Validate(t.Context(), id) // the end of this test, which is not that of the check
		}), ends, "has not returned within"},
		{"keeps the question in a field", with(keepsTheQuestion), sideBySide, "side by side"},
		{"one request id", change(edit(func(d *guard.Decision) { d.RequestID = "1" })), ids, `"1" came twice`},
		{"one error for all", with(sharesItsError), stay, "now reads"},
		{"the key in an error", with(func(s *guardtest.Subject) {
			s.Secrets = []string{"org_secret"}
			v := s.Validator
			s.Validator = guard.ValidatorFunc(func(ctx context.Context, id string) (guard.Decision, error) {
				d, err := v.Validate(ctx, id)
				if err != nil {
					err = fmt.Errorf("asking: %w", &keyError{"org_secret", err})
				}
				return d, err
			})
		}), secret, "an abandoned call's error gives a secret away"},
		{"the key in an error of several", with(func(s *guardtest.Subject) {
			s.Secrets = []string{"org_secret"}
			s.Validator = guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) {
				return guard.Decision{}, quiet{errors.New("x"), &keyError{"org_secret", context.Canceled}}
			})
		}), secret, "an answer's error gives a secret away"},
		{"the key in a reason", with(func(s *guardtest.Subject) {
			s.Secrets = []string{"org_secret"}
			s.Validator = guardtest.Reply(guard.Decision{Code: guard.CodeInvalidOrgKey, Reason: "org_secret"}, nil)
		}), secret, "an answer gives a secret away"},
		{"the key in a field", with(func(s *guardtest.Subject) {
			s.Secrets = []string{"org_secret"}
			s.Validator = &keyed{Validator: s.Validator, key: "org_secret"}
		}), secret, "the validator gives a secret away"},
		{"the key in a field behind a Stringer", with(func(s *guardtest.Subject) {
			s.Secrets = []string{"org_secret"}
			s.Validator = &masked{keyed{Validator: s.Validator, key: "org_secret"}}
		}), secret, "dereferenced, gives a secret away"},
		{"leaves a goroutine behind", with(leaksGoroutines(t)), running, "goroutines are left"},
	}
}

func TestEveryCheckCanFail(t *testing.T) {
	failing := map[string]bool{}
	for _, b := range brokenValidators(t) {
		failing[b.check] = true
		t.Run(b.name, func(t *testing.T) {
			errs := guardtest.Try(t, b.check, 100*time.Millisecond, b.make()).Errors()
			if !strings.Contains(strings.Join(errs, "\n"), b.says) || len(errs) == 0 {
				t.Errorf("%s: got %q, want it to say %q", b.check, errs, b.says)
			}
		})
	}
	for _, name := range guardtest.CheckNames() {
		if !failing[name] {
			t.Errorf("no validator is known to fail %q", name)
		}
	}
}

// TestNoCheckFailsWhereNothingIsBroken shows that the failures above come from what is broken and not from
// the recorder or its short patience.
func TestNoCheckFailsWhereNothingIsBroken(t *testing.T) {
	for _, name := range guardtest.CheckNames() {
		if r := guardtest.Try(t, name, 2*time.Second, scripted()); len(r.Errors()) > 0 || r.Skipped() {
			t.Errorf("%s: %q, skipped %t", name, r.Errors(), r.Skipped())
		}
	}
}

func TestChecksWithoutHandlesAreSkipped(t *testing.T) {
	bare := func() guardtest.Subject {
		s := scripted()
		s.SwitchOff, s.Outage, s.Silence, s.Secrets = nil, nil, nil, nil
		return s
	}
	var skipped []string
	for _, name := range guardtest.CheckNames() {
		r := guardtest.Try(t, name, 2*time.Second, bare())
		if len(r.Errors()) > 0 {
			t.Errorf("%s: %q", name, r.Errors())
		}
		if r.Skipped() {
			skipped = append(skipped, name)
		}
	}
	want := []string{
		"the organisation switched off is denied", "an outage is no answer",
		"a context that ends is obeyed", "secrets stay secret",
	}
	if !slices.Equal(skipped, want) {
		t.Errorf("skipped %q, want %q", skipped, want)
	}
}

func TestSubjectMustBeComplete(t *testing.T) {
	for want, change := range map[string]func(*guardtest.Subject){
		"Subject.Validator is missing": func(s *guardtest.Subject) { s.Validator = nil },
		"Subject.Device is missing":    func(s *guardtest.Subject) { s.Device = "" },
		"Subject.Other is missing":     func(s *guardtest.Subject) { s.Other = "" },
		"Subject.Stranger is missing":  func(s *guardtest.Subject) { s.Stranger = "" },
		"Subject.Revoke is missing":    func(s *guardtest.Subject) { s.Revoke = nil },
		"three different ids":          func(s *guardtest.Subject) { s.Other = s.Device },
	} {
		errs := guardtest.Try(t, guardtest.CheckNames()[0], time.Second, with(change)()).Errors()
		if len(errs) != 1 || !strings.Contains(errs[0], want) {
			t.Errorf("got %q, want %q", errs, want)
		}
	}
}

// TestValidatorFailsTheTest runs TestValidator itself, on a validator that allows everyone, in
// a process of its own.
func TestValidatorFailsTheTest(t *testing.T) {
	const mark = "GUARDTEST_BROKEN"
	if os.Getenv(mark) != "" {
		guardtest.TestValidator(t, func(*testing.T) guardtest.Subject {
			s := scripted()
			s.Validator = guardtest.Reply(allow, nil)
			return s
		})
		return
	}
	command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestValidatorFailsTheTest$", "-test.v")
	command.Env = append(os.Environ(), mark+"=1")
	out, err := command.CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
		t.Fatalf("the process ended with %v:\n%s", err, out)
	}
	for _, want := range []string{"--- PASS: TestValidatorFailsTheTest/an_allowed_", "--- FAIL: TestValidatorFailsTheTest/a_stranger_"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
}

// remembering makes a validator that gives answers of one sort again for ever.
func remembering(sort func(guard.Decision) bool) func(s *guardtest.Subject) {
	return func(s *guardtest.Subject) {
		var known sync.Map
		v := s.Validator
		s.Validator = guard.ValidatorFunc(func(ctx context.Context, id string) (guard.Decision, error) {
			if d, ok := known.Load(id); ok {
				return d.(guard.Decision), nil
			}
			d, err := v.Validate(ctx, id)
			if sort(d) {
				known.Store(id, d)
			}
			return d, err
		})
	}
}

// answersForTheOneBefore mixes up devices even when nothing happens at the same time.
func answersForTheOneBefore(s *guardtest.Subject) {
	var before atomic.Pointer[string]
	v := s.Validator
	s.Validator = guard.ValidatorFunc(func(ctx context.Context, id string) (guard.Decision, error) {
		if last := before.Swap(&id); last != nil {
			d, err := v.Validate(ctx, *last)
			d.DeviceID = ""
			return d, err
		}
		return v.Validate(ctx, id)
	})
}

// keepsTheQuestion mixes up devices when two calls overlap. The field is atomic, so that the
// race detector has nothing to say and the check must.
func keepsTheQuestion(s *guardtest.Subject) {
	var asked atomic.Pointer[string]
	v := s.Validator
	s.Validator = guard.ValidatorFunc(func(ctx context.Context, id string) (guard.Decision, error) {
		asked.Store(&id)
		for range 10 {
			runtime.Gosched()
		}
		d, err := v.Validate(ctx, *asked.Load())
		d.DeviceID = ""
		return d, err
	})
}

// sharesItsError writes every error into the same place.
func sharesItsError(s *guardtest.Subject) {
	var (
		mu     sync.Mutex
		calls  int
		shared = &keyError{inner: context.Canceled}
		v      = s.Validator
	)
	s.Validator = guard.ValidatorFunc(func(ctx context.Context, id string) (guard.Decision, error) {
		mu.Lock()
		defer mu.Unlock()
		calls++
		if d, err := v.Validate(ctx, id); err == nil {
			return d, nil
		}
		shared.key = fmt.Sprint("call ", calls)
		return guard.Decision{}, shared
	})
}

// leaksGoroutines leaves one behind with every call. They end with the test.
func leaksGoroutines(t *testing.T) func(s *guardtest.Subject) {
	t.Helper()
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	return func(s *guardtest.Subject) {
		v := s.Validator
		s.Validator = guard.ValidatorFunc(func(ctx context.Context, id string) (guard.Decision, error) {
			go func() { <-end }()
			return v.Validate(ctx, id)
		})
	}
}

// keyError shows its key, if only to %#v and to who looks at the inner error.
type keyError struct {
	key   string
	inner error
}

func (e *keyError) Error() string { return "broken " + e.key }
func (e *keyError) Unwrap() error { return e.inner }

// quiet wraps several errors and tells of none.
type quiet []error

func (q quiet) Error() string   { return "several" }
func (q quiet) Unwrap() []error { return q }

// keyed is a validator whose fields fmt can read.
type keyed struct {
	guard.Validator
	key string
}

// masked prints as something else, until it is dereferenced.
type masked struct{ keyed }

func (*masked) String() string             { return "masked" }
func (*masked) Format(f fmt.State, _ rune) { fmt.Fprint(f, "masked") }

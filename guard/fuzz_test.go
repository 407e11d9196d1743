package guard_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/execguard/execguard/guard"
)

// FuzzDecision has a validator answer anything, a decision and an error in any combination, and
// holds every way in which the guard learns of it to S2 and to the table «What a run returns».
func FuzzDecision(f *testing.F) {
	for _, m := range shapes() {
		for options := range byte(12) {
			m.seed(f, "dev", options)
		}
		for m.kind = range kinds { // the whole product is TestS2_EveryDecisionBesideEveryError
			m.seed(f, "dev", m.kind)
		}
	}
	for _, asked := range []string{"", " ", "\t\u2003", "\x00", "\xff", " dev", "größe"} {
		shapes()[2].seed(f, asked, 0)
	}
	f.Fuzz(func(t *testing.T, asked string, allowed bool, code, about, request, reason string,
		after, end int64, kind byte, text string, options byte,
	) {
		m := madeUp{asked: asked, kind: kind, text: text, decision: guard.Decision{
			Allowed: allowed, Code: guard.Code(code), RequestID: request, DeviceID: about, Reason: reason,
			RetryAfter: time.Duration(after),
		}}
		if end != 0 {
			m.decision.ExpiresAt = time.Unix(end, 0)
		}
		synctest.Test(t, func(t *testing.T) { m.check(t, options) })
	})
}

func (m madeUp) seed(f *testing.F, asked string, options byte) {
	f.Helper()
	d, end := m.decision, int64(0)
	if !d.ExpiresAt.IsZero() {
		end = d.ExpiresAt.Unix()
	}
	f.Add(asked, d.Allowed, string(d.Code), d.DeviceID, "r", d.Reason, int64(d.RetryAfter), end, m.kind, "down", options)
}

func TestS2_EveryDecisionBesideEveryError(t *testing.T) {
	for _, m := range shapes() {
		m.asked, m.text, m.decision.RequestID = "dev", "down", "r"
		for m.kind = range kinds {
			for options := range byte(12) {
				synctest.Test(t, func(t *testing.T) { m.check(t, options) })
			}
		}
	}
}

// shapes are decisions next to the one shape of an ALLOW, and next to that of a denial.
func shapes() (ms []madeUp) {
	bubbleStart := time.Unix(946684800, 0)
	for _, d := range []guard.Decision{
		{},
		{Allowed: true},
		{Allowed: true, Code: "ALLOW"},
		{Allowed: true, Code: "ALLOW", DeviceID: "dev"},
		{Allowed: true, Code: "ALLOW", DeviceID: "DEV"},
		{Allowed: true, Code: "ALLOW", ExpiresAt: bubbleStart.Add(5 * time.Second)},
		{Allowed: true, Code: "ALLOW", ExpiresAt: bubbleStart},
		{Allowed: true, Code: "ALLOW", ExpiresAt: bubbleStart.Add(-time.Second)},
		{Allowed: true, Code: "ALLOW", ExpiresAt: time.Unix(math.MaxInt64, 0)},
		{Allowed: true, Code: "ALLOW", ExpiresAt: time.Unix(math.MinInt64, 0)},
		{Allowed: true, Code: "allow"},
		{Allowed: true, Code: "ALLOW\x00"},
		{Allowed: true, Code: "DEVICE_REVOKED"},
		{Code: "ALLOW"},
		{Code: "DEVICE_REVOKED", RetryAfter: math.MaxInt64},
		{Code: "DEVICE_REVOKED", DeviceID: "other"},
		{Code: "PLAN_FROZEN", RetryAfter: -1, ExpiresAt: bubbleStart},
		{Code: "SYSTEM_UNAVAILABLE", RetryAfter: time.Second},
		{Code: "\xff"},
	} {
		ms = append(ms, madeUp{decision: d})
	}
	return ms
}

// madeUp is an answer that the fuzzer has made up.
type madeUp struct {
	asked    string // the device that the caller names
	decision guard.Decision
	kind     byte // of the error beside it
	text     string
}

// textless is an error that cannot say what it is.
type textless func() string

func (f textless) Error() string { return f() }

// kinds is how many kinds of errors there are.
const kinds = byte(17)

// problem is the error beside the decision. Two kinds of answers are none at all.
func (m madeUp) problem() error {
	switch m.kind % kinds {
	case 1:
		return errors.New(m.text)
	case 2:
		return errors.New("")
	case 3:
		return (*fragile)(nil)
	case 4:
		return (*net.OpError)(nil)
	case 5:
		return (*guard.DeniedError)(nil)
	case 6:
		return errorList{errors.New(m.text), nil}
	case 7:
		return errorList(nil)
	case 8:
		return context.Canceled
	case 9:
		return fmt.Errorf("%s: %w", m.text, context.DeadlineExceeded)
	case 10:
		return guard.ErrDenied
	case 11:
		return guard.ErrUnavailable
	case 12:
		return guard.ErrClosed
	case 13:
		return &guard.DeniedError{DeviceID: m.text, Decision: guard.Decision{Allowed: true, Code: guard.CodeAllow}}
	case 14:
		return textless(nil)
	case 15:
		panic(m.text)
	case 16:
		runtime.Goexit()
	}
	return nil
}

// answer is a behaviour.
func (m madeUp) answer(context.Context, *asked) (guard.Decision, error) {
	return m.decision, m.problem()
}

// means is what S2 says of the answer now: CodeAllow for the one shape of an ALLOW, the code of a
// denial that stands, and CodeSystemUnavailable for all else.
func (m madeUp) means() guard.Code {
	if m.blank() {
		return guard.CodeInvalidDeviceID // whatever it is: nobody is asked
	}
	d, kind := m.decision, m.kind%kinds
	elsewhere := d.DeviceID != "" && d.DeviceID != m.asked
	over := !d.ExpiresAt.IsZero() && !time.Now().Before(d.ExpiresAt)
	switch {
	case kind >= 15, elsewhere:
		return guard.CodeSystemUnavailable
	case d.Allowed && d.Code == "ALLOW" && kind == 0 && !over:
		return guard.CodeAllow
	case !d.Allowed && d.Code != "" && d.Code != "ALLOW":
		return d.Code
	}
	return guard.CodeSystemUnavailable
}

// blank tells whether nobody is asked about the device.
func (m madeUp) blank() bool {
	for _, r := range m.asked {
		if !unicode.IsSpace(r) {
			return false
		}
	}
	return true
}

// check has the guard learn of the answer in every way.
func (m madeUp) check(t *testing.T, options byte) {
	m.start(t, options)
	m.validate(t)
	m.inFlight(t, options)
}

// start is a start on the answer: the function is called if and only if it is an ALLOW.
func (m madeUp) start(t *testing.T, options byte) {
	const budget = 2 * time.Second
	retried, opts := options&1 != 0, []guard.Option(nil)
	if retried {
		opts = append(opts, retries(time.Second, budget))
	}
	if options&2 != 0 {
		opts = append(opts, guard.WithReuse(time.Second), guard.WithLogger(slog.New(slog.NewJSONHandler(new(bytes.Buffer), nil))))
	}
	a := newAuthority()
	a.set(m.answer)
	g := newGuard(t, a, opts...)
	began, called, means := time.Now(), 0, m.means()
	err := g.Run(t.Context(), m.asked, func(ctx context.Context) error {
		called++
		m.wantAllowed(t, ctx)
		return io.EOF
	})
	if allow := means == guard.CodeAllow; allow != (called == 1) || called > 1 {
		t.Errorf("the function was called %d times on %+v", called, m.decision)
	} else if allow && err != io.EOF {
		t.Errorf("the function was called, and Run returned %v", err)
	} else if !allow {
		m.wantNo(t, "Run", err, means, false)
	}
	took, questions := time.Since(began), a.count()
	switch {
	case m.blank() && questions == 0 && took == 0:
	case !m.blank() && questions == 1 && took == 0:
	case retried && means == guard.CodeSystemUnavailable && took <= budget:
	default:
		t.Errorf("%d questions in %v", questions, took)
	}
}

// wantAllowed holds the context of a function that was started on the answer to it.
func (m madeUp) wantAllowed(t *testing.T, ctx context.Context) {
	d, ok := guard.DecisionFrom(ctx)
	if !ok || !d.Allowed || d.Code != guard.CodeAllow || d.RequestID != m.decision.RequestID {
		t.Errorf("started on %+v, %t", d, ok)
	}
	if live := guard.Checkpoint(ctx); live != nil || ctx.Err() != nil {
		t.Errorf("Checkpoint says %v, the context %v", live, ctx.Err())
	}
}

// validate is Validate of the answer.
func (m madeUp) validate(t *testing.T) {
	a := newAuthority()
	a.set(m.answer)
	means := m.means()
	d, err := newGuard(t, a).Validate(t.Context(), m.asked)
	if means == guard.CodeSystemUnavailable {
		m.wantNo(t, "Validate", err, means, false)
		err = nil
	}
	if err != nil || d.Code != means || d.Allowed != (means == guard.CodeAllow) {
		t.Errorf("Validate gives %+v, %v; want %s", d, err, means)
	}
	m.wantTame(t, d)
}

// inFlight has a run in flight learn of the answer: from somebody's Validate, from a hint's
// question or from the watch's.
func (m madeUp) inFlight(t *testing.T, options byte) {
	if m.blank() {
		return
	}
	a := newAuthority()
	g := newGuard(t, a)
	leave := make(chan struct{})
	r := launchFunc(t.Context(), g, m.asked, func(ctx context.Context) error {
		select {
		case <-ctx.Done():
		case <-leave:
		}
		return io.EOF
	})
	synctest.Wait()
	a.set(m.answer)
	means, watch := m.means(), false
	switch options / 4 % 3 {
	case 0:
		_, _ = g.Validate(t.Context(), m.asked)
	case 1:
		g.Hint(m.asked)
	case 2:
		watch = true
		time.Sleep(10 * time.Second)
		if m.means() != guard.CodeAllow && means == guard.CodeAllow {
			means = guard.CodeSystemUnavailable // it was an ALLOW, and has come to its end (S10)
		}
	}
	synctest.Wait()
	m.wantStop(t, r, means, watch)
	close(leave)
	if err := r.finish(); !r.cancelled() && err != io.EOF {
		t.Errorf("a run that was not stopped returned %v", err)
	}
}

// wantStop fails unless the run has been stopped if, and only if, the answer does that: «could not
// ask» does when it is the watch that could not (S3).
func (m madeUp) wantStop(t *testing.T, r *running, means guard.Code, watch bool) {
	t.Helper()
	stops := means != guard.CodeAllow && (means != guard.CodeSystemUnavailable || watch)
	if stops != r.returned() || stops != r.cancelled() {
		t.Fatalf("%+v in flight: the run has returned: %t, its context ended: %t; want %t",
			m.decision, r.returned(), r.cancelled(), stops)
	}
	if live := guard.Checkpoint(r.ctx); stops != (live != nil) {
		t.Errorf("%+v in flight: Checkpoint says %v", m.decision, live)
	}
	if !stops {
		return
	}
	m.wantNo(t, "Run", r.err, means, true)
	if !errors.Is(r.err, io.EOF) {
		t.Errorf("what the function returned is not in %v", r.err)
	}
	if cause := context.Cause(r.ctx); !errors.Is(cause, context.Canceled) || !errors.Is(cause, guard.ErrDenied) {
		t.Errorf("the cause is %v", cause)
	}
}

// wantNo holds an error to what the contract says of every denial.
func (m madeUp) wantNo(t *testing.T, what string, err error, code guard.Code, inFlight bool) {
	t.Helper()
	denied, ok := err.(*guard.DeniedError)
	if !ok || denied == nil {
		t.Fatalf("%s returned %v (%T), want a denial with %q", what, err, err, code)
	}
	if denied.DeviceID != m.asked || denied.Decision.Code != code || denied.Decision.Allowed || denied.InFlight != inFlight {
		t.Errorf("%s returned %+v, want a denial with %q, in flight: %t", what, denied, code, inFlight)
	}
	if text := denied.Error(); text == "" || !errors.Is(err, guard.ErrDenied) || errors.Is(err, context.Canceled) {
		t.Errorf("%s: %q: ErrDenied %t, Canceled %t", what, text, errors.Is(err, guard.ErrDenied), errors.Is(err, context.Canceled))
	}
	m.wantInside(t, what, err, code)
	if !m.blank() {
		m.wantTame(t, denied.Decision)
	}
}

// wantInside looks for what stood beside the answer, which is inside the denial and may match what
// the denial alone does not.
func (m madeUp) wantInside(t *testing.T, what string, err error, code guard.Code) {
	t.Helper()
	beside := map[byte]error{9: context.DeadlineExceeded, 11: guard.ErrUnavailable, 12: guard.ErrClosed}[m.kind%kinds]
	for target, alone := range map[error]bool{
		context.DeadlineExceeded: false,
		guard.ErrUnavailable:     code == guard.CodeSystemUnavailable,
		guard.ErrClosed:          false,
	} {
		if want := alone || target == beside && !m.blank(); errors.Is(err, target) != want {
			t.Errorf("%s: %v matches %q: %t, want %t", what, err, target, !want, want)
		}
	}
}

// wantTame holds what is handed on of an answer: its bounds, its request, a reason for what makes
// no sense.
func (m madeUp) wantTame(t *testing.T, d guard.Decision) {
	t.Helper()
	if d.RetryAfter < 0 || d.RetryAfter > 24*time.Hour {
		t.Errorf("handed on: %+v", d)
	}
	if d.RequestID != "" && (d.RequestID != m.decision.RequestID || m.kind%kinds >= 15) {
		t.Errorf("a request id that nobody gave: %+v", d)
	}
	if d.Code == guard.CodeSystemUnavailable && d.Reason == "" {
		t.Errorf("without a reason: %+v", d)
	}
	if d.DeviceID != "" && d.DeviceID != m.asked {
		t.Errorf("about another device: %+v", d)
	}
}

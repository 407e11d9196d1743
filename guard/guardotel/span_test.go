package guardotel_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardotel"
)

// asCaller runs fn under the device with a span of the caller's own around it.
func (l *lab) asCaller(ctx context.Context, device string, fn func(context.Context) error) error {
	ctx, span := l.tracers.Tracer("caller").Start(ctx, "caller")
	defer span.End()
	return l.guard.Run(ctx, device, fn)
}

func TestSpans_OfARunThatFinishes(t *testing.T) {
	for _, c := range []struct {
		err          error
		failure, end string
	}{
		{nil, "", ""},
		{errOwn, " error.type=*errors.errorString", " Error"},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t)
			l.authority.Next("d", answer(2*time.Second, allowed("r1")))
			_ = l.asCaller(t.Context(), "d", func(context.Context) error {
				time.Sleep(4 * time.Second)
				return c.err
			})
			synctest.Wait()
			wantSpans(
				t, l.told("execguard.run"), "2s-6s of caller {decision.code=ALLOW decision.request_id=r1 device.id=d"+c.failure+
					" run.allowed_by=r1 run.outcome=finished}"+c.end,
			)
			if got := l.told("execguard.validate")[0]; got != "0s-2s {decision.code=ALLOW decision.request_id=r1 device.id=d}" {
				t.Error(got)
			}
		})
	}
}

func TestSpans_OfARunThatIsRefused(t *testing.T) {
	for _, code := range everyCode {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t)
			l.authority.Always("d", answer(time.Second, guard.Decision{Code: code, RequestID: "r7"}))
			_ = l.asCaller(t.Context(), "d", nothingToDo)
			synctest.Wait()
			with, failure := labelled(code)
			with = "decision.code=" + with
			if code == "MOON_IN_THE_WRONG_PHASE" {
				with += " decision.code_original=MOON_IN_THE_WRONG_PHASE"
			}
			with += " decision.request_id=r7 device.id=d"
			wantSpans(t, l.told("execguard.run"), "0s-1s of caller {"+with+" error.type="+failure+" run.outcome=refused} Error")
			if code == guard.CodeSystemUnavailable {
				wantSpans(t, l.told("execguard.validate"), "0s-1s {"+with+" error.type=SYSTEM_UNAVAILABLE} Error")
			} else {
				wantSpans(t, l.told("execguard.validate"), "0s-1s {"+with+"}") // it has been answered
			}
		})
	}
}

func TestSpans_OfARunThatIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.authority.Always("d", answer(0, allowed("r1")))
		var stopped time.Duration
		_ = l.asCaller(t.Context(), "d", func(ctx context.Context) error {
			l.authority.Always("d", answer(0, guard.Decision{Code: guard.CodeDeviceRevoked, RequestID: "r2"}))
			l.guard.Hint("d")
			<-ctx.Done()
			stopped = time.Since(l.began)
			time.Sleep(1500 * time.Millisecond)
			return errOwn
		})
		synctest.Wait()
		wantSpans(
			t, l.told("execguard.run"),
			fmt.Sprintf("0s-%v of caller {decision.code=DEVICE_REVOKED decision.request_id=r2 device.id=d error.type=DEVICE_REVOKED "+
				"run.allowed_by=r1 run.outcome=stopped run.stop.duration=1.5} Error", stopped+1500*time.Millisecond),
		)
	})
}

func TestSpans_OfARunThatIsStoppedByClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.stop(t, time.Second, nil, func() { l.guard.Close() })
		wantSpans(
			t, l.told("execguard.run"),
			"0s-1s {device.id=d error.type=closed run.allowed_by=script-1 run.outcome=stopped run.stop.duration=1} Error",
		)
	})
}

func TestSpans_AreRootsWhereTheCallerHasNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		_ = l.run(t, "d")
		synctest.Wait()
		seen := map[trace.TraceID]bool{}
		for _, s := range l.spans.Ended() {
			if s.Parent().IsValid() || seen[s.SpanContext().TraceID()] {
				t.Errorf("%s has the parent %v", s.Name(), s.Parent().SpanID())
			}
			if s.SpanKind() != trace.SpanKindInternal || s.InstrumentationScope().Name != "github.com/execguard/execguard/guard/guardotel" {
				t.Errorf("%s is %v, of %v", s.Name(), s.SpanKind(), s.InstrumentationScope())
			}
			seen[s.SpanContext().TraceID()] = true
		}
		if len(seen) != 2 {
			t.Errorf("%d spans", len(seen))
		}
	})
}

// A question is not one caller's, even if there is one.
func TestSpans_OfValidatesAreRoots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		ctx, span := l.tracers.Tracer("caller").Start(t.Context(), "caller")
		defer span.End()
		_, _ = l.guard.Validate(ctx, "d")
		synctest.Wait()
		wantSpans(t, l.told("execguard.validate"), "0s-0s {decision.code=ALLOW decision.request_id=script-1 device.id=d}")
	})
}

// A sampler decides by what it is shown at the start of a span.
func TestSpans_ShowAllToASampler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSDK()
		sampler := &witness{}
		s.tracers = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(s.spans), sdktrace.WithSampler(sampler))
		s.telemetry(t, guardotel.WithDeviceLabel()).Observe(t.Context(), guard.Event{
			Kind: guard.EventStopped, DeviceID: "d", After: time.Second, AllowedBy: "r1",
			Decision: guard.Decision{Code: guard.CodeDeviceRevoked, RequestID: "r2"},
		})
		if got := joined(s.spans.Ended()[0].Attributes()); got != sampler.shown || got == "" {
			t.Errorf("shown %q, got %q", sampler.shown, got)
		}
	})
}

type witness struct{ shown string }

func (w *witness) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	w.shown = joined(p.Attributes)
	return sdktrace.SamplingResult{Decision: sdktrace.RecordAndSample}
}

func (*witness) Description() string { return "witness" }

func TestSpans_AreNotMadeWithoutATracer(t *testing.T) {
	s := newSDK()
	tel := s.telemetry(t, guardotel.WithTracerProvider(noop.NewTracerProvider()))
	tel.Observe(t.Context(), guard.Event{Kind: guard.EventFinished, Decision: allowed("r")})
	tel.Observe(t.Context(), guard.Event{Kind: guard.EventValidated, Decision: allowed("r")})
	s.want(t, []string{"execguard.runs", "execguard.decisions"},
		"execguard.runs{decision.code=ALLOW run.outcome=finished} 1", "execguard.decisions{decision.code=ALLOW} 1")
	if n := len(s.spans.Started()); n != 0 {
		t.Errorf("%d spans", n)
	}
}

// A text that is not UTF-8 fails the export of every span and point in its batch.
func TestTextsFromOutsideAreCutAndMadeValid(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"plain", "plain"},
		{strings.Repeat("a", 256), strings.Repeat("a", 256)},
		{strings.Repeat("a", 257), strings.Repeat("a", 256)},
		{strings.Repeat("a", 255) + "é", strings.Repeat("a", 255)},
		{strings.Repeat("a", 254) + "éa", strings.Repeat("a", 254) + "é"},
		{strings.Repeat("a", 253) + "😀", strings.Repeat("a", 253)},
		{"a\xffb", "a\uFFFDb"},
		{strings.Repeat("\x80", 300), "\uFFFD"},
	} {
		s := newSDK()
		s.telemetry(t, guardotel.WithDeviceLabel(), guardotel.WithName(c.in)).Observe(t.Context(), guard.Event{
			Kind: guard.EventStopped, DeviceID: c.in, Decision: guard.Decision{Code: guard.Code(c.in), RequestID: c.in}, AllowedBy: c.in,
		})
		texts := 0
		for _, a := range s.spans.Ended()[0].Attributes() {
			switch a.Key {
			case "execguard.device.id", "execguard.decision.code_original", "execguard.decision.request_id", "execguard.run.allowed_by",
				"execguard.guard.name":
				if texts++; a.Value.AsString() != c.want {
					t.Errorf("%s is %q, want %q", a.Key, a.Value.AsString(), c.want)
				}
			}
		}
		if texts != 5 {
			t.Errorf("%d texts", texts)
		}
		for _, p := range points(s.collect(t)) {
			if !utf8.ValidString(p) || !strings.Contains(p, "device.id="+c.want+" ") && !strings.Contains(p, "device.id="+c.want+"}") {
				t.Errorf("%q", p)
			}
		}
	}
}

func TestSpans_TheirAttributesAreDocumented(t *testing.T) {
	document, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		l := everything(t, guardotel.WithName("payments"))
		l.authority.Deny("e", "MOON")
		_ = l.run(t, "e")
		synctest.Wait()
		seen := map[string]bool{}
		for _, s := range l.spans.Ended() {
			for _, a := range s.Attributes() {
				seen[string(a.Key)] = true
				if !documented(string(document), string(a.Key)) {
					t.Errorf("doc.go does not name %s", a.Key)
				}
			}
		}
		if len(seen) != 9 {
			t.Errorf("%v", seen)
		}
	})
}

// With a WithoutCancel or a Keep around it, a run's parent is still the caller's span.
func TestSpans_OfAKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		l.authority.Next("d", answer(0, guard.Decision{Code: guard.CodePlanFrozen, RequestID: "r1"}), answer(0, allowed("r2")))
		ctx, span := l.tracers.Tracer("caller").Start(t.Context(), "caller")
		_ = l.guard.Keep(ctx, "d", func(context.Context) error { return nil })
		span.End()
		synctest.Wait()
		runs := l.told("execguard.run")
		if len(runs) != 2 || !strings.Contains(runs[0], "run.outcome=refused") || !strings.Contains(runs[1], "run.allowed_by=r2 run.outcome=finished") ||
			!strings.Contains(runs[0], " of caller ") || !strings.Contains(runs[1], " of caller ") {
			t.Errorf("%q", runs)
		}
	})
}

func nothingToDo(context.Context) error { return nil }

package guardotel_test

import (
	"fmt"
	"sync"
	"testing"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardotel"
	"github.com/execguard/execguard/guard/guardtest"
)

const (
	fleet = 100_000
	odd   = 1_000
)

// every has each kind of event told of each device, with one of many codes.
func every(t testing.TB, tel *guardotel.Telemetry, devices int) {
	t.Helper()
	for i := range devices {
		e := guard.Event{
			DeviceID: fmt.Sprint("device", i), AllowedBy: fmt.Sprint("a", i),
			Decision: guard.Decision{Code: guard.Code(fmt.Sprint("ODD_", i%odd)), RequestID: fmt.Sprint("r", i)},
		}
		for _, e.Kind = range []guard.EventKind{
			guard.EventValidated, guard.EventStarted, guard.EventRefused, guard.EventStopped,
			guard.EventFinished, guard.EventOverran, guard.EventHinted,
		} {
			tel.Observe(t.Context(), e)
		}
	}
}

// unlimited keeps the SDK from hiding what the test looks for.
func unlimited() *sdk { return newSDK(sdkmetric.WithCardinalityLimit(0)) }

func TestCardinality_OfAFleetAndOddCodes(t *testing.T) {
	s := unlimited()
	every(t, s.telemetry(t, guardotel.WithTracerProvider(noop.NewTracerProvider())), fleet)
	s.want(t, nil,
		fmt.Sprintf("execguard.decisions{decision.code=OTHER} %d", fleet),
		fmt.Sprintf("execguard.validate.duration{decision.code=OTHER} %d in 0s", fleet),
		fmt.Sprintf("execguard.runs{decision.code=OTHER error.type=_OTHER run.outcome=refused} %d", fleet),
		fmt.Sprintf("execguard.runs{decision.code=OTHER error.type=_OTHER run.outcome=stopped} %d", fleet),
		fmt.Sprintf("execguard.runs{decision.code=OTHER run.outcome=finished} %d", fleet),
		fmt.Sprintf("execguard.run.overruns{decision.code=OTHER} %d", fleet),
		fmt.Sprintf("execguard.run.stop.duration{decision.code=OTHER} %d in 0s", fleet),
		fmt.Sprintf("execguard.hints{} %d", fleet),
	)
}

// The test before is worth something only if more would be seen.
func TestCardinality_WithTheDeviceAsALabel(t *testing.T) {
	s := unlimited()
	const devices = 3000
	tel := s.telemetry(t, guardotel.WithDeviceLabel(), guardotel.WithTracerProvider(noop.NewTracerProvider()))
	every(t, tel, devices)
	for name, want := range map[string]int{
		"execguard.decisions": devices, "execguard.validate.duration": devices, "execguard.runs": 3 * devices,
		"execguard.run.overruns": devices, "execguard.run.stop.duration": devices, "execguard.hints": devices,
	} {
		if got := len(points(s.collect(t), name)); got != want {
			t.Errorf("%s has %d series, want %d", name, got, want)
		}
	}
	t.Run("up to the limit of the SDK", func(t *testing.T) {
		s := newSDK()
		every(t, s.telemetry(t, guardotel.WithDeviceLabel(), guardotel.WithTracerProvider(noop.NewTracerProvider())), devices)
		if got := len(points(s.collect(t), "execguard.decisions")); got != 2000 {
			t.Errorf("%d series", got) // WithDeviceLabel's comment says so
		}
	})
}

// The same through a guard: each device of a fleet is refused with an odd code, and every tenth runs.
func TestCardinality_ThroughAGuard(t *testing.T) {
	s := unlimited()
	tel := s.telemetry(t, guardotel.WithTracerProvider(noop.NewTracerProvider()))
	authority := guardtest.NewValidator()
	devices := fleet / 10
	for i := range devices {
		authority.Deny(fmt.Sprint(i), guard.Code(fmt.Sprint("ODD_", i%odd)))
		if i%10 == 0 {
			authority.Allow(fmt.Sprint(i))
		}
	}
	g, err := guard.New(authority, guard.WithObserver(tel.Observe))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := tel.Bind(g); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := worker; i < devices; i += 8 {
				_ = g.Run(t.Context(), fmt.Sprint(i), nothingToDo)
			}
		})
	}
	all.Wait()
	s.want(t, []string{"execguard.runs"},
		fmt.Sprintf("execguard.runs{decision.code=OTHER error.type=_OTHER run.outcome=refused} %d", devices*9/10),
		fmt.Sprintf("execguard.runs{decision.code=ALLOW run.outcome=finished} %d", devices/10))
	if n := len(points(s.collect(t))); n > 30 {
		t.Errorf("%d series in all", n)
	}
}

package guardotel_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardotel"
	"github.com/execguard/execguard/guard/guardtest"
)

var (
	inFlight = []string{"execguard.run.active", "execguard.device.active"}
	age      = []string{"execguard.permission.age.max", "execguard.permission.age.limit"}
	state    = []string{"execguard.authority.answering", "execguard.event.dropped"}
)

// boundLab is a lab whose guard is bound.
func boundLab(t *testing.T, opts ...guardotel.Option) *lab {
	t.Helper()
	l := newLab(t, opts...)
	if err := l.tel.Bind(l.guard); err != nil {
		t.Fatal(err)
	}
	return l
}

// work has a run in flight until the channel is closed, whatever its context says.
func (l *lab) work(t *testing.T, device string, all *sync.WaitGroup, free <-chan struct{}) {
	t.Helper()
	began := make(chan struct{})
	all.Go(func() {
		_ = l.guard.Run(t.Context(), device, func(context.Context) error {
			close(began)
			<-free
			return nil
		})
	})
	<-began
}

func TestGauges_OfRunsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := boundLab(t)
		var all sync.WaitGroup
		free := make(chan struct{})
		l.want(t, inFlight, "execguard.run.active{run.state=running} 0", "execguard.run.active{run.state=stopping} 0", "execguard.device.active{} 0")
		for _, device := range []string{"d", "d", "e"} {
			l.work(t, device, &all, free)
		}
		l.want(t, inFlight, "execguard.run.active{run.state=running} 3", "execguard.run.active{run.state=stopping} 0", "execguard.device.active{} 2")
		l.authority.Deny("d", guard.CodeDeviceRevoked)
		_, _ = l.guard.Validate(t.Context(), "d")
		l.want(t, inFlight, "execguard.run.active{run.state=running} 1", "execguard.run.active{run.state=stopping} 2", "execguard.device.active{} 1")
		close(free)
		all.Wait()
		l.want(t, inFlight, "execguard.run.active{run.state=running} 0", "execguard.run.active{run.state=stopping} 0", "execguard.device.active{} 0")
	})
}

func TestGauges_OfTheOldestPermission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := boundLab(t)
		var all sync.WaitGroup
		free := make(chan struct{})
		l.want(t, age, "execguard.permission.age.max{} 0", "execguard.permission.age.limit{} 13")
		l.work(t, "d", &all, free)
		time.Sleep(7250 * time.Millisecond)
		sent := l.authority.Calls()
		want := time.Since(sent[len(sent)-1].Sent)
		l.want(t, age, "execguard.permission.age.max{} "+fmt.Sprint(want.Seconds()), "execguard.permission.age.limit{} 13")
		close(free)
		all.Wait()
		l.want(t, age, "execguard.permission.age.max{} 0", "execguard.permission.age.limit{} 13")
	})
}

func TestGauges_OfRefusedDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := boundLab(t)
		free := make(chan struct{})
		var all sync.WaitGroup
		l.work(t, "d", &all, free)
		l.work(t, "e", &all, free)
		l.authority.Deny("d", guard.CodeDeviceRevoked)
		l.authority.Deny("e", "MOON_IN_THE_WRONG_PHASE")
		_, _ = l.guard.Validate(t.Context(), "d")
		_, _ = l.guard.Validate(t.Context(), "e")
		want := map[string]string{"DEVICE_REVOKED": "1", "OTHER": "1"}
		lines := points(l.collect(t), "execguard.device.refused")
		for _, line := range lines {
			code := line[strings.Index(line, "=")+1 : strings.Index(line, "}")]
			if n := want[code]; !strings.HasSuffix(line, " "+n) && (n != "" || !strings.HasSuffix(line, " 0")) {
				t.Error(line)
			}
		}
		if len(lines) != 11 {
			t.Errorf("%d codes: %q", len(lines), lines)
		}
		close(free)
		all.Wait()
		for _, line := range points(l.collect(t), "execguard.device.refused") {
			if !strings.HasSuffix(line, " 0") {
				t.Error(line)
			}
		}
	})
}

func TestGauges_OfTheAuthorityAndOfLostEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSDK()
		l := &lab{sdk: s, authority: guardtest.NewValidator("d"), tel: s.telemetry(t), began: time.Now()}
		free := make(chan struct{})
		g, err := guard.New(l.authority, guard.WithObserver(func(ctx context.Context, e guard.Event) {
			<-free
			l.tel.Observe(ctx, e)
		}))
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		if err := l.tel.Bind(g); err != nil {
			t.Fatal(err)
		}
		l.want(t, state, "execguard.authority.answering{} 1", "execguard.event.dropped{} 0")
		l.authority.Always("d", guardtest.Reply(guard.Decision{}, errOwn))
		_, _ = g.Validate(t.Context(), "d")
		l.want(t, state, "execguard.authority.answering{} 0", "execguard.event.dropped{} 0")
		l.authority.Always("d", nil)
		_, _ = g.Validate(t.Context(), "d")
		synctest.Wait() // one event is being told, and one waits
		for range 1023 + 7 {
			g.Hint("d")
		}
		l.want(t, state, "execguard.authority.answering{} 1", "execguard.event.dropped{} 7")
		close(free)
		synctest.Wait()
		l.want(t, []string{"execguard.hints"}, "execguard.hints{} 1023")
	})
}

func TestBind_AndClose(t *testing.T) {
	l := newLab(t)
	wants := func(err error, words string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%v, want %q", err, words)
		}
	}
	if got := points(l.collect(t)); len(got) != 0 {
		t.Errorf("before Bind: %q", got)
	}
	wants(l.tel.Bind(nil), "nil")
	if err := l.tel.Bind(l.guard); err != nil {
		t.Fatal(err)
	}
	wants(l.tel.Bind(l.guard), "WithName")
	if got := points(l.collect(t)); len(got) != 2+1+11+1+1+1+1 {
		t.Errorf("bound: %q", got)
	}
	for range 2 {
		if err := l.tel.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := points(l.collect(t)); len(got) != 0 {
		t.Errorf("closed: %q", got)
	}
	wants(l.tel.Bind(l.guard), "Close")
	_ = l.run(t, "d")
	if got := points(l.collect(t), "execguard.runs"); len(got) != 1 {
		t.Errorf("a run that ends after Close: %q", got)
	}
}

func TestBind_TwoGuardsWithNames(t *testing.T) {
	s := newSDK()
	for _, name := range []string{"payments", "reports"} {
		tel := s.telemetry(t, guardotel.WithName(name))
		g, err := guard.New(guardtest.NewValidator("d"), guard.WithObserver(tel.Observe))
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		if err := errors.Join(tel.Bind(g), g.Run(t.Context(), "d", nothingToDo)); err != nil {
			t.Fatal(err)
		}
	}
	s.want(t, []string{"execguard.runs", "execguard.device.active"},
		"execguard.runs{decision.code=ALLOW guard.name=payments run.outcome=finished} 1",
		"execguard.runs{decision.code=ALLOW guard.name=reports run.outcome=finished} 1",
		"execguard.device.active{guard.name=payments} 0", "execguard.device.active{guard.name=reports} 0")
}

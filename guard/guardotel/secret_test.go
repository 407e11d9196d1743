package guardotel_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

const secret = "org_5up3r53cr3t"

// A function's error may quote a connection string, and a transport's the address that it was given; neither
// is for telemetry (S8).
func TestSecrets_AreNeitherOnSpansNorInMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := boundLab(t)
		leak := errors.New("dial postgres://u:" + secret + "@db")
		_ = l.guard.Run(t.Context(), "d", func(context.Context) error { return fmt.Errorf("%w", leak) })
		l.authority.Next("e", guardtest.Reply(guard.Decision{}, leak),
			guardtest.Reply(guard.Decision{Code: guard.CodeDeviceRevoked, Reason: secret, RequestID: "r"}, leak), guardtest.Panic(secret))
		for range 3 {
			_ = l.run(t, "e")
			time.Sleep(time.Second)
		}
		l.stop(t, timeout+time.Second, leak, func() { l.authority.Always("d", guardtest.Reply(guard.Decision{Reason: secret}, leak)) })
		all := points(l.collect(t))
		for _, name := range []string{"execguard.run", "execguard.validate"} {
			all = append(all, l.told(name)...)
		}
		if len(l.told("execguard.run")) != 5 {
			t.Errorf("%d spans", len(l.told("execguard.run")))
		}
		for _, s := range l.spans.Ended() {
			all = append(all, fmt.Sprintf("%+v %+v %+v", s.Attributes(), s.Events(), s.Status()))
		}
		for _, text := range all {
			if strings.Contains(text, "3cr3t") || strings.Contains(text, "postgres") {
				t.Error(text)
			}
		}
	})
}

// An exporter's headers hold its key, and a provider its exporters.
func TestSecrets_ATelemetryShowsNothingOfItsProviders(t *testing.T) {
	tel := newSDK().telemetry(t)
	text, err := json.Marshal(map[string]any{"seen": tel})
	for _, got := range []string{fmt.Sprintf("%v", tel), fmt.Sprintf("%+v", tel), fmt.Sprintf("%#v", tel)} {
		if got != "guardotel.Telemetry" {
			t.Error(got)
		}
	}
	if string(text) != `{"seen":{}}` || err != nil {
		t.Errorf("%s, %v", text, err)
	}
}

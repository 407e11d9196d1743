package licentric_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/licentric"
	"github.com/execguard/execguard/internal/licentricserver"
)

// bench is a local service in process, what was asked of it, and what stands in the way.
type bench struct {
	*licentricserver.Service
	license licentricserver.License

	mu    sync.Mutex
	calls []string                                       // "validate", "heartbeat", "machines"
	block func(call string, r *http.Request) error       // or nil: what happens before the service is asked
	edit  func(call string, body string) (edited string) // or nil: what becomes of an answer
}

func newBench(t *testing.T, opts ...licentricserver.Option) *bench {
	t.Helper()
	service, err := licentricserver.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	return &bench{Service: service, license: licensed(t, service, licentricserver.License{Key: licenseKey, Heartbeats: 10 * time.Minute}, device)}
}

func (b *bench) RoundTrip(r *http.Request) (*http.Response, error) {
	call := "machines"
	switch {
	case strings.HasSuffix(r.URL.Path, "/validate-key"):
		call = "validate"
	case strings.HasSuffix(r.URL.Path, "/heartbeat"):
		call = "heartbeat"
	}
	b.mu.Lock()
	b.calls = append(b.calls, call)
	block, edit := b.block, b.edit
	b.mu.Unlock()
	if block != nil {
		if err := block(call, r); err != nil {
			return nil, err
		}
	}
	resp, err := handled(b.Service).RoundTrip(r)
	if err == nil && edit != nil {
		body, _ := io.ReadAll(resp.Body)
		resp.Body = io.NopCloser(strings.NewReader(edit(call, string(body))))
	}
	return resp, err
}

// asked returns what was asked since it was last called: "V" for a validation, "H" for a
// heartbeat, "M" for a page of machines.
func (b *bench) asked() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all strings.Builder
	for _, call := range b.calls {
		all.WriteString(strings.ToUpper(call[:1]))
	}
	b.calls = nil
	return all.String()
}

func (b *bench) set(block func(call string, r *http.Request) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.block = block
}

func (b *bench) rewrite(edit func(call, body string) string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.edit = edit
}

func (b *bench) validator(t *testing.T, opts ...licentric.ValidatorOption) guard.Validator {
	t.Helper()
	return offsocket(t, "", b).Validator(b.license.Key, opts...)
}

// beaten has the device's machine send a heartbeat by itself, so that it is alive.
func (b *bench) beaten(t *testing.T) {
	t.Helper()
	if _, err := offsocket(t, "", handled(b.Service)).Heartbeat(t.Context(), b.license.Key, b.Machines(b.license.ID)[0].ID); err != nil {
		t.Fatal(err)
	}
}

// allowed wants ALLOW with that Reason, and those requests.
func allowed(t *testing.T, v guard.Validator, b *bench, reason, asked string) {
	t.Helper()
	d, err := v.Validate(t.Context(), device)
	if err != nil || !d.Allowed || d.Code != guard.CodeAllow || d.Reason != reason || d.DeviceID != device {
		t.Errorf("%+v, %v, want ALLOW with %q", d, err, reason)
	}
	if got := b.asked(); got != asked {
		t.Errorf("asked %s, want %s", got, asked)
	}
}

// denied wants DEVICE_NOT_FOUND with that Reason, and those requests.
func denied(t *testing.T, v guard.Validator, b *bench, reason, asked string) {
	t.Helper()
	d, err := v.Validate(t.Context(), device)
	if err != nil || d.Allowed || d.Code != guard.CodeDeviceNotFound || d.Reason != reason {
		t.Errorf("%+v, %v, want a denial with %q", d, err, reason)
	}
	if got := b.asked(); got != asked {
		t.Errorf("asked %s, want %s", got, asked)
	}
}

// Without a policy that demands them, no heartbeat is ever sent.
func TestNoHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		if err := b.RequireHeartbeats(b.license.ID, 0); err != nil {
			t.Fatal(err)
		}
		v := b.validator(t)
		for range 10 {
			allowed(t, v, b, "VALID", "V")
			time.Sleep(time.Hour)
		}
	})
}

// HEARTBEAT_REQUIRED costs one heartbeat and one more question, and is learnt from then on: one
// heartbeat each 5 minutes, with a question.
func TestHeartbeatRequired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		v := b.validator(t)
		allowed(t, v, b, "VALID", "VHV")
		for range 3 {
			time.Sleep(5*time.Minute - time.Nanosecond)
			allowed(t, v, b, "VALID", "V")
			time.Sleep(time.Nanosecond)
			allowed(t, v, b, "VALID", "VH")
			allowed(t, v, b, "VALID", "V")
		}
		time.Sleep(10*time.Minute + time.Nanosecond) // nobody asked meanwhile, and the machine is dead
		allowed(t, v, b, "VALID", "VHV")
	})
}

// The policy is the licence's: what one device was denied for, the others are spared, though their
// own answers show nothing of heartbeats.
func TestHeartbeatsAreTheLicences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		v := b.validator(t)
		ask := func(id, asked string) {
			t.Helper()
			d, err := v.Validate(t.Context(), id)
			if got := b.asked(); err != nil || !d.Allowed || got != asked {
				t.Errorf("%s: %+v, %v, asked %s, want %s", id, d, err, got, asked)
			}
		}
		const other = "fp:worker:test:08"
		plain := func(call, body string) string {
			if call == "validate" {
				return `{"valid":true,"code":"VALID","machine":{"id":"` + b.Machines(b.license.ID)[0].ID + `","fingerprint":"` + other + `"}}`
			}
			return body
		}
		b.rewrite(plain)
		ask(other, "V")
		b.rewrite(nil)
		ask(device, "VHV")
		b.rewrite(plain)
		ask(other, "VH")
		ask(other, "V")
	})
}

// With an option, heartbeats begin at once, are as far apart as it says, and one device's are not
// another's.
func TestHeartbeatsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		if err := b.RequireHeartbeats(b.license.ID, 0); err != nil {
			t.Fatal(err)
		}
		v := b.validator(t, licentric.WithHeartbeats(time.Minute))
		for range 3 {
			allowed(t, v, b, "VALID", "VH")
			time.Sleep(59 * time.Second)
			allowed(t, v, b, "VALID", "V")
			time.Sleep(time.Second)
		}
		const other = "fp:worker:test:08"
		if _, err := b.AddMachine(b.license.ID, other); err != nil {
			t.Fatal(err)
		}
		allowed(t, v, b, "VALID", "VH")
		if d, err := v.Validate(t.Context(), other); err != nil || !d.Allowed || b.asked() != "VH" {
			t.Errorf("another device: %+v, %v", d, err)
		}
		allowed(t, v, b, "VALID", "V")
	})
}

// A machine that shows heartbeats is one whose policy demands them: a restarted program goes on
// before the service has to ask.
func TestHeartbeatsAreLearnt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.beaten(t)
		allowed(t, b.validator(t), b, "VALID", "VH")
		for machine, want := range map[string]string{
			`"heartbeatStatus":"ALIVE"`:                      "VH",
			`"lastHeartbeatAt":"2026-01-01T00:00:00.000Z"`:   "VH",
			`"heartbeatStatus":"NOT_STARTED"`:                "V",
			`"heartbeatStatus":null,"lastHeartbeatAt":null`:  "V",
			`"heartbeatStatus":"","lastHeartbeatAt":"never"`: "V",
		} {
			b.rewrite(func(call, body string) string {
				if call == "validate" {
					return `{"valid":true,"code":"VALID","machine":{"id":"` + b.Machines(b.license.ID)[0].ID + `","fingerprint":"` + device + `",` + machine + `}}`
				}
				return body
			})
			t.Log(machine)
			allowed(t, b.validator(t), b, "VALID", want)
		}
	})
}

// However many ask at once, a device's heartbeat is sent once; who finds the device valid does not
// wait for it.
func TestOneHeartbeatADevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		v := b.validator(t, licentric.WithHeartbeats(time.Minute))
		b.beaten(t)
		release := make(chan struct{})
		b.set(func(call string, r *http.Request) error {
			if call == "heartbeat" {
				<-release
			}
			return nil
		})
		var group sync.WaitGroup
		answered := make(chan guard.Decision, 50)
		for range 50 {
			group.Go(func() {
				d, err := v.Validate(t.Context(), device)
				if err != nil || !d.Allowed {
					t.Errorf("%+v, %v", d, err)
				}
				answered <- d
			})
		}
		synctest.Wait()
		if len(answered) != 49 {
			t.Errorf("%d of 50 were answered while one heartbeat was in flight, want 49", len(answered))
		}
		close(release)
		group.Wait()
		if got := strings.Count(b.asked(), "H"); got != 1 {
			t.Errorf("%d heartbeats, want 1", got)
		}
	})
}

// Denied for want of a heartbeat, many ask at once: one sends it, all wait for it and ask again.
func TestOneHeartbeatRevives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		v := b.validator(t)
		b.set(func(call string, r *http.Request) error {
			if call == "heartbeat" {
				time.Sleep(time.Second)
			}
			return nil
		})
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() {
				if d, err := v.Validate(t.Context(), device); err != nil || !d.Allowed {
					t.Errorf("%+v, %v", d, err)
				}
			})
		}
		group.Wait()
		if got := b.asked(); strings.Count(got, "H") != 1 || strings.Count(got, "V") != 40 {
			t.Errorf("asked %s, want 1 heartbeat and 40 validations", got)
		}
	})
}

// The machine is activated anew while another question's heartbeat for the old one is under way: that
// one fails, which says nothing of the new machine.
func TestHeartbeatOfAMachineThatIsGoneRevivesTheNewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		v := b.validator(t)
		first, release := true, make(chan struct{})
		b.set(func(call string, _ *http.Request) error {
			b.mu.Lock()
			slow := call == "heartbeat" && first
			first = first && !slow
			b.mu.Unlock()
			if slow {
				<-release
			}
			return nil
		})
		var group sync.WaitGroup
		group.Go(func() {
			d, err := v.Validate(t.Context(), device)
			if err != nil || d.Allowed || d.Code != guard.CodeDeviceNotFound {
				t.Errorf("of the machine that is gone: %+v, %v", d, err)
			}
		})
		synctest.Wait()
		if err := b.RemoveMachine(b.license.ID, device); err != nil {
			t.Fatal(err)
		}
		if _, err := b.AddMachine(b.license.ID, device); err != nil {
			t.Fatal(err)
		}
		group.Go(func() {
			if d, err := v.Validate(t.Context(), device); err != nil || !d.Allowed {
				t.Errorf("of the new machine: %+v, %v", d, err)
			}
		})
		synctest.Wait()
		close(release)
		group.Wait()
	})
}

// An answer to a question from before the heartbeat does not cost a second one.
func TestLateAnswerWantsNoSecondHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		v := b.validator(t)
		first := true
		b.rewrite(func(call, body string) string {
			b.mu.Lock()
			slow := call == "validate" && first
			first = first && !slow
			b.mu.Unlock()
			if slow {
				time.Sleep(time.Minute / 4) // the answer is under way while another question revives the device
			}
			return body
		})
		var group sync.WaitGroup
		group.Go(func() {
			if d, err := v.Validate(t.Context(), device); err != nil || !d.Allowed {
				t.Errorf("%+v, %v", d, err)
			}
		})
		synctest.Wait()
		if d, err := v.Validate(t.Context(), device); err != nil || !d.Allowed {
			t.Errorf("%+v, %v", d, err)
		}
		group.Wait()
		if got := b.asked(); got != "VVHVV" {
			t.Errorf("asked %s, want VVHVV", got)
		}
	})
}

// A heartbeat that fails changes no ALLOW, is told in the Reason, and is due again at the next
// question, unless the service wants to be left alone.
func TestHeartbeatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.beaten(t)
		v := b.validator(t, licentric.WithHeartbeats(time.Minute))
		b.Fail(licentricserver.CallHeartbeat, 503, 0)
		const busy = "VALID; the heartbeat failed: HTTP 503: SERVICE_UNAVAILABLE"
		wants := func(asked, prefix string) {
			t.Helper()
			d, err := v.Validate(t.Context(), device)
			if got := b.asked(); err != nil || !d.Allowed || !strings.HasPrefix(d.Reason, prefix) || got != asked {
				t.Errorf("%+v, %v, asked %s, want %s", d, err, got, asked)
			}
		}
		wants("VH", busy)
		wants("VH", busy)
		b.Fail(licentricserver.CallHeartbeat, 429, 7*time.Second)
		const limited = "VALID; the heartbeat failed: HTTP 429: RATE_LIMITED"
		wants("VH", limited)
		time.Sleep(6 * time.Second)
		wants("V", limited)
		time.Sleep(2 * time.Second)
		wants("VH", limited)
		b.Mend(licentricserver.CallHeartbeat)
		time.Sleep(8 * time.Second)
		allowed(t, v, b, "VALID", "VH")
		allowed(t, v, b, "VALID", "V")
	})
}

// Where the heartbeat cannot be sent, or the second question not be answered, the denial stands.
func TestRevivalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		v := b.validator(t)
		refused := errors.New("connection refused")
		b.set(func(call string, r *http.Request) error {
			if call == "heartbeat" {
				return refused
			}
			return nil
		})
		denied(t, v, b, "HEARTBEAT_REQUIRED; the heartbeat failed: connection refused", "VH")
		beaten := false
		b.set(func(call string, r *http.Request) error {
			if call == "validate" && beaten {
				return refused
			}
			beaten = call == "heartbeat"
			return nil
		})
		denied(t, v, b, "HEARTBEAT_REQUIRED; asked once more: connection refused", "VHV")
	})
}

// The second answer decides, whatever it is, and there is no third question.
func TestSecondAnswerDecides(t *testing.T) {
	for second, want := range map[string]guard.Decision{
		`{"valid":false,"code":"HEARTBEAT_REQUIRED"}`:     {Code: guard.CodeDeviceNotFound, Reason: "HEARTBEAT_REQUIRED"},
		`{"valid":false,"code":"SUSPENDED"}`:              {Code: guard.CodePlanFrozen, Reason: "SUSPENDED"},
		`{"valid":true,"code":"VALID","requestId":"r-2"}`: {Allowed: true, Code: guard.CodeAllow, Reason: "VALID", RequestID: "r-2"},
	} {
		b := newBench(t)
		questions := 0
		b.rewrite(func(call, body string) string {
			if call != "validate" {
				return body
			}
			if questions++; questions > 1 {
				return second
			}
			return body
		})
		d, err := b.validator(t).Validate(t.Context(), device)
		if err != nil || d != want || b.asked() != "VHV" {
			t.Errorf("%s: %+v, %v", second, d, err)
		}
	}
}

// A heartbeat takes at most half of the time that is left, so that the ALLOW comes in time.
func TestHeartbeatHalvesTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.beaten(t)
		b.set(func(call string, r *http.Request) error {
			if call == "validate" {
				time.Sleep(2 * time.Second)
				return nil
			}
			<-r.Context().Done()
			return context.Cause(r.Context())
		})
		v := b.validator(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start := time.Now()
		d, err := v.Validate(ctx, device)
		if took := time.Since(start); err != nil || !d.Allowed || took != 6*time.Second {
			t.Errorf("%+v, %v after %v, want ALLOW after 6s", d, err, took)
		}
		if want := "VALID; the heartbeat failed: context deadline exceeded"; d.Reason != want {
			t.Errorf("%q, want %q", d.Reason, want)
		}
		start = time.Now()
		d, err = v.Validate(t.Context(), device) // no end but the client's own
		if took := time.Since(start); err != nil || !d.Allowed || took != 32*time.Second {
			t.Errorf("%+v, %v after %v, want ALLOW after 32s", d, err, took)
		}
	})
}

// Who waits for another's heartbeat leaves when its own time is over; and a heartbeat that was
// given up is tried again by who is still there (L3).
func TestWaitersForHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		v := b.validator(t)
		hold := true
		b.set(func(call string, r *http.Request) error {
			b.mu.Lock()
			held := call == "heartbeat" && hold
			b.mu.Unlock()
			if held {
				<-r.Context().Done()
				return context.Cause(r.Context())
			}
			return nil
		})
		ask := func(end time.Duration, group *sync.WaitGroup, d *guard.Decision) {
			group.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), end)
				defer cancel()
				*d, _ = v.Validate(ctx, device)
			})
			synctest.Wait()
		}
		var group sync.WaitGroup
		var sender, leaver, stayer guard.Decision
		ask(20*time.Second, &group, &sender) // its heartbeat is given up after 10 s
		ask(3*time.Second, &group, &leaver)
		ask(25*time.Second, &group, &stayer)
		time.Sleep(5 * time.Second)
		b.mu.Lock()
		hold = false
		b.mu.Unlock()
		group.Wait()
		for name, d := range map[string]guard.Decision{"sender": sender, "leaver": leaver} {
			if d.Allowed || d.Code != guard.CodeDeviceNotFound || d.Reason != "HEARTBEAT_REQUIRED; the heartbeat failed: context deadline exceeded" {
				t.Errorf("%s: %+v", name, d)
			}
		}
		if !stayer.Allowed {
			t.Errorf("stayer: %+v", stayer)
		}
		if got := b.asked(); got != "VHVVHV" {
			t.Errorf("asked %s", got)
		}
	})
}

// Where no answer names the machine, the list of machines does, for who has an API key; once.
func TestMachineIsLookedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.beaten(t)
		b.rewrite(func(call, body string) string {
			if call == "validate" {
				return `{"valid":true,"code":"VALID","license":{"id":"` + b.license.ID + `"}}`
			}
			return body
		})
		ask := func(v guard.Validator, id, reason, asked string) {
			t.Helper()
			d, err := v.Validate(t.Context(), id)
			if got := b.asked(); err != nil || !d.Allowed || d.Reason != reason || got != asked {
				t.Errorf("%+v, %v, asked %s, want %q and %s", d, err, got, reason, asked)
			}
		}
		demanded := licentric.WithHeartbeats(time.Minute)
		v := offsocket(t, b.APIKey(), b).Validator(b.license.Key, demanded)
		ask(v, device, "VALID", "VMH")
		time.Sleep(time.Minute)
		ask(v, device, "VALID", "VH")
		ask(v, "fp:not-in-the-list", "VALID; the heartbeat failed: invalid_request: the licence has no machine with this fingerprint", "VM")
		const nobody = "VALID; the heartbeat failed: invalid_request: the answer names no machine, and the list of machines needs an API key (New)"
		ask(offsocket(t, "", b).Validator(b.license.Key, demanded), device, nobody, "V")
		ask(offsocket(t, apiKey, b).Validator(b.license.Key, demanded), device,
			"VALID; the heartbeat failed: "+unknownKey(t, b), "VM")

		// The machine was activated anew, under another id: it is looked for again.
		if err := b.RemoveMachine(b.license.ID, device); err != nil {
			t.Fatal(err)
		}
		if _, err := b.AddMachine(b.license.ID, device); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		d, err := v.Validate(t.Context(), device)
		if got := b.asked(); err != nil || !d.Allowed || !strings.Contains(d.Reason, "HTTP 404") || got != "VH" {
			t.Errorf("%+v, %v, asked %s", d, err, got)
		}
		ask(v, device, "VALID", "VMH")
	})
}

// unknownKey is what the service says of an API key that it does not know.
func unknownKey(t *testing.T, b *bench) string {
	t.Helper()
	_, err := offsocket(t, apiKey, handled(b.Service)).Machine(t.Context(), machineID)
	e := typedError(t, err)
	return fmt.Sprintf("HTTP %d: %s: %s", e.Status, e.Code, e.Message)
}

// A transport that panics takes its caller with it, and leaves nobody waiting.
func TestHeartbeatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		v := b.validator(t)
		b.set(func(call string, r *http.Request) error {
			if call == "heartbeat" {
				panic("a transport's own")
			}
			return nil
		})
		func() {
			defer func() {
				if p := recover(); p != "a transport's own" {
					t.Errorf("%v", p)
				}
			}()
			_, _ = v.Validate(t.Context(), device)
		}()
		b.set(nil)
		b.asked()
		allowed(t, v, b, "VALID", "VHV")
	})
}

// Ten thousand devices are remembered and not one more: the strangers cost a heartbeat at most.
func TestHeartbeatsAreBounded(t *testing.T) {
	if licentric.MaxBeats != 10_000 {
		t.Fatal(licentric.MaxBeats)
	}
	client := offsocket(t, "", transport(func(r *http.Request) (*http.Response, error) {
		return response(r, 200, []byte(`{"valid":true,"code":"VALID"}`)), nil
	}))
	v := client.Validator(licenseKey, licentric.WithHeartbeats(time.Hour))
	for i := range licentric.MaxBeats + 500 {
		if d, err := v.Validate(t.Context(), fmt.Sprintf("fp:device-%05d", i)); err != nil || !d.Allowed {
			t.Fatalf("%+v, %v", d, err)
		}
	}
	if n := licentric.Remembered(v); n > licentric.MaxBeats {
		t.Errorf("%d devices are remembered", n)
	}
}

// A guard's runs of one device cost one heartbeat a period, and a policy that demands them does
// not disturb them (B1, L2).
func TestHeartbeatsUnderGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		g, err := guard.New(b.validator(t), guard.WithInterval(time.Minute), guard.WithTimeout(10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				err := g.Run(t.Context(), device, func(ctx context.Context) error {
					select {
					case <-ctx.Done():
						return context.Cause(ctx)
					case <-time.After(30 * time.Minute):
						return nil
					}
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		// At most one question for each start, one more for the revival, and one a minute.
		got := b.asked()
		if beats, questions := strings.Count(got, "H"), strings.Count(got, "V"); beats < 6 || beats > 7 || questions > 8+1+31 {
			t.Errorf("asked %s: %d heartbeats and %d questions", got, beats, questions)
		}
	})
}

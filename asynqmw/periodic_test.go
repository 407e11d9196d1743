package asynqmw_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

const periodicDevice = "scheduler:periodic:01"

// provider is somebody's own, and counts how often it is asked.
type provider struct {
	configs []*asynq.PeriodicTaskConfig
	err     error
	asked   atomic.Int32
}

func (p *provider) GetConfigs() ([]*asynq.PeriodicTaskConfig, error) {
	p.asked.Add(1)
	return p.configs, p.err
}

func newProvider(types ...string) *provider {
	p := &provider{}
	for _, name := range types {
		p.configs = append(p.configs, &asynq.PeriodicTaskConfig{Cronspec: "@every 1s", Task: asynq.NewTask(name, nil)})
	}
	return p
}

func TestPeriodicPassesWhatIsAllowed(t *testing.T) {
	own := errors.New("the provider's own")
	for name, p := range map[string]*provider{
		"configs":          newProvider("one", "two"),
		"none":             {},
		"an error":         {err: own},
		"an error besides": {configs: newProvider("one").configs, err: own},
	} {
		t.Run(name, func(t *testing.T) {
			v := guardtest.NewValidator(periodicDevice)
			for range 2 {
				got, err := asynqmw.Periodic(v, periodicDevice, p).GetConfigs()
				if err != p.err || len(got) != len(p.configs) || len(got) > 0 && got[0] != p.configs[0] || (got == nil) != (p.configs == nil) {
					t.Errorf("got %v, %v", got, err)
				}
			}
			if calls := v.Calls(); len(calls) != 2 || calls[0].DeviceID != periodicDevice || p.asked.Load() != 2 {
				t.Errorf("the authority was asked %v, the provider %d times", calls, p.asked.Load())
			}
		})
	}
}

// expectEmpty fails the test unless the list is empty and there is no error: asynq's manager goes on with the
// schedule that it has where there is one, or where the list is nil and somebody has wrapped it.
func expectEmpty(t *testing.T, of asynq.PeriodicTaskConfigProvider, p *provider) {
	t.Helper()
	got, err := of.GetConfigs()
	if got == nil || len(got) != 0 || err != nil || p.asked.Load() != 0 {
		t.Errorf("got %v, %v, and the provider was asked %d times", got, err, p.asked.Load())
	}
}

// codes are all that there are, and some that there are not.
func deniedCodes() []guard.Code {
	return []guard.Code{
		guard.CodeDeviceRevoked, guard.CodeDeviceNotFound, guard.CodeOrgDisabled, guard.CodePlanFrozen, guard.CodePlanNotActive,
		guard.CodeEntitlementExpired, guard.CodeOrgNotFound, guard.CodeInvalidOrgKey, guard.CodeInvalidDeviceID, guard.CodeSystemUnavailable,
		"", "NO_SUCH_CODE", "allow", "ALLOW ",
	}
}

func TestPeriodicIsEmptyOnEveryOtherCode(t *testing.T) {
	for _, code := range deniedCodes() {
		for name, d := range map[string]guard.Decision{
			"denied": {Code: code, DeviceID: periodicDevice},
			"both":   {Allowed: true, Code: code, DeviceID: periodicDevice},
		} {
			t.Run(fmt.Sprintf("%s %q", name, code), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					v, p := guardtest.NewValidator(), newProvider("one")
					v.Always("", guardtest.Reply(d, nil))
					expectEmpty(t, asynqmw.Periodic(v, periodicDevice, p), p)
				})
			})
		}
	}
}

func TestPeriodicIsEmptyOnEverythingElse(t *testing.T) {
	allow := guard.Decision{Allowed: true, Code: guard.CodeAllow, DeviceID: periodicDevice}
	for name, answer := range map[string]guard.ValidatorFunc{
		"an error":                guardtest.Reply(guard.Decision{}, errors.New("no route")),
		"an error beside ALLOW":   guardtest.Reply(allow, errors.New("but")),
		"a typed nil error":       guardtest.Reply(allow, (*guard.DeniedError)(nil)),
		"not allowed, but ALLOW":  guardtest.Reply(guard.Decision{Code: guard.CodeAllow}, nil),
		"another device":          guardtest.Reply(guard.Decision{Allowed: true, Code: guard.CodeAllow, DeviceID: "another"}, nil),
		"one that has run out":    guardtest.Reply(guard.Decision{Allowed: true, Code: guard.CodeAllow, ExpiresAt: time.Unix(1, 0)}, nil),
		"a panic":                 guardtest.Panic("no"),
		"a panic with an error":   guardtest.Panic(errors.New("no")),
		"Goexit":                  guardtest.Goexit(),
		"hanging":                 guardtest.Hang(),
		"allowed when it is late": guardtest.Delay(time.Hour, guardtest.Reply(allow, nil)),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v, p := guardtest.NewValidator(), newProvider("one")
				v.Always(periodicDevice, answer)
				began := time.Now()
				expectEmpty(t, asynqmw.Periodic(v, periodicDevice, p), p)
				if took := time.Since(began); took > 3*time.Second {
					t.Errorf("it took %v, and a guard's timeout is 3s", took)
				}
			})
		})
	}
}

// A manager asks on its one goroutine, without a context: it must come back though the validator does
// not, each time, and the late ALLOW is nobody's.
func TestPeriodicGivesUpWhatHangs(t *testing.T) {
	for name, timeout := range map[string]time.Duration{"a validator": 3 * time.Second, "a guard": 50 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				scripted, p := guardtest.NewValidator(periodicDevice), newProvider("one")
				allow := guard.Decision{Allowed: true, Code: guard.CodeAllow}
				scripted.Always("", guardtest.Hold(release, guardtest.Reply(allow, nil)))
				v := guard.Validator(scripted)
				if name == "a guard" {
					v = newServeGuard(t, scripted, guard.WithTimeout(timeout))
				}
				of := asynqmw.Periodic(v, periodicDevice, p)
				for range 5 {
					began := time.Now()
					expectEmpty(t, of, p)
					if took := time.Since(began); took > timeout {
						t.Errorf("it took %v, and the timeout is %v", took, timeout)
					}
				}
				close(release)
				scripted.Always("", nil)
				synctest.Wait()
				if got, err := of.GetConfigs(); len(got) != 1 || err != nil {
					t.Errorf("afterwards: %v, %v", got, err)
				}
			})
		})
	}
}

// A Guard is asked as it is: it shares what it knows and its settings, and refuses once it is closed.
func TestPeriodicOfAGuard(t *testing.T) {
	v, p := guardtest.NewValidator(periodicDevice), newProvider("one")
	g := newServeGuard(t, v)
	of := asynqmw.Periodic(g, periodicDevice, p)
	run, session, err := guard.Begin(t.Context(), g, periodicDevice)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := of.GetConfigs(); len(got) != 1 || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	p.asked.Store(0)
	v.Deny(periodicDevice, guard.CodeDeviceRevoked)
	expectEmpty(t, of, p)
	if run.Err() == nil {
		t.Error("the denial was not learnt by the guard") // S3
	}
	session.End(nil)
	_ = session.Wait()
	v.Allow(periodicDevice)
	g.Close()
	asked := len(v.Calls())
	expectEmpty(t, of, p)
	if len(v.Calls()) != asked {
		t.Error("a closed guard asked")
	}
}

func TestPeriodicOfNoDevice(t *testing.T) {
	v, p := guardtest.NewValidator(), newProvider("one")
	v.Always("", guardtest.Reply(guard.Decision{Allowed: true, Code: guard.CodeAllow}, nil))
	for _, id := range []string{"", " \n"} {
		expectEmpty(t, asynqmw.Periodic(v, id, p), p)
	}
}

// valueValidator is one that is no pointer.
type valueValidator struct{}

func (valueValidator) Validate(context.Context, string) (guard.Decision, error) {
	return guard.Decision{Allowed: true, Code: guard.CodeAllow}, nil
}

type valueProvider struct{}

func (valueProvider) GetConfigs() ([]*asynq.PeriodicTaskConfig, error) {
	return newProvider("one").configs, nil
}

func TestPeriodicWithoutWhatItNeeds(t *testing.T) {
	v, p := guardtest.NewValidator(), newProvider()
	for name, tc := range map[string]struct {
		v guard.Validator
		p asynq.PeriodicTaskConfigProvider
	}{
		"no validator":       {nil, p},
		"a nil validator":    {(*guardtest.Validator)(nil), p},
		"a nil function":     {guard.ValidatorFunc(nil), p},
		"a nil guard":        {(*guard.Guard)(nil), p},
		"no provider":        {v, nil},
		"a nil provider":     {v, (*provider)(nil)},
		"neither":            {nil, nil},
		"nil ones of either": {(*guard.Guard)(nil), (*provider)(nil)},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("it does not panic")
				}
			}()
			asynqmw.Periodic(tc.v, periodicDevice, tc.p)
		})
	}
	if got, err := asynqmw.Periodic(valueValidator{}, periodicDevice, valueProvider{}).GetConfigs(); len(got) != 1 || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

// From several goroutines at once, though a manager has one: two managers may share it.
func TestPeriodicAtOnce(t *testing.T) {
	v, p := guardtest.NewValidator(periodicDevice), newProvider("one")
	of := asynqmw.Periodic(v, periodicDevice, p)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				if i == 0 {
					v.Deny(periodicDevice, guard.CodeDeviceRevoked)
					v.Allow(periodicDevice)
				}
				if got, err := of.GetConfigs(); err != nil || len(got) > 1 {
					t.Errorf("got %v, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}

// With asynq's own manager: what is scheduled is gone soon after the revocation, comes back after the
// restoration, and a manager starts though its device is denied.
func TestPeriodicWithAManager(t *testing.T) {
	t.Parallel()
	opt := newRedis(t)
	i, v, p := newInspector(t, opt), guardtest.NewValidator(), newProvider("periodic")
	manager, err := asynq.NewPeriodicTaskManager(asynq.PeriodicTaskManagerOpts{
		PeriodicTaskConfigProvider: asynqmw.Periodic(v, periodicDevice, p),
		RedisConnOpt:               opt,
		SchedulerOpts:              &asynq.SchedulerOpts{Logger: &serveLog{}},
		SyncInterval:               time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := manager.Start(); err != nil {
		t.Fatalf("a denied manager does not start: %v", err)
	}
	defer manager.Shutdown()
	enqueued := func() int { return counts(t, i, "default").pending }
	grows := func() {
		t.Helper()
		before := enqueued()
		serveAwait(t, func() error {
			if enqueued() == before {
				return errors.New("nothing is enqueued")
			}
			return nil
		})
	}
	stays := func() {
		t.Helper()
		calls := len(v.Calls())
		if _, err := v.Wait(t.Context(), calls+1); err != nil { // the answer to the next it obeys
			t.Fatal(err)
		}
		<-time.After(200 * time.Millisecond)
		before := enqueued()
		<-time.After(1300 * time.Millisecond)
		if n := enqueued(); n != before {
			t.Errorf("%d were enqueued while the device was denied", n-before)
		}
	}
	stays()
	if n := enqueued(); n != 0 || p.asked.Load() != 0 {
		t.Errorf("%d were enqueued before the device was ever allowed, and the provider was asked %d times", n, p.asked.Load())
	}
	v.Allow(periodicDevice)
	grows()
	v.Deny(periodicDevice, guard.CodeDeviceRevoked)
	stays()
	v.Allow(periodicDevice)
	grows()
	v.Always(periodicDevice, guardtest.Reply(guard.Decision{}, errors.New("no route")))
	stays()
}

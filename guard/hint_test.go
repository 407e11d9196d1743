package guard_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// underWatch makes a guard with one run in flight on device d, at a random point of its phase, and
// returns how many requests there were.
func underWatch(t *testing.T, opts ...guard.Option) (*authority, *guard.Guard, *running) {
	t.Helper()
	a := newAuthority()
	g := newGuard(t, a, opts...)
	r := launch(t.Context(), g, "d")
	time.Sleep(rand.N(time.Minute))
	synctest.Wait()
	return a, g, r
}

// untilJustAsked waits until the watch has asked, so that its next turn is an interval away.
func untilJustAsked(a *authority) {
	for n := a.count(); a.count() == n; {
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
	}
}

// sentAfter returns how long after t each request that was sent since then was sent.
func sentAfter(a *authority, t time.Time, devices ...string) (after []time.Duration) {
	for _, c := range a.asked(devices...) {
		if c.sent.Before(t) {
			continue
		}
		after = append(after, c.sent.Sub(t))
	}
	return after
}

func TestB3_AHintIsAskedAboutAtOnce(t *testing.T) {
	for _, id := range []string{"d", ""} {
		t.Run(fmt.Sprintf("Hint(%q), still allowed", id), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, g, r := underWatch(t)
				untilJustAsked(a)
				time.Sleep(rand.N(9 * time.Second))
				before := a.count()
				g.Hint(id)
				synctest.Wait()
				if a.count() != before+1 || r.cancelled() {
					t.Errorf("%d requests, run cancelled: %t", a.count()-before, r.cancelled())
				}
			})
		})
		for _, code := range []guard.Code{guard.CodeDeviceRevoked, guard.CodeOrgDisabled} {
			t.Run(fmt.Sprintf("Hint(%q), %s", id, code), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a, g, r := underWatch(t)
					a.deny(code)
					hinted := time.Now()
					g.Hint(id)
					denied := (*guard.DeniedError)(nil)
					if err := r.finish(); !errors.As(err, &denied) || denied.Decision.Code != code || !denied.InFlight {
						t.Errorf("Run: %v", err)
					}
					if since := time.Since(hinted); since != 0 {
						t.Errorf("stopped %v after the hint", since)
					}
				})
			})
		}
	}
}

func TestB3_WhereARequestIsInFlightAHintIsAskedAboutAfterIt(t *testing.T) {
	for name, b := range map[string]behaviour{
		"answered":             after(2*time.Second, allows),
		"answered, a deaf one": deaf(2*time.Second, allows),
		"not answered in time": hangs,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, g, _ := underWatch(t)
				untilJustAsked(a)
				a.set(b)
				go func() { _, _ = g.Validate(t.Context(), "d") }()
				time.Sleep(500 * time.Millisecond)
				before := a.last(t)
				a.allow()
				for range 20 {
					g.Hint("d")
				}
				synctest.Wait()
				if n := a.inFlight("d"); n != 1 {
					t.Fatalf("%d requests in flight (L1)", n)
				}
				time.Sleep(3 * time.Second)
				synctest.Wait()
				after := sentAfter(a, before.sent.Add(1))
				busy := 2 * time.Second
				if name == "not answered in time" {
					busy = 3 * time.Second
				}
				// One for the first hint, and one for all others at the end of a tenth of the interval:
				// it is over by then, so that they are the same.
				if len(after) != 1 || after[0]+1 != busy {
					t.Errorf("asked again after %v, want once, after %v", after, busy)
				}
			})
		})
	}
}

func TestB3_AHintThatComesWhileAnOlderAnswerIsUnderWayIsNotSettledByIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, g, r := underWatch(t)
		untilJustAsked(a)
		a.set(after(2*time.Second, allows))
		go func() { _, _ = g.Validate(t.Context(), "d") }()
		synctest.Wait()
		a.deny(guard.CodeDeviceRevoked)
		hinted := time.Now()
		g.Hint("d")
		if err := r.finish(); !errors.Is(err, guard.ErrDenied) || r.at.Sub(hinted) != 2*time.Second {
			t.Errorf("Run: %v after %v", err, r.at.Sub(hinted))
		}
	})
}

// A start whose question is under way begins on an answer that is older than the hint.
func TestB3_AHintDuringAStartIsFollowedByAQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(after(2*time.Second, allows))
		g := newGuard(t, a)
		r := launch(t.Context(), g, "d")
		time.Sleep(time.Second)
		a.deny(guard.CodeDeviceRevoked)
		began := time.Now()
		g.Hint("d")
		if err := r.finish(); !errors.Is(err, guard.ErrDenied) || r.at.Sub(began) != time.Second {
			t.Errorf("Run: %v after %v", err, r.at.Sub(began))
		}
	})
}

func TestB3_FurtherHintsWithinATenthOfTheIntervalAreAskedOnceAtItsEnd(t *testing.T) {
	for _, tc := range []struct {
		name  string
		hints int
		each  time.Duration
		want  []time.Duration
	}{
		{"one", 1, 0, []time.Duration{0}},
		{"doubled at once", 2, 0, []time.Duration{0, time.Second}},
		{"a flood at once", 1000, 0, []time.Duration{0, time.Second}},
		{"doubled within the tenth", 2, 900 * time.Millisecond, []time.Duration{0, time.Second}},
		{"a flood within the tenth", 90, 10 * time.Millisecond, []time.Duration{0, time.Second}},
		{"the second after the tenth", 2, 1100 * time.Millisecond, []time.Duration{0, 1100 * time.Millisecond}},
		// The hints of the second tenth are asked at the end of that one.
		{"over two tenths", 15, 100 * time.Millisecond, []time.Duration{0, time.Second, 2 * time.Second}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, g, _ := underWatch(t)
				untilJustAsked(a)
				time.Sleep(time.Millisecond)
				began := time.Now()
				for range tc.hints {
					g.Hint("d")
					time.Sleep(tc.each)
				}
				time.Sleep(time.Until(began.Add(5 * time.Second)))
				synctest.Wait()
				if got := sentAfter(a, began); fmt.Sprint(got) != fmt.Sprint(tc.want) {
					t.Errorf("asked after %v, want %v", got, tc.want)
				}
			})
		})
	}
}

// The hour's worst: hints without end cost a request each tenth of the interval.
func TestB3_AFloodOfHintsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, g, r := underWatch(t)
		before := a.count()
		for range 6000 {
			g.Hint([]string{"d", ""}[rand.N(2)])
			time.Sleep(rand.N(20 * time.Millisecond))
		}
		synctest.Wait()
		n, most := a.count()-before, 60+6+2
		if n > most || n < 50 || r.cancelled() {
			t.Errorf("%d requests in about 60s of hints, want at most %d; cancelled: %t", n, most, r.cancelled())
		}
	})
}

func TestB3_AHintDoesNotMoveThePhaseOfTheWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, g, _ := underWatch(t)
		untilJustAsked(a)
		began := a.last(t).sent
		time.Sleep(3 * time.Second)
		hinted := time.Since(began)
		g.Hint("d")
		time.Sleep(25 * time.Second)
		synctest.Wait()
		want := []time.Duration{0, hinted, 10 * time.Second, 20 * time.Second}
		if got := sentAfter(a, began); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("asked after %v, want %v", got, want)
		}
	})
}

func TestB3_ForgedHintsExtendNoPermission(t *testing.T) {
	for name, tc := range map[string]struct {
		outage behaviour
		most   time.Duration // from the last ALLOW
	}{
		"errors":         {fails(errors.New("down")), 10 * time.Second},
		"silence":        {hangs, 13 * time.Second},
		"too late":       {deaf(4*time.Second, allows), 13 * time.Second},
		"allows nothing": {answers(guard.Decision{Allowed: true}, nil), 10 * time.Second},
	} {
		for _, every := range []time.Duration{time.Millisecond, 100 * time.Millisecond, 1500 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s, a hint each %v", name, every), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a := newAuthority()
					g := newGuard(t, a)
					run := runAndWatch(t.Context(), g, "d")
					time.Sleep(rand.N(time.Minute))
					synctest.Wait()
					last := a.last(t).sent
					a.set(tc.outage)
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					go func() {
						for sleep(ctx, rand.N(2*every)) == nil {
							g.Hint([]string{"d", ""}[rand.N(2)])
						}
					}()
					s := <-run
					if lasted := s.at.Sub(last); lasted > tc.most {
						t.Errorf("stopped %v after the last ALLOW was asked for, want at most %v", lasted, tc.most)
					}
					if !errors.Is(s.err, guard.ErrUnavailable) {
						t.Errorf("Run: %v", s.err)
					}
					cancel()
					time.Sleep(5 * time.Second)
				})
			})
		}
	}
}

// «Could not ask» is no answer to anyone but the watch (S3): a hint that finds the authority down
// for a moment stops nothing.
func TestB3_AForgedHintCancelsNothing(t *testing.T) {
	for name, outage := range map[string]behaviour{
		"an error":           fails(errors.New("down")),
		"SYSTEM_UNAVAILABLE": denies(guard.CodeSystemUnavailable),
		"silence":            hangs,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, g, r := underWatch(t)
				for range 10 {
					untilJustAsked(a)
					before := a.count()
					a.set(outage)
					g.Hint([]string{"d", ""}[rand.N(2)])
					time.Sleep(5 * time.Second)
					a.allow()
					if n := a.count() - before; n != 1 {
						t.Fatalf("%d requests for one hint", n)
					}
					if r.cancelled() {
						t.Fatalf("cancelled: %v", context.Cause(r.ctx))
					}
				}
			})
		})
	}
}

func TestB3_AHintEndsReuse(t *testing.T) {
	nothing := func(context.Context) error { return nil }
	for _, id := range []string{"d", ""} {
		t.Run(fmt.Sprintf("Hint(%q)", id), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				g := newGuard(t, a, guard.WithReuse(10*time.Second))
				if err := g.Run(t.Context(), "d", nothing); err != nil {
					t.Fatal(err)
				}
				g.Hint(id)
				synctest.Wait()
				if n := a.count(); n != 1 {
					t.Errorf("%d requests: the hint of a device that nobody waits for costs one", n)
				}
				a.deny(guard.CodeDeviceRevoked)
				if err := g.Run(t.Context(), "d", nothing); !errors.Is(err, guard.ErrDenied) || a.count() != 2 {
					t.Errorf("Run: %v, %d requests", err, a.count())
				}
			})
		})
	}
	t.Run("of another device only", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a, guard.WithReuse(10*time.Second))
			for range 2 {
				if err := g.Run(t.Context(), "d", nothing); err != nil {
					t.Fatal(err)
				}
				g.Hint("other")
			}
			if n := a.count(); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	})
	t.Run("a doubled hint, within the tenth", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := newAuthority()
			g := newGuard(t, a, guard.WithReuse(10*time.Second))
			for i := range 5 {
				if err := g.Run(t.Context(), "d", nothing); err != nil {
					t.Fatal(err)
				}
				if n := a.count(); n != i+1 {
					t.Errorf("Run %d started on %d requests", i, n)
				}
				g.Hint("d")
				time.Sleep(10 * time.Millisecond)
			}
		})
	})
}

// The answer was asked for before the hint: good enough for who asked, not for who comes later.
func TestB3_AnAnswerAskedForBeforeTheHintIsNotReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(after(2*time.Second, allows))
		g := newGuard(t, a, guard.WithReuse(10*time.Second))
		nothing := func(context.Context) error { return nil }
		go func() {
			time.Sleep(time.Second)
			g.Hint("d")
			a.set(after(time.Second, denies(guard.CodeDeviceRevoked)))
		}()
		if err := g.Run(t.Context(), "d", nothing); err != nil {
			t.Fatal(err)
		}
		if err := g.Run(t.Context(), "d", nothing); !errors.Is(err, guard.ErrDenied) {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestB3_AHintRenewsAPermissionInDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithReuse(10*time.Second))
		for range 2 { // the second reuses
			if err := g.Run(t.Context(), "d", func(context.Context) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		g.Hint("d")
		synctest.Wait()
		if n := a.count(); n != 2 {
			t.Errorf("%d requests, want one for the hint", n)
		}
	})
}

func TestB3_AHintForEveryDeviceCostsOneRequestForEachThatWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithMaxRequests(200), guard.WithReuse(time.Second))
		for i := range 50 {
			device := fmt.Sprint("working", i)
			for range 3 {
				launch(t.Context(), g, device)
			}
			if err := g.Run(t.Context(), fmt.Sprint("idle", i), func(context.Context) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		before := a.count()
		hinted := time.Now()
		g.Hint("")
		synctest.Wait()
		asked := map[string]int{}
		for _, c := range a.asked()[before:] {
			asked[c.device]++
		}
		for i := range 50 {
			if n := asked[fmt.Sprint("working", i)]; n != 1 {
				t.Errorf("%d requests about a device that works", n)
			}
		}
		if len(asked) != 50 || time.Since(hinted) != 0 {
			t.Errorf("%d devices asked about", len(asked))
		}
	})
}

func TestB3_AHintForAnUnknownDeviceCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, g, r := underWatch(t)
		untilJustAsked(a)
		before := a.count()
		for _, id := range []string{"stranger", "D", "d ", " ", "gone"} {
			g.Hint(id)
		}
		time.Sleep(9 * time.Second)
		if n := a.count(); n != before || r.cancelled() {
			t.Errorf("%d requests, cancelled: %t", n-before, r.cancelled())
		}
	})
}

func TestB3_AHintForADeviceThatHasComeToRestCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		if err := g.Run(t.Context(), "d", func(context.Context) error { return nil }); err != nil {
			t.Fatal(err)
		}
		g.Hint("d")
		time.Sleep(time.Minute)
		if n := a.count(); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

func TestB3_HintDoesNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		blocked := make(chan struct{})
		g := newGuard(t, a, guard.WithMaxRequests(1), guard.WithObserver(func(_ context.Context, e guard.Event) {
			if e.Kind == guard.EventHinted {
				<-blocked
			}
		}))
		launch(t.Context(), g, "d")
		synctest.Wait()
		release := a.stick(t, allows)
		launch(t.Context(), g, "d")
		launch(t.Context(), g, "other")
		began := time.Now()
		for range 3000 { // more than the queue holds
			g.Hint("d")
			g.Hint("")
		}
		if since := time.Since(began); since != 0 {
			t.Errorf("it took %v", since)
		}
		close(blocked)
		release()
		synctest.Wait()
	})
}

func TestB3_AHintToAWaitingKeepIsAskedAboutAtOnce(t *testing.T) {
	for _, id := range []string{"d", ""} {
		t.Run(fmt.Sprintf("Hint(%q)", id), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				a.deny(guard.CodeDeviceRevoked)
				g := newGuard(t, a)
				k := keep(t.Context(), g, "d")
				time.Sleep(rand.N(time.Minute))
				for range 20 {
					time.Sleep(1100 * time.Millisecond)
					synctest.Wait()
					before := a.count()
					g.Hint(id)
					synctest.Wait()
					if n := a.count() - before; n != 1 {
						t.Fatalf("%d requests for a hint", n)
					}
				}
				a.allow()
				time.Sleep(1100 * time.Millisecond)
				g.Hint(id)
				synctest.Wait()
				if k.calls() != 1 {
					t.Errorf("the function was called %d times after the hint", k.calls())
				}
			})
		})
	}
}

func TestB3_AHintToAWaitingKeepLeavesTheAuthorityAloneAsLongAsItWants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.answer(guard.Decision{Code: guard.CodeDeviceRevoked, RetryAfter: 25 * time.Second}, nil)
		g := newGuard(t, a)
		k := keep(t.Context(), g, "d")
		synctest.Wait()
		began := time.Now()
		a.allow()
		for time.Since(began) < 24900*time.Millisecond {
			g.Hint([]string{"d", ""}[rand.N(2)])
			time.Sleep(rand.N(100 * time.Millisecond))
		}
		synctest.Wait()
		if n := a.count(); n != 1 {
			t.Errorf("%d requests before RetryAfter was over", n)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		// A hint of the last tenth may be asked about once more.
		if got := sentAfter(a, began); k.calls() != 1 || len(got) > 3 || got[1] != 25*time.Second {
			t.Errorf("%d calls, asked after %v", k.calls(), got)
		}
	})
}

// The Keep's own question is in flight and will be answered with a no that is older than the
// hint. The question after it is for that Keep: it must not wait for its turn once more.
func TestB3_AHintWhileTheQuestionOfAKeepIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(after(2*time.Second, denies(guard.CodeDeviceRevoked)))
		g := newGuard(t, a, guard.WithInterval(time.Hour))
		k := keep(t.Context(), g, "d")
		for a.count() < 2 {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if a.inFlight() != 1 {
			t.Fatal("the question of the Keep is not in flight")
		}
		asked := a.last(t).sent
		a.allow()
		g.Hint("d")
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := sentAfter(a, asked); len(got) != 2 || got[1] != 2*time.Second {
			t.Errorf("asked after %v, want at once and when that was answered", got)
		}
		if k.calls() != 1 {
			t.Errorf("the function was called %d times", k.calls())
		}
	})
}

// The same, with an answer that asks to be left alone.
func TestB3_AHintWhileTheQuestionOfAKeepIsInFlightHeedsTheRetryAfterOfItsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		a.set(after(2*time.Second, answers(guard.Decision{
			Code: guard.CodeDeviceRevoked, RetryAfter: 20 * time.Second,
		}, nil)))
		g := newGuard(t, a)
		k := keep(t.Context(), g, "d")
		time.Sleep(time.Second)
		a.allow()
		g.Hint("d")
		began := time.Now()
		for k.calls() == 0 {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if got := sentAfter(a, began); len(got) != 1 || got[0] < 21*time.Second {
			t.Errorf("asked after %v, want once, and not before 21s", got)
		}
	})
}

// Whoever can send hints must not be able to starve the work that runs: a start that is hinted
// at stays a start.
func TestL4_AHintDoesNotGiveAStartTheSlotsOfTheWatches(t *testing.T) {
	for _, keeps := range []bool{false, true} {
		t.Run(fmt.Sprintf("of Keeps: %t", keeps), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority()
				if keeps {
					a.deny(guard.CodeDeviceRevoked)
				} else {
					a.hang()
				}
				g := newGuard(t, a, guard.WithMaxRequests(8), guard.WithTimeout(time.Minute), guard.WithInterval(time.Minute))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				for i := range 30 {
					if keeps {
						keep(ctx, g, fmt.Sprint(i))
						synctest.Wait()
					} else {
						launch(ctx, g, fmt.Sprint(i))
					}
				}
				synctest.Wait()
				a.hang()
				g.Hint("")
				for i := range 30 {
					g.Hint(fmt.Sprint(i))
				}
				synctest.Wait()
				if n := a.inFlight(); n != 6 {
					t.Errorf("%d of 8 slots are taken by starts, want 6", n)
				}
				cancel()
			})
		})
	}
}

// A start that shares the question of a hint, which has waited for a slot for a while, has not
// itself waited an interval yet.
func TestL4_AStartThatSharesAWaitingQuestionHasAnIntervalOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithMaxRequests(1), guard.WithTimeout(20*time.Second))
		launch(t.Context(), g, "d")
		synctest.Wait()
		release := a.stick(t, allows, "other")
		launch(t.Context(), g, "other")
		synctest.Wait()
		g.Hint("d")
		time.Sleep(9900 * time.Millisecond)
		r := launch(t.Context(), g, "d")
		time.Sleep(200 * time.Millisecond)
		if r.returned() {
			t.Errorf("refused after 200ms: %v", r.err)
		}
		release()
		synctest.Wait()
		if !r.started() {
			t.Errorf("a slot is free, and the start has not begun: %v", r.err)
		}
	})
}

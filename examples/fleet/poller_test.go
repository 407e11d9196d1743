package main

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
)

// poller is a guard as somebody might make it in an afternoon.
type poller struct {
	guard.Validator
	next  func(d guard.Decision) time.Time // when to ask after an answer
	stops func(d guard.Decision) bool
}

func (p poller) Close() error { return nil }

func (p poller) Keep(ctx context.Context, id string, fn func(context.Context) error) error {
	for {
		d, _ := p.Validate(ctx, id)
		if d.Allowed || !p.stops(d) {
			d = p.while(ctx, id, d, fn)
		}
		if err := wait(ctx, p.next(d)); err != nil {
			return err
		}
	}
}

// while calls fn until a denial, which it returns.
func (p poller) while(ctx context.Context, id string, d guard.Decision, fn func(context.Context) error) guard.Decision {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { _ = fn(ctx) })
	defer wg.Wait()
	defer cancel()
	for wait(ctx, p.next(d)) == nil {
		if d, _ = p.Validate(ctx, id); !d.Allowed && p.stops(d) {
			break
		}
	}
	return d
}

// turn is the next time of those that come every period, from an offset on.
func turn(began time.Time, offset, period time.Duration) time.Time {
	past := time.Since(began) - offset
	if past < 0 {
		return began.Add(offset)
	}
	return began.Add(offset + (past/period+1)*period)
}

// careless makes pollers that are right but for what spoil makes of them. They ask at even distances from each other,
// a quarter of a second behind a whole one, so that none asks between two seconds.
func careless(spoil func(p *poller, began time.Time, offset time.Duration)) hireFunc {
	hired := 0
	return func(v guard.Validator, _ ...guard.Option) (keeper, error) {
		began, offset := time.Now(), time.Duration(hired%10)*second+second/4
		hired++
		p := poller{
			Validator: v,
			next:      func(guard.Decision) time.Time { return turn(began, offset, 10*second) },
			stops:     func(guard.Decision) bool { return true },
		}
		spoil(&p, began, offset)
		return p, nil
	}
}

func TestGuardsThatDoNotDoTheirWorkAreFoundOut(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(p *poller, began time.Time, offset time.Duration)
		says  []string // all of what was not seen
	}{
		"nothing is wrong": {func(*poller, time.Time, time.Duration) {}, nil},
		"never asking again": {
			func(p *poller, began time.Time, _ time.Duration) {
				p.next = func(guard.Decision) time.Time { return began.Add(time.Hour) }
			},
			[]string{"load: 0.0 requests", "outage: 0 runs stopped", "revoke all: 0 runs"},
		},
		"asking too often": {
			func(p *poller, began time.Time, offset time.Duration) {
				p.next = func(guard.Decision) time.Time { return turn(began, offset, 5*second) }
			},
			[]string{"load: 40.0 requests"},
		},
		"all asking at once": {
			func(p *poller, began time.Time, _ time.Duration) {
				p.next = func(guard.Decision) time.Time { return turn(began, second/4, 10*second) }
			},
			[]string{"peak in normal running: 200 requests a second, 10.00", "peak after the outage: 200 requests a second, 10.00"},
		},
		"working through the outage": {
			func(p *poller, _ time.Time, _ time.Duration) {
				p.stops = func(d guard.Decision) bool { return d.Code != guard.CodeSystemUnavailable }
			},
			[]string{"outage: 0 runs stopped, the last after 0s (stop bound 13s, here at most 13.25s), 200 worked on"},
		},
		"coming back all at once": {
			func(p *poller, began time.Time, offset time.Duration) {
				p.next = func(d guard.Decision) time.Time {
					if d.Code == guard.CodeSystemUnavailable {
						return turn(began, second/2, 10*second)
					}
					return turn(began, offset, 10*second)
				}
			},
			[]string{"peak after the outage: 2"},
		},
		"ignoring revocations": {
			func(p *poller, _ time.Time, _ time.Duration) {
				p.stops = func(d guard.Decision) bool { return d.Code != guard.CodeDeviceRevoked }
			},
			[]string{"revoke all: 0 runs stopped, the last after 0s (bound 13s, here at most 13.25s), 200 left"},
		},
		"asking too seldom in the end": {
			func(p *poller, began time.Time, offset time.Duration) {
				p.next = func(guard.Decision) time.Time {
					if time.Since(began) > 60*second {
						return turn(began, offset, 20*second)
					}
					return turn(began, offset, 10*second)
				}
			},
			[]string{"revoke all: 200 runs stopped, the last after 1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := usual()
			s.devices, s.runs = []int{200}, 1
			text, err := measured(t, s, careless(tc.spoil))
			if (err == nil) != (tc.says == nil) {
				t.Fatalf("got %v:\n%s", err, text)
			}
			if err == nil {
				return
			}
			wantLines(t, err.Error(), tc.says...)
			if n := strings.Count(text, "NOT SEEN"); n != len(tc.says) || n != strings.Count(err.Error(), "not seen") {
				t.Errorf("%d findings are marked as not seen, and the error is %v", n, err)
			}
		})
	}
}

// A guard that lets a revoked device start again is found out, also if it stops that soon.
func TestRestartsAfterTheRevocationAreFoundOut(t *testing.T) {
	s := usual()
	s.devices, s.runs = []int{20}, 1
	hire := careless(func(p *poller, began time.Time, offset time.Duration) {
		ask, denials := p.Validator, 0
		p.Validator = guard.ValidatorFunc(func(ctx context.Context, id string) (guard.Decision, error) {
			d, err := ask.Validate(ctx, id)
			if d.Code == guard.CodeDeviceRevoked {
				denials++
				d.Allowed = denials == 2
			}
			return d, err
		})
		p.next = func(d guard.Decision) time.Time {
			if d.Code == guard.CodeDeviceRevoked {
				return time.Now().Add(second / 8)
			}
			return turn(began, offset, 10*second)
		}
	})
	if _, err := measured(t, s, hire); err == nil || !strings.Contains(err.Error(), "runs started") {
		t.Errorf("got %v", err)
	}
}

package cronwrap_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/guard"
)

// span is a time in which the device was denied.
type span struct{ from, to time.Time }

// denials are all of them, in order.
type denials []span

// during tells whether the device was denied at a time.
func (d denials) during(at time.Time) bool {
	i := sort.Search(len(d), func(i int) bool { return d[i].to.After(at) })
	return i < len(d) && !at.Before(d[i].from)
}

// history is what happened to one entry.
type history struct {
	name    string
	spec    string
	panics  bool
	lasts   time.Duration // how long a run takes
	catchUp bool

	id       cron.EntryID
	location *time.Location
	log      *journal

	runs
	cut sync.Map // Scheduled → true: the run was told to stop
}

func (h *history) job(f fixture) cron.Job {
	opts := []cronwrap.Option{cronwrap.WithName(h.name)}
	if h.catchUp {
		opts = append(opts, cronwrap.WithCatchUp())
	}
	own := fixture{f.Guard, f.script, h.log}
	return own.exact(func(ctx context.Context) error {
		h.note(ctx)
		if h.panics {
			panic("again")
		}
		if h.lasts > 0 {
			timer := time.NewTimer(h.lasts)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
				at, _ := cronwrap.Scheduled(ctx)
				h.cut.Store(at, true)
			}
		}
		return nil
	}, opts...)
}

// due are the times at which cron was to start the entry.
func (h *history) due(c *cron.Cron, from, to time.Time) []time.Time {
	var all []time.Time
	next := c.Entry(h.id).Schedule.Next(from.In(h.location))
	for !next.After(to) {
		all = append(all, next)
		next = c.Entry(h.id).Schedule.Next(next)
	}
	return all
}

// wantHistory judges an entry without catching up: each tick ran, or was refused with its own time; and no two had the same.
func (h *history) wantHistory(t *testing.T, due []time.Time, denied denials) {
	t.Helper()
	ran := map[time.Time]int{}
	for _, at := range h.scheduled() {
		ran[at.UTC()]++
	}
	refused := map[string]int{}
	for _, r := range h.log.find("denied: skipped") {
		refused[r.attrs["scheduled"]]++
	}
	for _, at := range due {
		n, no := ran[at.UTC()], refused[at.String()]
		if n+no != 1 || (no == 1) != denied.during(at) {
			t.Errorf("%s in %v: the tick of %v ran %d times and was refused %d times, denied: %t", h.name, h.location, at, n, no, denied.during(at))
		}
	}
	if len(due) != len(ran)+len(refused) {
		t.Errorf("%s in %v: %d ticks, %d runs and %d refused", h.name, h.location, len(due), len(ran), len(refused))
	}
}

// wantCaughtUp judges an entry that catches up: exactly one run for each time in which ticks were missed, with the time of the
// latest of them, soon after that time's end.
func (h *history) wantCaughtUp(t *testing.T, due []time.Time, denied denials, within time.Duration) {
	t.Helper()
	began, at := h.begun(), h.scheduled()
	want := map[time.Time]time.Time{} // scheduled → not before
	for _, d := range due {
		if !denied.during(d) {
			want[d.UTC()] = d
		}
	}
	for _, s := range denied {
		next := sort.Search(len(due), func(i int) bool { return !due[i].Before(s.to) })
		switch missed := next > 0 && !due[next-1].Before(s.from); {
		case !missed:
		case next < len(due) && due[next].Sub(s.to) <= within:
			// The next tick may have found the other still waiting, and then the run is for both.
			if slices.ContainsFunc(at, due[next-1].Equal) {
				want[due[next-1].UTC()] = s.to
			}
		default:
			want[due[next-1].UTC()] = s.to
		}
	}
	if len(at) != len(want) {
		t.Errorf("%s in %v: %d runs, want %d", h.name, h.location, len(at), len(want))
	}
	for i, at := range at {
		from, ok := want[at.UTC()]
		if !ok || began[i].Before(from) || began[i].Sub(from) > within {
			t.Errorf("%s in %v: a run for %v at %v, wanted: %t, from %v on", h.name, h.location, at, began[i], ok, from)
		}
		delete(want, at.UTC())
	}
}

// The clocks go forward and back in two zones, jobs panic and take hours, and the device is revoked and restored at random
// times. After years every tick is accounted for, no two runs of an entry have the same time, none has begun
// while the device was denied (S1), and what was missed was caught up once.
func TestYears(t *testing.T) {
	years := 2
	if testing.Short() {
		years = 1
	}
	for _, zone := range []string{"America/New_York", "Europe/Berlin"} {
		t.Run(strings.ReplaceAll(zone, "/", " "), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				liveThrough(t, location(t, zone), years)
			})
		})
	}
}

func liveThrough(t *testing.T, zone *time.Location, years int) {
	f := newFixture(t, guard.WithInterval(5*time.Minute))
	c := newCron(t, cron.WithLocation(zone), cron.WithChain(cronwrap.SkipIfStillRunning(cron.DiscardLogger)))
	all := []*history{
		{name: "half past two", spec: "0 30 2 * * *"},
		{name: "half past every hour of the night", spec: "0 30 0-5 * * *"},
		{name: "quarters after one", spec: "0 */15 1 * * *"},
		{name: "panics", spec: "0 0 */6 * * *", panics: true},
		{name: "long", spec: "0 0 4 * * 0", lasts: 30 * time.Minute},
		{name: "nightly, caught up", spec: "0 30 3 * * *", catchUp: true},
		{name: "every third hour, caught up", spec: "0 15 */3 * * *", catchUp: true},
	}
	for _, h := range all {
		h.location, h.log = zone, &journal{}
		h.id = add(t, c, h.spec, h.job(f))
	}
	began := time.Now()
	end := began.AddDate(years, 0, 0)
	c.Start()
	denied := revokeAtRandom(t, f, zone, end)
	pass(time.Until(end) + time.Hour + 30*time.Second) // the last runs have ended
	for _, h := range all {
		due := h.due(c, began, time.Now())
		if h.catchUp {
			h.wantCaughtUp(t, due, denied, f.Interval()+time.Second)
		} else {
			h.wantHistory(t, due, denied)
		}
	}
	wantClockChanges(t, all, years)
	wantPanics(t, all[3])
	wantCuts(t, all[4], denied)
	stop(t, c)
}

// revokeAtRandom revokes the device now and then, each time for some hours, until a fortnight before the end; every third time
// while the long job runs.
func revokeAtRandom(t *testing.T, f fixture, zone *time.Location, end time.Time) denials {
	t.Helper()
	random := rand.New(rand.NewPCG(5, 2026))
	days := func(most int) time.Duration {
		return time.Duration(random.Int64N(int64(most)*int64(24*time.Hour))).Truncate(time.Second) + 500*time.Millisecond // never at a tick
	}
	var all denials
	for {
		gap, long := days(30), days(3)/2
		if time.Now().Add(gap + long + 14*24*time.Hour).After(end) {
			return all
		}
		if len(all)%3 == 0 {
			at := time.Now().Add(gap).In(zone)
			sunday := time.Date(at.Year(), at.Month(), at.Day()+7-int(at.Weekday()), 4, 20, 0, 5e8, zone)
			gap = time.Until(sunday)
		}
		pass(gap)
		s := span{from: time.Now()}
		f.script.Deny(device, everyCode[random.IntN(len(everyCode)-2)])
		f.Hint("") // to those that run; nobody else hears of it
		pass(long)
		s.to = time.Now()
		f.allow()
		all = append(all, s)
	}
}

// wantClockChanges: in the night in which clocks go forward there is no half past two, and nobody makes up for it (pitfall 11);
// in the one in which they go back an hour comes twice, and its two ticks are two.
func wantClockChanges(t *testing.T, all []*history, years int) {
	t.Helper()
	days := 365*years + 1 // the first is a leap year
	nights := map[string]bool{}
	for _, at := range all[0].scheduled() {
		nights[at.String()[:10]] = true
	}
	for _, r := range all[0].log.find("denied: skipped") {
		nights[r.attrs["scheduled"][:10]] = true
	}
	if len(nights) != days-years {
		t.Errorf("%s: in %d of %d nights, %d of which have none", all[0].name, len(nights), days, years)
	}
	ticks := all[1].count() + len(all[1].log.find("denied: skipped"))
	local := map[string]int{}
	for _, at := range all[1].scheduled() {
		local[at.Format("2006-01-02 15:04")]++
	}
	twice := 0
	for _, n := range local {
		twice += n - 1
	}
	if ticks < 6*days || ticks > 6*days+1 || // the first day and the last are cut elsewhere in each zone
		twice == 0 || twice > years {
		t.Errorf("%s: %d ticks in %d days, %d times of day twice in %d years", all[1].name, ticks, days, twice, years)
	}
}

func wantPanics(t *testing.T, h *history) {
	t.Helper()
	if n := len(h.log.find("the job panicked")); n != h.count() || n == 0 {
		t.Errorf("%d runs that panic, %d were logged", h.count(), n)
	}
}

// wantCuts: a run is told to stop if, and only if, the device is denied while it goes on.
func wantCuts(t *testing.T, h *history, denied denials) {
	t.Helper()
	cuts := 0
	for i, at := range h.scheduled() {
		began := h.begun()[i]
		want := false
		for _, s := range denied {
			want = want || s.from.After(began) && s.from.Before(began.Add(h.lasts))
		}
		if _, cut := h.cut.Load(at); cut != want {
			t.Errorf("the run of %v was cut: %t, want %t", at, cut, want)
		}
		if want {
			cuts++
		}
	}
	if n := len(h.log.find("denied while it ran: stopped")); n != cuts || n < 5 {
		t.Errorf("%d runs were cut, %d were logged", cuts, n)
	}
}

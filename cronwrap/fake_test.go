package cronwrap_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// device is who the tests speak of.
const device = "worker:test:01"

// fixture is a guard, the scripted authority that it asks, and the log of the jobs under test. It is made in
// a bubble: all time is fake.
type fixture struct {
	*guard.Guard

	script *guardtest.Validator
	log    *journal
}

func newFixture(t testing.TB, opts ...guard.Option) fixture {
	t.Helper()
	script := guardtest.NewValidator(device)
	g, err := guard.New(script, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return fixture{g, script, &journal{}}
}

// options are those of a job that logs to the fixture's journal.
func (f fixture) options(more ...cronwrap.Option) []cronwrap.Option {
	return append([]cronwrap.Option{cronwrap.WithLogger(slog.New(f.log))}, more...)
}

func (f fixture) job(fn func(ctx context.Context) error, more ...cronwrap.Option) cron.Job {
	return cronwrap.Job(f, device, fn, f.options(more...)...)
}

// exact is job, on the very Guard: only that is waited for by Keep.
func (f fixture) exact(fn func(ctx context.Context) error, more ...cronwrap.Option) cron.Job {
	return cronwrap.Job(f.Guard, device, fn, f.options(more...)...)
}

// deny has the authority deny the device, and the guard know of it when deny returns. It returns the
// request id of the denial.
func (f fixture) deny(t testing.TB, code guard.Code) string {
	t.Helper()
	f.script.Deny(device, code)
	d, _ := f.Validate(context.Background(), device)
	if d.Code != code {
		t.Errorf("Validate: %+v, want %s", d, code)
	}
	return d.RequestID
}

func (f fixture) allow() { f.script.Allow(device) }

// record is one line of a journal.
type record struct {
	level slog.Level
	text  string
	attrs map[string]string
}

// journal is a slog.Handler that keeps what is logged.
type journal struct {
	mu      sync.Mutex
	records []record
}

func (*journal) Enabled(context.Context, slog.Level) bool { return true }

func (j *journal) Handle(_ context.Context, r slog.Record) error {
	kept := record{r.Level, r.Message, map[string]string{}}
	r.Attrs(func(a slog.Attr) bool {
		kept.attrs[a.Key] = a.Value.String()
		return true
	})
	j.mu.Lock()
	defer j.mu.Unlock()
	j.records = append(j.records, kept)
	return nil
}

func (j *journal) WithAttrs([]slog.Attr) slog.Handler { return j }
func (j *journal) WithGroup(string) slog.Handler      { return j }

// find returns the records that say something.
func (j *journal) find(text string) []record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(j.records), func(r record) bool { return !strings.Contains(r.text, text) })
}

// want fails the test unless there is exactly one record with the text, of that level and with those attributes, given in
// pairs; and returns it.
func (j *journal) want(t testing.TB, level slog.Level, text string, attrs ...string) record {
	t.Helper()
	found := j.find(text)
	if len(found) != 1 {
		t.Fatalf("got %d records with %q, want 1, in %v", len(found), text, j.find(""))
	}
	if found[0].level != level {
		t.Errorf("%q was logged at %v, want %v", found[0].text, found[0].level, level)
	}
	for pair := range slices.Chunk(attrs, 2) {
		if got := found[0].attrs[pair[0]]; got != pair[1] {
			t.Errorf("%q has %s=%q, want %q", found[0].text, pair[0], got, pair[1])
		}
	}
	return found[0]
}

// wantEmpty fails the test if anything was logged.
func (j *journal) wantEmpty(t testing.TB) {
	t.Helper()
	if all := j.find(""); len(all) > 0 {
		t.Errorf("logged: %v", all)
	}
}

// newCron makes a Cron that understands seconds, in UTC, and is stopped when the test ends.
func newCron(t testing.TB, opts ...cron.Option) *cron.Cron {
	t.Helper()
	c := cron.New(append([]cron.Option{cron.WithSeconds(), cron.WithLocation(time.UTC), cron.WithLogger(cron.DiscardLogger)}, opts...)...)
	t.Cleanup(func() { <-c.Stop().Done() })
	return c
}

// add adds a job through Add.
func add(t testing.TB, c *cron.Cron, spec string, j cron.Job) cron.EntryID {
	t.Helper()
	id, err := cronwrap.Add(c, spec, j)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// addBare adds a job as cron does.
func addBare(t testing.TB, c *cron.Cron, spec string, j cron.Job) cron.EntryID {
	t.Helper()
	id, err := c.AddJob(spec, j)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// stop stops a Cron that has nothing stuck.
func stop(t testing.TB, c *cron.Cron) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := cronwrap.Stop(ctx, c); err != nil {
		t.Errorf("Stop: %v", err)
	}
}

// pass lets time go by, in a bubble, until everybody waits for more of it; what they have written then can be read.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// runs notes when a job has begun, and the time that it was scheduled for.
type runs struct {
	mu    sync.Mutex
	began []time.Time
	at    []time.Time // zero: the run had none
}

func (r *runs) note(ctx context.Context) {
	at, _ := cronwrap.Scheduled(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.began, r.at = append(r.began, time.Now()), append(r.at, at)
}

// do is a job that is over at once.
func (r *runs) do(ctx context.Context) error {
	r.note(ctx)
	return nil
}

func (r *runs) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.began)
}

func (r *runs) scheduled() []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.at)
}

func (r *runs) begun() []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.began)
}

// obey is a job that runs until its context ends, and returns its error.
func obey(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// wantDenial fails the test unless err holds a denial with that code.
func wantDenial(t testing.TB, err error, code guard.Code) *guard.DeniedError {
	t.Helper()
	denied := (*guard.DeniedError)(nil)
	if !errors.As(err, &denied) || denied.Decision.Code != code {
		t.Fatalf("err = %v, want a denial with %s", err, code)
	}
	return denied
}

// runnerFunc is a Runner of somebody's own.
type runnerFunc func(ctx context.Context, deviceID string, fn func(context.Context) error) error

func (f runnerFunc) Run(ctx context.Context, deviceID string, fn func(context.Context) error) error {
	return f(ctx, deviceID, fn)
}

// day is a time of the day on which the clocks of bubbles begin.
func day(hour, minute, second int) time.Time {
	return time.Date(2000, 1, 1, hour, minute, second, 0, time.UTC)
}

// errorsSeen is an error handler that keeps what it is given.
type errorsSeen struct {
	mu  sync.Mutex
	all []error
}

func (e *errorsSeen) handle(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, err)
}

func (e *errorsSeen) list() []error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.all)
}

package asynqmw_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/machineid"
)

// soakVariable tells a worker what it needs to know.
const soakVariable = "EXECGUARD_TEST_WORKER"

// soakConfig is what a worker needs to know.
type soakConfig struct {
	Redis     string
	Base, Key string        // the authority
	Interval  time.Duration // of the guard
	Reuse     time.Duration // 0: none
	MaxHeld   int           // negative: no bound
	Device    string        // of the whole process, with Serve; "": with New, each task has its own
	Workers   int           // its Concurrency

	Configured bool // with Serve; New needs it
}

// soakEvent is a line of a worker's report.
type soakEvent struct {
	Kind    string
	Key     string
	ID      string   `json:",omitempty"`
	Run     int64    `json:",omitempty"` // tells the handler's calls of one worker apart
	Members []string `json:",omitempty"` // of an aggregated task
	At      int64    // one machine, so one wall clock for all workers
	Retried int      `json:",omitempty"`
	Outcome string   `json:",omitempty"`
	Text    string   `json:",omitempty"`
}

const (
	soakUp      = "up"
	soakBegin   = "begin"
	soakEnd     = "end"
	soakExpired = "expired" // asynq has found a lease expired, and spends a retry
	soakNote    = "note"    // the middleware has logged something
)

// How a handler has ended. What asynq makes of it is another matter.
const (
	soakOK     = "ok"
	soakFailed = "failed" // on purpose
	soakDenied = "denied" // its context ended by a denial, whatever it returned
	soakEnded  = "ended"  // its context ended otherwise: asynq had done with the attempt
	soakKilled = "killed" // with its process
	soakLeft   = "left"   // its process ended before it did
)

// soakOutlet is where a worker reports to. Each report is one write, and so whole.
type soakOutlet struct {
	runs atomic.Int64
	mu   sync.Mutex
	to   io.Writer
}

func (o *soakOutlet) report(e soakEvent) {
	e.At = time.Now().UnixNano()
	line, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	_, _ = o.to.Write(append(line, '\n'))
}

// soakWork is the role of a worker.
func soakWork() {
	var c soakConfig
	if err := json.Unmarshal([]byte(os.Getenv(soakVariable)), &c); err != nil {
		panic(err)
	}
	out := &soakOutlet{to: os.NewFile(3, "reports")}
	slog.SetDefault(slog.New(slog.NewTextHandler(soakNotes{out}, nil)))
	client, err := machineid.New(c.Key, machineid.WithBaseURL(c.Base))
	if err != nil {
		panic(err)
	}
	opts := []guard.Option{guard.WithInterval(c.Interval), guard.WithTimeout(c.Interval)}
	if c.Reuse > 0 {
		opts = append(opts, guard.WithReuse(c.Reuse))
	}
	g, err := guard.New(client, opts...)
	if err != nil {
		panic(err)
	}
	defer g.Close()
	if c.Device != "" {
		err = c.serve(g, out)
	} else {
		err = c.middleware(g, out)
	}
	if err != nil {
		panic(err)
	}
}

// redis is asynq's own way to Redis but for one thing: replies are waited for as long as Redis
// is ever stopped. Where a reply is lost, asynq writes the result a second time, some seconds later,
// and so takes the task from whoever has it by then: no middleware can be in the way of that.
func (c *soakConfig) redis() asynq.RedisClientOpt {
	return asynq.RedisClientOpt{Addr: c.Redis, ReadTimeout: 2 * time.Minute}
}

// middleware works with New, until the standard input ends.
func (c *soakConfig) middleware(g *guard.Guard, out *soakOutlet) error {
	inspector := asynq.NewInspector(c.redis())
	defer inspector.Close() //nolint:errcheck // the process ends
	opts := []asynqmw.Option{asynqmw.WithInspector(inspector)}
	if c.MaxHeld >= 0 {
		opts = append(opts, asynqmw.WithMaxHeld(c.MaxHeld))
	}
	mux := asynq.NewServeMux()
	mux.Use(asynqmw.New(g, asynqmw.FromHeader(soakHeader), opts...))
	mux.Handle(soakType, soakHandler{out})
	srv := asynq.NewServer(c.redis(), asynqmw.Configure(c.asynq(out)))
	if err := srv.Start(mux); err != nil {
		return err
	}
	out.report(soakEvent{Kind: soakUp})
	_, _ = io.Copy(io.Discard, os.Stdin)
	srv.Shutdown()
	return nil
}

// serve works with Serve, until the standard input ends.
func (c *soakConfig) serve(g *guard.Guard, out *soakOutlet) error {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	out.report(soakEvent{Kind: soakUp})
	newServer := func() *asynq.Server {
		if c.Configured {
			return asynq.NewServer(c.redis(), asynqmw.Configure(c.asynq(out)))
		}
		return asynq.NewServer(c.redis(), c.asynq(out))
	}
	err := asynqmw.Serve(ctx, g, c.Device, newServer, soakHandler{out})
	if !errors.Is(err, context.Canceled) {
		return fmt.Errorf("Serve returned %w", err)
	}
	return nil
}

// asynq is a server's configuration as its user has it. RetryDelayFunc is where asynq
// tells that it has found a lease expired.
func (c *soakConfig) asynq(out *soakOutlet) asynq.Config {
	return asynq.Config{
		Concurrency:              c.Workers,
		TaskCheckInterval:        50 * time.Millisecond,
		DelayedTaskCheckInterval: 100 * time.Millisecond,
		ShutdownTimeout:          soakShutdown,
		GroupGracePeriod:         time.Second,
		GroupMaxDelay:            2 * time.Second,
		GroupMaxSize:             soakGroup,
		GroupAggregator:          asynq.GroupAggregatorFunc(soakAggregate),
		RetryDelayFunc: func(_ int, err error, t *asynq.Task) time.Duration {
			if errors.Is(err, asynq.ErrLeaseExpired) {
				out.report(soakEvent{Kind: soakExpired, Key: readSoakJob(t.Payload()).Key})
			}
			return time.Second
		},
		Logger: soakLogger{out},
	}
}

// soakAggregate makes one task of a group of them. It has the header of its members' device, by
// which they are grouped, and any attempt may be its last.
func soakAggregate(group string, tasks []*asynq.Task) *asynq.Task {
	j := soakJob{Key: "aggregate-" + rand.Text(), Kind: soakAggregated, Work: 10 * time.Millisecond}
	headers := map[string]string{}
	for _, t := range tasks {
		j.Members = append(j.Members, readSoakJob(t.Payload()).Key)
		maps.Copy(headers, t.Headers())
	}
	return asynq.NewTaskWithHeaders(soakType, j.payload(), headers,
		asynq.MaxRetry(len(group)%2), asynq.Timeout(time.Minute))
}

// soakHandler is the guarded handler.
type soakHandler struct{ out *soakOutlet }

func (h soakHandler) ProcessTask(ctx context.Context, t *asynq.Task) error {
	j := readSoakJob(t.Payload())
	id, _ := asynq.GetTaskID(ctx)
	retried, _ := asynq.GetRetryCount(ctx)
	most, _ := asynq.GetMaxRetry(ctx)
	e := soakEvent{Kind: soakBegin, Run: h.out.runs.Add(1), ID: id, Key: j.Key, Members: j.Members, Retried: retried}
	h.out.report(e)
	err := j.do(ctx, retried, most)
	e.Kind, e.Outcome = soakEnd, soakOutcome(ctx, err)
	h.out.report(e)
	if errors.Is(err, errSoakPanic) {
		panic(err)
	}
	return err
}

func soakOutcome(ctx context.Context, err error) string {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, guard.ErrDenied) || errors.Is(cause, guard.ErrClosed):
		return soakDenied
	case cause != nil:
		return soakEnded
	case err != nil:
		return soakFailed
	default:
		return soakOK
	}
}

// soakLogger passes on what the middleware has to say, and nothing of asynq's own.
type soakLogger struct{ out *soakOutlet }

func (soakLogger) Debug(...any)     {}
func (soakLogger) Info(...any)      {}
func (l soakLogger) Warn(a ...any)  { l.note(a) }
func (l soakLogger) Error(a ...any) { l.note(a) }
func (l soakLogger) Fatal(a ...any) { panic(fmt.Sprint(a...)) }

func (l soakLogger) note(a []any) {
	if text := fmt.Sprint(a...); strings.Contains(text, "asynqmw:") {
		l.out.report(soakEvent{Kind: soakNote, Text: text})
	}
}

// soakNotes does so where a server has no logger of its own.
type soakNotes struct{ out *soakOutlet }

func (n soakNotes) Write(line []byte) (int, error) {
	n.out.report(soakEvent{Kind: soakNote, Text: string(bytes.TrimSpace(line))})
	return len(line), nil
}

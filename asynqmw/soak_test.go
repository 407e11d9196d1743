package asynqmw_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/guard/authority"
	"github.com/execguard/execguard/guard/guardtest"
)

// The proof of the promise that a denial never loses a task, never spends a retry, and never lets two copies
// of one run: workers in processes of their own, which are killed and told to shut down, devices that are
// revoked and restored, and a Redis that stops and goes on, all at random times; and then every task is
// asked what has become of it.
//
//	EXECGUARD_SOAK=full      20,000 tasks, 100 revocations, and a Redis that is stopped for longer than asynq's
//	                         leases last; and waits until asynq has recovered from all of it: about four minutes
//	EXECGUARD_SOAK_SEED=n    other times and other tasks
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	if !processes {
		t.Skip("needs processes that can report on a pipe")
	}
	size := soakShort
	if os.Getenv("EXECGUARD_SOAK") == "full" {
		size = soakFull
	}
	seed, err := strconv.ParseUint(cmp.Or(os.Getenv("EXECGUARD_SOAK_SEED"), "1"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	for n, name := range []string{"New", "Serve"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSoak(t, size, seed+uint64(n), name == "Serve")
			s.plan()
			s.play(t)
			s.drain(t)
			s.judge(t)
		})
	}
}

// soakSize is how much of everything there is.
type soakSize struct {
	tasks, revocations, ends, stops int
	length                          time.Duration // of the part with the faults
	outage                          time.Duration // one more stop, longer than a lease; 0: none
	recovers                        bool          // wait for asynq's crash recovery
	patience                        time.Duration // until all is done
}

var (
	soakShort = soakSize{tasks: 1500, revocations: 15, ends: 6, stops: 2, length: 24 * time.Second, patience: time.Minute}
	soakFull  = soakSize{
		tasks: 10_000, revocations: 50, ends: 24, stops: 6, length: 180 * time.Second, outage: 40 * time.Second,
		recovers: true, patience: 6 * time.Minute,
	}
)

const (
	soakSlots    = 3
	soakInterval = 700 * time.Millisecond // the guards' interval
	soakWorkers  = 12                     // a process's Concurrency
)

// soakRun is one run of the test.
type soakRun struct {
	soakSize
	random    *rand.Rand
	serve     bool
	began     time.Time
	redis     *redisServer
	authority *guardtest.Server
	devices   []string
	client    *asynq.Client
	inspector *asynq.Inspector
	ledger    *soakLedger
	slots     []*soakSlot
	changes   sync.WaitGroup // of the slots

	events   []soakMoment
	enqueued map[string]*soakTask
	unique   []*soakTask
	stopped  bool                 // Redis is
	backlog  []func(t *testing.T) // what waits for Redis to go on

	twins            map[string]time.Time // by key: when a second one of a unique task was let in
	doubles          int                  // second ones that were not
	refused, parked  map[string]bool      // tasks that were seen so
	killed, departed int
	paused           int // how often Redis was stopped
}

func newSoak(t *testing.T, size soakSize, seed uint64, serve bool) *soakRun {
	s := &soakRun{
		soakSize: size, random: rand.New(rand.NewPCG(seed, 5)), serve: serve, began: time.Now(),
		redis: ownRedis(t), authority: guardtest.NewServer(t, guardtest.WithPlainHTTP()), ledger: newSoakLedger(),
		enqueued: map[string]*soakTask{}, twins: map[string]time.Time{}, refused: map[string]bool{}, parked: map[string]bool{},
	}
	opt := s.redis.opt(0)
	s.client, s.inspector = newClient(t, opt), newInspector(t, opt)
	for n := range soakSlots {
		s.devices = append(s.devices, fmt.Sprintf("soak-%d", n))
		s.slots = append(s.slots, &soakSlot{number: n, ledger: s.ledger, config: s.config(n)})
	}
	s.authority.Register(s.devices...)
	t.Cleanup(s.endAll)
	return s
}

// config is a little different for each worker.
func (s *soakRun) config(n int) soakConfig {
	c := soakConfig{
		Redis: s.redis.addr, Base: s.authority.URL(), Key: s.authority.Key(), Interval: soakInterval,
		MaxHeld: -1, Workers: soakWorkers,
	}
	switch {
	case s.serve:
		c.Device, c.Configured = s.devices[n], n == 1
	case n == 1:
		c.MaxHeld = 3
	case n == 2:
		c.Reuse = soakInterval / 2
	}
	return c
}

// play has it all happen.
func (s *soakRun) play(t *testing.T) {
	for _, slot := range s.slots {
		if err := slot.start(); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for _, e := range s.events {
		timer.Reset(e.at - time.Since(began))
		<-timer.C
		if e.redis && s.stopped {
			s.backlog = append(s.backlog, e.happen)
			continue
		}
		e.happen(t)
	}
	s.authority.Unrevoke(s.devices...)
	s.authority.SetState(authority.StateActive)
	s.changes.Wait()
}

func (s *soakRun) stopRedis(t *testing.T) {
	s.stopped = true
	s.paused++
	s.redis.stop(t)
}

func (s *soakRun) contRedis(t *testing.T) {
	s.redis.cont(t)
	s.stopped = false
	for _, happen := range s.backlog {
		happen(t)
	}
	s.backlog = nil
}

func (s *soakRun) enqueue(t *testing.T, task *soakTask) {
	if err := task.enqueue(s.client); err != nil {
		t.Errorf("%s: %v", task.id, err)
		return
	}
	s.enqueued[task.id] = task
	if task.job.Kind == soakUnique {
		s.unique = append(s.unique, task)
	}
}

// double enqueues a unique task a second time, which asynq allows when the first one is done.
func (s *soakRun) double(t *testing.T, i int) {
	if len(s.unique) == 0 {
		return
	}
	task := s.unique[s.random.IntN(len(s.unique))].again(i)
	switch err := task.enqueue(s.client); {
	case err == nil:
		s.enqueued[task.id], s.twins[task.id] = task, time.Now()
	case strings.Contains(err.Error(), asynq.ErrDuplicateTask.Error()):
		s.doubles++
	default:
		t.Errorf("%s: %v", task.id, err)
	}
}

// look notes which tasks a denial has sent away.
func (s *soakRun) look(t *testing.T) {
	waiting, err := s.inspector.ListRetryTasks(soakQueue, asynq.PageSize(1000))
	if err != nil {
		t.Errorf("the tasks to be retried: %v", err)
	}
	archived, err := s.inspector.ListArchivedTasks(soakQueue, asynq.PageSize(1000))
	if err != nil {
		t.Errorf("the archive: %v", err)
	}
	note(s.refused, waiting)
	note(s.parked, archived)
}

func note(seen map[string]bool, tasks []*asynq.TaskInfo) (n int) {
	for _, info := range tasks {
		if strings.HasPrefix(info.LastErr, "asynqmw:") {
			seen[info.ID] = true
			n++
		}
	}
	return n
}

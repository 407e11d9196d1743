package asynqmw_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

// TestMain also starts the processes that have a role (see playRole). Where a test has asked for a
// Redis, that is ended before leaks are looked for: it is no leak, and its connections are none.
func TestMain(m *testing.M) {
	if playRole() {
		return
	}
	goleak.VerifyTestMain(suite{m})
}

type suite struct{ *testing.M }

func (s suite) Run() int {
	defer shared.end()
	return s.M.Run()
}

// databases is how many tests may use the shared Redis at the same time.
const databases = 256

// shared is the Redis of all tests that do not need one of their own. It starts with the first
// test that asks, so that a run of the others needs none.
var shared sharedRedis

type sharedRedis struct {
	once   sync.Once
	server *redisServer
	err    error
	free   chan int // databases that nobody uses
}

func (s *sharedRedis) start() {
	s.server, s.err = startRedis()
	if s.err != nil {
		return
	}
	s.free = make(chan int, databases)
	for db := range databases {
		s.free <- db
	}
	fmt.Fprintf(os.Stderr, "asynqmw: tests use %s\n", s.server.version)
}

func (s *sharedRedis) end() {
	if s.server != nil {
		s.server.end()
	}
}

// newRedis returns a database of the shared Redis that is the test's own until it ends, and empty.
func newRedis(t testing.TB) asynq.RedisClientOpt {
	t.Helper()
	shared.once.Do(shared.start)
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	opt := shared.server.opt(<-shared.free)
	t.Cleanup(func() {
		c := redis.NewClient(&redis.Options{Addr: opt.Addr, DB: opt.DB})
		if err := errors.Join(c.FlushDB(context.Background()).Err(), c.Close()); err != nil {
			t.Errorf("database %d stays as it is: %v", opt.DB, err)
			return // and is used no more
		}
		shared.free <- opt.DB
	})
	return opt
}

// ownRedis starts a Redis that is the test's own until it ends, and can be stopped.
func ownRedis(t testing.TB) *redisServer {
	t.Helper()
	s, err := startRedis()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.end)
	return s
}

// newClient returns a client that is closed when the test ends.
func newClient(t testing.TB, opt asynq.RedisConnOpt) *asynq.Client {
	t.Helper()
	c := asynq.NewClient(opt)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// newInspector returns an inspector that is closed when the test ends.
func newInspector(t testing.TB, opt asynq.RedisConnOpt) *asynq.Inspector {
	t.Helper()
	i := asynq.NewInspector(opt)
	t.Cleanup(func() { _ = i.Close() })
	return i
}

// count is how many tasks of a queue are in which state.
type count struct {
	pending, active, scheduled, retry, archived, completed, aggregating int
}

// counts looks at a queue, which need not exist yet: all is zero then.
func counts(t testing.TB, i *asynq.Inspector, queue string) count {
	t.Helper()
	info, err := i.GetQueueInfo(queue)
	if err != nil && strings.Contains(err.Error(), "NOT_FOUND") { // of a type that is asynq's own
		return count{}
	}
	if err != nil {
		t.Fatalf("queue %s: %v", queue, err)
	}
	return count{
		info.Pending, info.Active, info.Scheduled, info.Retry, info.Archived, info.Completed, info.Aggregating,
	}
}

// redisServer is a redis-server in a process of its own or, where there is none on the PATH, a
// miniredis in this one.
type redisServer struct {
	addr    string
	version string
	end     func()
	process *os.Process // nil with miniredis
}

// opt is how to reach one of the server's databases.
func (s *redisServer) opt(db int) asynq.RedisClientOpt {
	return asynq.RedisClientOpt{Addr: s.addr, DB: db}
}

// stops tells whether the server can be stopped.
func (s *redisServer) stops() bool { return s.process != nil }

// stop suspends the server: connections stay, new ones are taken up by the kernel, nothing answers.
// It skips the test where the server is no process of its own.
func (s *redisServer) stop(t testing.TB) {
	t.Helper()
	if !s.stops() {
		t.Skip("needs a redis-server that can be stopped")
	}
	if err := suspend(s.process); err != nil {
		t.Fatal(err)
	}
}

// cont lets a server go on that stop has suspended.
func (s *redisServer) cont(t testing.TB) {
	t.Helper()
	if err := resume(s.process); err != nil {
		t.Fatal(err)
	}
}

// startRedis starts a server on a port that was free a moment ago. In between anybody may have
// taken it, so it tries a few.
func startRedis() (*redisServer, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil || !processes {
		return startMini()
	}
	var failed error
	for range 5 {
		s, err := startReal(path)
		if err == nil {
			return s, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, failed
}

func startMini() (*redisServer, error) {
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		return nil, err
	}
	return &redisServer{addr: m.Addr(), version: "miniredis", end: m.Close}, nil
}

// startReal starts a redis-server that keeps nothing on disk but its log, and waits until it
// answers. It ends with end, or with this process, however that ends.
func startReal(path string) (*redisServer, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "asynqmw")
	if err != nil {
		return nil, err
	}
	host, port, _ := net.SplitHostPort(addr)
	log := filepath.Join(dir, port+".log")
	cmd := tiedCommand(dir, path, "--bind", host, "--port", port, "--save", "", "--appendonly", "no",
		"--dir", dir, "--logfile", log, "--databases", strconv.Itoa(databases))
	tie, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // closes the tie
	}()
	s := &redisServer{addr: addr, process: cmd.Process}
	s.end = sync.OnceFunc(func() {
		_ = tie.Close()
		_ = cmd.Process.Kill()
		<-ended
		_ = os.RemoveAll(dir)
	})
	if s.version, err = s.await(ended); err != nil {
		said, _ := os.ReadFile(log)
		s.end()
		return nil, fmt.Errorf("%w; its log: %s", err, said)
	}
	return s, nil
}

// freeAddress is one on loopback on which nobody listens.
func freeAddress() (string, error) {
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// await waits until the server answers, and returns its name and version.
func (s *redisServer) await(ended <-chan struct{}) (string, error) {
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		version, err := s.ask()
		if err == nil {
			return version, nil
		}
		select {
		case <-again.C:
		case <-ended:
			return "", fmt.Errorf("redis-server ended: %w", err)
		case <-limit.C:
			return "", fmt.Errorf("redis-server does not answer: %w", err)
		}
	}
}

// ask asks who answers: where two wanted the same port, that may be somebody else's server.
func (s *redisServer) ask() (version string, err error) {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "tcp", s.addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	if _, err := conn.Write([]byte("INFO server\r\n")); err != nil {
		return "", err
	}
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		switch {
		case name == "redis_version":
			version = "redis-server " + value
		case name == "process_id" && value == strconv.Itoa(s.process.Pid):
			return version, nil
		case name == "process_id":
			return "", fmt.Errorf("process %s has the port of process %d", value, s.process.Pid)
		}
	}
	return "", errors.New("no answer to INFO")
}

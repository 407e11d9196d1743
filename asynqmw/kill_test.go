package asynqmw_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// roleVariable tells this test binary, started again by itself, what to be instead of tests.
const roleVariable = "EXECGUARD_TEST_ROLE"

// roles are what it can be. A role ends when its standard input ends, which it also does when
// whoever started it has died.
var roles = map[string]func(){
	"worker": soakWork,
	"redis":  holdRedis,
}

// playRole returns false in a process that is to test.
func playRole() bool {
	role, ok := os.LookupEnv(roleVariable)
	if !ok {
		return false
	}
	play, ok := roles[role]
	if !ok {
		panic("no role " + role)
	}
	play()
	return true
}

// soakWorker is one process of workers. It reports on a pipe of its own, in which stands what it
// had said when it is killed.
type soakWorker struct {
	name   string
	cmd    *exec.Cmd
	tie    io.Closer // its standard input
	up     chan struct{}
	ended  chan struct{}
	err    error // as it ended; after ended
	killed time.Time
}

// soakSlot has one worker at a time: where one has ended, the next starts.
type soakSlot struct {
	number int
	config soakConfig
	ledger *soakLedger

	mu       sync.Mutex
	births   int
	worker   *soakWorker
	changing bool // it is being killed, or is shutting down
}

// start starts the next worker, and returns when its server has been started.
func (s *soakSlot) start() error {
	s.mu.Lock()
	s.births++
	name := string(rune('A'+s.number)) + string(rune('a'+s.births%26))
	s.mu.Unlock()
	w, err := startSoakWorker(name, s.config, s.ledger)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.worker = w
	s.mu.Unlock()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	select {
	case <-w.up:
		return nil
	case <-w.ended:
		return errors.Join(errors.New("a worker ended by itself"), w.err)
	case <-limit.C:
		return errors.New("a worker does not start")
	}
}

// claim keeps everybody else from ending the worker; nil: somebody is at it.
func (s *soakSlot) claim() *soakWorker {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changing || s.worker == nil {
		return nil
	}
	s.changing = true
	return s.worker
}

func (s *soakSlot) yield() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changing = false
}

func startSoakWorker(name string, config soakConfig, ledger *soakLedger) (*soakWorker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	in, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	from, to, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer to.Close()          //nolint:errcheck // it is the worker's now
	cmd := exec.Command(self) //nolint:noctx // it ends by its standard input, or is killed
	cmd.Env = append(os.Environ(), roleVariable+"=worker", soakVariable+"="+string(in))
	cmd.ExtraFiles = []*os.File{to}
	cmd.Stderr = os.Stderr
	tie, err := cmd.StdinPipe()
	if err != nil {
		return nil, errors.Join(err, from.Close())
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, from.Close())
	}
	w := &soakWorker{name: name, cmd: cmd, tie: tie, up: make(chan struct{}), ended: make(chan struct{})}
	go w.listen(from, ledger)
	return w, nil
}

// listen reads what the worker reports until it is no more.
func (w *soakWorker) listen(from io.ReadCloser, ledger *soakLedger) {
	defer close(w.ended)
	defer from.Close()
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e soakEvent
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue // cut short by the kill
		}
		if e.Kind == soakUp {
			close(w.up)
			continue
		}
		ledger.note(w.name, e)
	}
	w.err = errors.Join(lines.Err(), w.cmd.Wait())
	ledger.bury(w.name, w.killed)
}

// kill ends the worker in the middle of whatever it does.
func (w *soakWorker) kill(t testing.TB, _ *soakLedger) {
	w.killed = time.Now() // what it does later it does not do for long
	if err := w.cmd.Process.Kill(); err != nil {
		t.Errorf("worker %s: %v", w.name, err)
	}
	<-w.ended
}

// leave has the worker shut down as a server does that is told to.
func (w *soakWorker) leave(t testing.TB, ledger *soakLedger) {
	ledger.leaving(w.name)
	_ = w.tie.Close()
	limit := time.NewTimer(2 * time.Minute)
	defer limit.Stop()
	select {
	case <-w.ended:
		if w.err != nil {
			t.Errorf("worker %s: %v", w.name, w.err)
		}
	case <-limit.C:
		t.Errorf("worker %s does not shut down", w.name)
		w.kill(t, ledger)
	}
}

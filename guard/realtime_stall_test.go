package guard_test

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
	"github.com/execguard/execguard/guard/machineid"
)

// Ways to stall. The silent ones leave a question without an answer, the broken ones fail it at
// once, the early ones strike before there is a request.
var (
	silentRoads = []stall{
		{name: "answers withheld", answers: noBytes},
		{name: "requests withheld", requests: noBytes},
		{name: "half a header", answers: fewBytes},
		{name: "half a body", answers: halfABody},
		{name: "accepted and silent", drop: true, door: doorSilent},
	}
	brokenRoads = []stall{
		{name: "reset", answers: resetIt, door: doorSlam},
		{name: "refused", drop: true, door: doorShut},
	}
	earlyRoads = []stall{
		{name: "the handshake is swallowed", drop: true, door: doorSilent},
		{name: "half a handshake", drop: true, answers: fewBytes},
		{name: "no SYN is answered", drop: true, door: doorFull},
		{name: "half a TLS record", answers: fewBytes},
		{name: "DNS silent", fault: "DNS silent"},
	}
)

// stallTest is one way for the clock to end a permission.
type stallTest struct {
	name   string
	pace   pace
	tls    bool
	deaf   bool // the validator ignores its context
	opts   []guard.Option
	stalls []stall

	workers, runs int
	machine       *pulse
}

// stallTests are in part slower than they could be. The watch looks at the line with each of its
// questions, and with a shorter interval that alone would be soon enough.
func stallTests() []stallTest {
	const ms = time.Millisecond
	return []stallTest{
		{name: "the timeout ends it", pace: pace{120 * ms, 30 * ms, 0}, stalls: silentRoads, workers: 6, runs: 3},
		{name: "the line ends it, retries or not", pace: pace{40 * ms, 30 * ms, 30 * ms}, stalls: slices.Concat(brokenRoads, silentRoads), workers: 6, runs: 3},
		{
			// One call takes the only request there may be, and does not come back: nobody else can ask.
			name: "the line alone ends it, the validator being deaf", pace: pace{120 * ms, 30 * ms, 0},
			deaf: true, opts: []guard.Option{guard.WithMaxRequests(1)}, stalls: silentRoads, workers: 6, runs: 3,
		},
		{name: "TLS, dial and DNS", pace: pace{80 * ms, 70 * ms, 50 * ms}, tls: true, stalls: earlyRoads, workers: 5, runs: 2},
	}
}

// S4, B2 over real sockets: the authority falls silent at a random moment, and every function is
// told to stop when the contract says, neither later nor earlier.
func TestRealTime_StalledAuthority(t *testing.T) {
	for _, s := range stallTests() {
		t.Run(s.name, s.run)
	}
}

func (s stallTest) run(t *testing.T) {
	var opts []guardtest.Option
	if !s.tls {
		opts = append(opts, guardtest.WithPlainHTTP())
	}
	s.stalls, s.machine = possible(t, s.stalls), newPulse()
	defer s.machine.stop()
	servers := make([]*guardtest.Server, s.workers)
	for i := range servers {
		servers[i] = guardtest.NewServer(t, opts...)
		for d := range listeners {
			servers[i].Register(deviceName(d))
		}
	}
	found := share(servers, s.try)
	found.report(t)
	if len(found.late) < *realTries/2 {
		t.Errorf("in %d tries the clock told %d runs to stop", *realTries, len(found.late))
	}
}

// possible leaves out a full queue where it does not keep clients out.
func possible(t *testing.T, stalls []stall) (kept []stall) {
	for _, s := range stalls {
		if s.door == doorFull {
			p, err := newStallProxy("127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			err = p.stall(&s)
			p.close()
			if err != nil {
				t.Logf("left out: %s: %v", s.name, err)
				continue
			}
		}
		kept = append(kept, s)
	}
	return kept
}

// try has the network stall under a few runs, at some moment of the first interval or a little later.
func (s stallTest) try(server *guardtest.Server, n int) (found findings) {
	how := s.stalls[n%len(s.stalls)]
	road, err := newRoad(server, how)
	if err != nil {
		found.complainf("%s: %v", how.name, err)
		return found
	}
	defer road.close()
	r := newRecorder(road.client, s.pace, s.machine)
	r.deaf = s.deaf
	st, err := newStage(r, n/len(s.stalls), s.opts...)
	if err != nil {
		found.complainf("%s: %v", how.name, err)
		return found
	}
	runs, err := s.play(st, road)
	seen := r.stop(st.observed)
	switch {
	case err == errTooBusy:
		found.void++
		return found
	case err != nil:
		found.complainf("%s: %v", how.name, err)
	}
	for _, w := range runs {
		found.add(seen.judge(s.pace, *w, halt{}).of(how.name))
	}
	return found
}

// play lets the runs begin and end, and leaves nothing behind.
func (s stallTest) play(st *stage, road *road) ([]*seenRun, error) {
	road.warm()
	runs, err := st.start(listeners[:s.runs])
	if err == nil {
		pauseFor(rand.N(s.pace.interval*5/4), st.done)
		err = road.stall()
	}
	if err != nil {
		st.end()
	}
	st.wait()
	road.heal() // late answers come now
	st.guard.Close()
	st.recorder.land()
	return runs, err
}

// road is a client, and the network between it and the server.
type road struct {
	how    stall
	server *guardtest.Server
	proxy  *stallProxy // nil where the server itself stalls
	client *machineid.Client
}

func newRoad(server *guardtest.Server, how stall) (*road, error) {
	r := &road{how: how, server: server}
	base, err := url.Parse(server.URL())
	if err != nil {
		return nil, err
	}
	trusting := server.Client()
	if how.fault == "" {
		if r.proxy, err = newStallProxy(base.Host); err != nil {
			return nil, err
		}
		base.Host = r.proxy.address()
		// One of its own: connections are not kept from one try to the next.
		trusting = &http.Client{Transport: trusting.Transport.(*http.Transport).Clone()}
	}
	opts := []machineid.Option{machineid.WithBaseURL(base.String())}
	if base.Scheme == "https" {
		opts = append(opts, machineid.WithHTTPClient(trusting))
	}
	r.client, err = machineid.New(server.Key(), opts...)
	return r, err
}

// warm makes as many connections as there are going to be questions at once: on a busy machine a
// handshake may take longer than these timeouts.
func (r *road) warm() {
	var asking sync.WaitGroup
	for i := range listeners {
		asking.Go(func() { _, _ = r.client.Validate(context.Background(), deviceName(i)) })
	}
	asking.Wait()
}

func (r *road) stall() error {
	if r.proxy != nil {
		return r.proxy.stall(&r.how)
	}
	r.server.Inject(r.how.fault)
	return nil
}

func (r *road) heal() {
	if r.proxy != nil {
		r.proxy.heal()
		return
	}
	r.server.Heal()
}

func (r *road) close() {
	r.client.CloseIdleConnections()
	if r.proxy != nil {
		r.proxy.close()
	}
}

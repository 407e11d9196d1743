package grpcmw_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
)

// TestStreamsUnderStress has hundreds of streams at a time, guarded by one guard on the server and by
// another on the client, of devices that are revoked and restored at any moment, with clients that
// leave and handlers that use one message again and again. Everything that happens takes a number of
// one sequence, and every message bears the number of its sending. In the end it must be that
//   - every handler and every client's call began under an ALLOW for its device that was asked for
//     after the call was made (S1);
//   - nothing passed that was sent, and no call succeeded that was made, after the denial was learnt
//     which ended the run (S3);
//   - every call and every run has ended, and no goroutine is left.
func TestStreamsUnderStress(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Run("all", func(t *testing.T) {
		s := newStress(t)
		conn := dial(t, serve(t, calls{stream: s.handle}, s.serverOptions()...), s.clientOptions()...)
		workers, rounds := 256, 4
		if testing.Short() {
			workers, rounds = 64, 2
		}
		var all sync.WaitGroup
		for range workers {
			all.Go(func() {
				for range rounds {
					s.converse(t, conn)
				}
			})
		}
		all.Wait()
		s.denials.Wait()
		for _, side := range []*stressSide{s.server, s.client} {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			if err := side.Shutdown(ctx); err != nil {
				t.Errorf("%s: runs are left: %v", side.name, err)
			}
			cancel()
		}
		s.verdict(t)
	})
	goleak.VerifyNone(t, before)
}

// stress is the whole scene.
type stress struct {
	sequence       atomic.Int64
	server, client *stressSide
	denials        sync.WaitGroup

	mu     sync.Mutex
	talks  map[string]*talk
	counts map[string]int // how many conversations ended how
}

// stressSide is one guard, and when it is known to have learnt what.
type stressSide struct {
	authority

	name string

	mu     sync.Mutex
	learnt map[string]int64 // by the denial's request id: the number of an instant by which it was learnt
}

// talk is one stream, from both ends.
type talk struct {
	device         string
	server, client stressRun
}

// stressRun is one end of a stream, under the guard of its side.
type stressRun struct {
	began    time.Time // before the guard was asked
	under    atomic.Pointer[stressContext]
	over     atomic.Int64 // when the interceptor, or a method of the client's stream, had returned an error
	ended    atomic.Int64 // when anybody first saw that the context had ended
	passed   atomic.Int64 // the latest call of RecvMsg or SendMsg that succeeded
	received atomic.Int64 // the latest sending of a message that was received
}

type stressContext struct{ context.Context }

// denied is the denial that has ended the run; nil while there is none.
func (r *stressRun) denied() (denied *guard.DeniedError) {
	if ctx := r.under.Load(); ctx != nil && ctx.Err() != nil {
		errors.As(context.Cause(ctx), &denied)
	}
	return denied
}

const stressDevices = 48

func stressDevice(i int) string { return "device-" + strconv.Itoa(i) }

func newStress(t *testing.T) *stress {
	t.Helper()
	s := &stress{talks: map[string]*talk{}, counts: map[string]int{}}
	for name, side := range map[string]**stressSide{"server": &s.server, "client": &s.client} {
		*side = &stressSide{authority: newAuthority(t), name: name, learnt: map[string]int64{}}
		for i := range stressDevices {
			(*side).script.Allow(stressDevice(i))
		}
	}
	return s
}

func (s *stress) now() int64 { return s.sequence.Add(1) }

// lift raises v to n. Both directions of a stream may do so at the same time.
func lift(v *atomic.Int64, n int64) {
	old := v.Load()
	for n > old && !v.CompareAndSwap(old, n) {
		old = v.Load()
	}
}

// revoke has the side's authority deny the device, and its guard learn of it.
func (s *stress) revoke(side *stressSide, id string) {
	s.denials.Go(func() {
		d := guard.Decision{Allowed: true}
		for d.Allowed { // again, where somebody has restored it meanwhile
			side.script.Deny(id, guard.CodeDeviceRevoked)
			d, _ = side.Validate(context.Background(), id)
		}
		side.mu.Lock()
		defer side.mu.Unlock()
		side.learnt[d.RequestID] = s.now()
	})
}

func (s *stress) restore(id string) {
	s.server.script.Allow(id)
	s.client.script.Allow(id)
}

func (s *stress) serverOptions() []grpc.ServerOption {
	around := grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		r := &s.talkOf(ss.Context()).server
		r.began = time.Now()
		err := next(srv, ss)
		r.over.Store(s.now())
		return err
	})
	return append([]grpc.ServerOption{around}, guarded(s.server, grpcmw.FromMetadata("device"))...)
}

func (s *stress) clientOptions() []grpc.DialOption {
	fromOutgoing := func(ctx context.Context, _ string) (string, error) {
		md, _ := metadata.FromOutgoingContext(ctx)
		return md.Get("device")[0], nil
	}
	inside := grpc.WithChainStreamInterceptor(func(
		ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption,
	) (grpc.ClientStream, error) {
		md, _ := metadata.FromOutgoingContext(ctx)
		s.find(md.Get("talk")[0]).client.under.Store(&stressContext{ctx})
		return next(ctx, desc, cc, method, opts...)
	})
	return append(guarding(s.client, fromOutgoing), inside)
}

func (s *stress) talkOf(ctx context.Context) *talk {
	return s.find(metadata.ValueFromIncomingContext(ctx, "talk")[0])
}

func (s *stress) find(name string) *talk {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.talks[name]
}

// handle answers every message with the message itself, and goes on after the end, as a handler may.
func (s *stress) handle(ss grpc.ServerStream) error {
	talk := s.talkOf(ss.Context())
	r := &talk.server
	r.under.Store(&stressContext{ss.Context()})
	m := new(message)
	for {
		if err := s.receive(talk, r, ss, m); err != nil {
			_ = s.send(talk, r, ss, m)
			_ = s.receive(talk, r, ss, m)
			m.Value = "mine again"
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		m.Value += "and something of the handler's"
		if err := s.send(talk, r, ss, m); err != nil {
			m.Value = "mine again"
			return err
		}
	}
}

// look notes which ends of the talk have been stopped, and gives the next number.
func (s *stress) look(talk *talk) int64 {
	for _, r := range []*stressRun{&talk.server, &talk.client} {
		if r.ended.Load() == 0 && r.denied() != nil {
			r.ended.CompareAndSwap(0, s.now())
		}
	}
	return s.now()
}

// receive and send are RecvMsg and SendMsg on either end, with numbers.
func (s *stress) receive(talk *talk, r *stressRun, from interface{ RecvMsg(m any) error }, m *message) error {
	called := s.look(talk)
	if err := from.RecvMsg(m); err != nil {
		return err
	}
	lift(&r.passed, called)
	sent, err := strconv.ParseInt(m.GetValue(), 10, 64)
	lift(&r.received, sent)
	return err
}

func (s *stress) send(talk *talk, r *stressRun, to interface{ SendMsg(m any) error }, m *message) error {
	called := s.look(talk)
	m.Value = strconv.FormatInt(called, 10)
	if err := to.SendMsg(m); err != nil {
		return err
	}
	lift(&r.passed, called)
	return nil
}

// converse is one conversation as the client has it. It ends as chance has it: with a denial on
// one side, because the client leaves, or because it has said all.
func (s *stress) converse(t *testing.T, conn *grpc.ClientConn) {
	talk := &talk{device: stressDevice(mathrand.IntN(stressDevices))}
	s.mu.Lock()
	name := strconv.Itoa(len(s.talks))
	s.talks[name] = talk
	s.mu.Unlock()
	ctx, leave := context.WithCancel(metadata.AppendToOutgoingContext(t.Context(), "device", talk.device, "talk", name))
	defer leave()
	plan, end := s.plan(talk, leave)
	talk.client.began = time.Now()
	stream, err := open(ctx, conn, both)
	if err == nil {
		err = s.chat(talk, stream, plan, end)
	}
	s.note(t, talk.device, end, err)
}

const stressMessages = 24

// plan draws after how many answers something happens, and what.
func (s *stress) plan(talk *talk, leave func()) (plan func(answered int), end string) {
	moment := 1 + mathrand.IntN(stressMessages-1) // the run on the server has begun
	what := func() {}
	switch mathrand.IntN(8) {
	case 0, 1:
		end, what = "left", leave
	case 2:
		end, what = "revoked on the server", func() { s.revoke(s.server, talk.device) }
	case 3:
		end, what = "revoked on the client", func() { s.revoke(s.client, talk.device) }
	case 4:
		end = "done"
		s.server.script.Deny(talk.device, guard.CodeDeviceRevoked) // which the guard learns by this start
	default:
		end = "done"
	}
	return func(answered int) {
		if answered == moment {
			what()
		}
	}, end
}

// chat sends on one goroutine, a few messages ahead, and receives on another, into one message, until
// the stream is over.
func (s *stress) chat(talk *talk, stream grpc.ClientStream, plan func(answered int), end string) error {
	r := &talk.client
	var sending sync.WaitGroup
	defer sending.Wait()
	const lead = 8
	ahead := make(chan struct{}, lead+1) // and one for the answer to the end
	defer close(ahead)
	sending.Go(func() {
		m := new(message)
		for i := 0; end != "done" || i < stressMessages; i++ {
			if i >= lead {
				<-ahead
			}
			if err := s.send(talk, r, stream, m); err != nil {
				return
			}
		}
		_ = stream.CloseSend()
	})
	m := new(message)
	for answered := 0; ; answered++ {
		plan(answered)
		if answered > 0 {
			ahead <- struct{}{}
		}
		if err := s.receive(talk, r, stream, m); err != nil {
			r.over.Store(s.now())
			return err
		}
	}
}

// note judges how a conversation ended, and restores what was refused.
func (s *stress) note(t *testing.T, id, end string, err error) {
	what := "done"
	switch status.Code(err) {
	case codes.PermissionDenied:
		w := read(t, err)
		if w.reason != "DEVICE_REVOKED" {
			t.Errorf("%+v, %v", w, err)
		}
		what = "denied at the " + w.phase
		s.restore(id)
	case codes.Canceled:
		what = "left"
		if end != "left" {
			t.Errorf("cancelled: %v", err)
		}
	default:
		if !errors.Is(err, io.EOF) || end != "done" {
			t.Errorf("%s: ended with %v", end, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[what]++
}

// verdict looks at everything that was written down.
func (s *stress) verdict(t *testing.T) {
	t.Helper()
	stopped := map[string]int{}
	for _, side := range []*stressSide{s.server, s.client} {
		allows := map[string]guardtest.Call{}
		for _, c := range side.script.Calls() {
			if c.Decision.Allowed {
				allows[c.Decision.RequestID] = c
			}
		}
		for _, talk := range s.talks {
			own, peer := &talk.server, &talk.client
			if side == s.client {
				own, peer = peer, own
			}
			if own.under.Load() == nil {
				continue // refused
			}
			own.wantAllowed(t, side.name, talk.device, allows)
			if line, ok := side.line(own); ok {
				stopped[side.name]++
				own.wantSilence(t, side.name, peer, line)
			}
		}
	}
	t.Logf("%d numbers, %v, stopped: %v", s.sequence.Load(), s.counts, stopped)
	for _, what := range []string{"done", "left", "denied at the start", "denied at the run"} {
		if s.counts[what] == 0 {
			t.Errorf("no conversation was %s: %v", what, s.counts)
		}
	}
	if stopped["server"] == 0 || stopped["client"] == 0 {
		t.Errorf("stopped: %v", stopped)
	}
}

func (r *stressRun) wantAllowed(t *testing.T, side, id string, allows map[string]guardtest.Call) {
	t.Helper()
	d, _ := guard.DecisionFrom(r.under.Load())
	c, ok := allows[d.RequestID]
	if !ok || c.DeviceID != id || c.Sent.Before(r.began) {
		t.Errorf("%s: a call of %s began on %+v, by the question %+v", side, id, d, c)
	}
}

// line is an instant by which the denial was learnt that stopped the run, and ok is false where none has.
func (s *stressSide) line(r *stressRun) (n int64, ok bool) {
	denied := r.denied()
	if denied == nil {
		return 0, false
	}
	n = r.over.Load()
	if ended := r.ended.Load(); ended > 0 {
		n = min(n, ended)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if learnt, ok := s.learnt[denied.Decision.RequestID]; ok {
		n = min(n, learnt)
	}
	return n, true
}

// wantSilence wants nothing to have passed after the line, into or out of the run.
func (r *stressRun) wantSilence(t *testing.T, side string, peer *stressRun, line int64) {
	t.Helper()
	for what, n := range map[string]int64{
		"a call succeeded that was made": r.passed.Load(),
		"it received what was sent":      r.received.Load(),
		"its peer received what it sent": peer.received.Load(),
	} {
		if n > line {
			t.Errorf("%s: %s at %d, after the denial was learnt, by %d", side, what, n, line)
		}
	}
}

// TestFromTLSOverTCP has every kind of call come from devices that show certificates.
func TestFromTLSOverTCP(t *testing.T) {
	ca := newCertificates(t)
	a := newAuthority(t)
	inside := make(chan struct{})
	address := serve(t, calls{stream: func(s grpc.ServerStream) error {
		if len(metadata.ValueFromIncomingContext(s.Context(), "stay")) > 0 {
			close(inside)
		}
		return echo(s)
	}}, append(guarded(a, grpcmw.FromTLS()), grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{ca.issue(t, "server")}, ClientCAs: ca.pool, ClientAuth: tls.VerifyClientCertIfGiven, MinVersion: tls.VersionTLS13,
	})))...)
	const one, two = "spiffe://example.org/mailer/1", "spiffe://example.org/mailer/2"
	conns := map[string]*grpc.ClientConn{}
	for _, id := range []string{one, two, ""} {
		c := &tls.Config{RootCAs: ca.pool, ServerName: "server", MinVersion: tls.VersionTLS13}
		if id != "" {
			c.Certificates = []tls.Certificate{ca.issue(t, id)}
			a.script.Allow(id)
		}
		conns[id] = dial(t, address, grpc.WithTransportCredentials(credentials.NewTLS(c)))
	}
	everyKind := func(id string, want wire) {
		t.Helper()
		for _, method := range []string{unary, down, up, both} {
			err := exchange(t.Context(), conns[id], method)
			if w := read(t, err); w.code != want.code || w.reason != want.reason || w.phase != want.phase {
				t.Errorf("%s of %q: %v, want %+v", method, id, err, want)
			}
		}
	}
	everyKind(one, wire{})
	everyKind(two, wire{})
	everyKind("", wire{code: codes.Unauthenticated, reason: "NO_IDENTITY", phase: "start"})
	s, err := open(metadata.AppendToOutgoingContext(t.Context(), "stay", "yes"), conns[one], both)
	if err != nil {
		t.Fatal(err)
	}
	within(t, inside, "the handler is called")
	id := a.deny(t, one, guard.CodeDeviceRevoked)
	wantWire(t, within(t, later(func() error { return s.RecvMsg(new(message)) }), "the stream ends"),
		wire{codes.PermissionDenied, "DEVICE_REVOKED", id, "run", -1})
	everyKind(one, wire{code: codes.PermissionDenied, reason: "DEVICE_REVOKED", phase: "start"})
	everyKind(two, wire{})
}

// certificates is an authority that issues them.
type certificates struct {
	root *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newCertificates(t *testing.T) *certificates {
	t.Helper()
	c := &certificates{pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	c.root, c.key = template, nil
	der, key := c.sign(t, template)
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	c.root, c.key = root, key
	c.pool.AddCert(root)
	return c
}

// sign signs with the root's key; the root's own where there is none yet.
func (c *certificates) sign(t *testing.T, template *x509.Certificate) (der []byte, key *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	by := c.key
	if by == nil {
		by = key
	}
	der, err = x509.CreateCertificate(rand.Reader, template, c.root, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	return der, key
}

// issue makes a certificate for a SPIFFE id, or for the host that has this name.
func (c *certificates) issue(t *testing.T, name string) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "not the device"}, NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		DNSNames: []string{name},
	}
	if u, err := url.Parse(name); err == nil && u.Scheme == "spiffe" {
		template.URIs, template.DNSNames = []*url.URL{u}, []string{"not.the.device"}
	}
	der, key := c.sign(t, template)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

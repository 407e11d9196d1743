package grpcmw_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
)

// undisturbed is an interval in which no benchmark meets a renewal: the longest that there is.
const undisturbed = 24 * time.Hour

// newLease makes a guard whose permission for the device may be used again and again.
func newLease(b *testing.B) authority {
	b.Helper()
	a := newAuthority(b, guard.WithInterval(undisturbed), guard.WithReuse(undisturbed))
	if d, err := a.Validate(b.Context(), device); err != nil || !d.Allowed {
		b.Fatal(d, err)
	}
	return a
}

// stack is what stands around a unary handler; nil: nothing does.
type stack struct {
	name      string
	intercept grpc.UnaryServerInterceptor
}

// stacks are the bare handler, the least that a layer does which can end a call, and the guard.
func stacks(b *testing.B) []stack {
	b.Helper()
	return []stack{
		{"bare", nil},
		{"cancellable", func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			ctx, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			return next(ctx, req)
		}},
		{"lease", grpcmw.UnaryServer(newLease(b), grpcmw.Fixed(device))},
	}
}

// small is the least that a handler does. It is a variable, as a handler is to grpc: nothing of it
// may be inlined into the loop.
var small grpc.UnaryHandler = func(context.Context, any) (any, error) { return text("ok"), nil }

// BenchmarkGRPCInterceptor calls the interceptor directly around the handler, with a context that
// can end.
func BenchmarkGRPCInterceptor(b *testing.B) {
	for _, s := range stacks(b) {
		b.Run(s.name, func(b *testing.B) {
			ctx, cancel := context.WithCancel(metadata.NewIncomingContext(b.Context(), metadata.Pairs("authorization", "bearer token")))
			defer cancel()
			in, info := text("9e3779b1"), &grpc.UnaryServerInfo{FullMethod: unary}
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if s.intercept == nil {
					_, err = small(ctx, in)
				} else {
					_, err = s.intercept(ctx, in, info, small)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkGRPCServerAgainstBare serves the bare handler and another in turns over loopback, and
// reports how many times the bare one's processor time the other takes, the clients' included.
func BenchmarkGRPCServerAgainstBare(b *testing.B) {
	all := stacks(b)
	for _, s := range all {
		b.Run(s.name, func(b *testing.B) { inTurns(b, client(b, all[0]), client(b, s)) })
	}
}

// client serves the handler, and returns what calls it once.
func client(b *testing.B, s stack) func() error {
	b.Helper()
	var opts []grpc.ServerOption
	if s.intercept != nil {
		opts = append(opts, grpc.ChainUnaryInterceptor(s.intercept))
	}
	answer := func(context.Context, *message) (*message, error) { return text("ok"), nil }
	conn := dial(b, serve(b, calls{unary: answer}, opts...))
	return func() error {
		_, err := call(context.Background(), conn, "9e3779b1")
		return err
	}
}

// inTurns runs two operations in short blocks that take turns, so that whatever else the machine
// does meets both.
func inTurns(b *testing.B, base, other func() error) {
	b.Helper()
	const calls, blocks = 250, 100
	pair, first := [2]func() error{base, other}, 0
	var spent [2]time.Duration
	for b.Loop() {
		for range blocks {
			for _, i := range []int{first, 1 - first} {
				before, _ := processorTime()
				share(b, calls, pair[i])
				after, ok := processorTime()
				if !ok {
					b.Skip("the processor's time cannot be read here")
				}
				spent[i] += after - before
			}
			first = 1 - first
		}
	}
	b.ReportMetric(0, "ns/op") // a block's time says nothing
	b.ReportMetric(float64(spent[1])/float64(spent[0]), "x-cpu")
}

// share has 16 callers call op n times in all.
func share(b *testing.B, n int64, op func() error) {
	b.Helper()
	var issued atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for issued.Add(1) <= n {
				if err := op(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// idleStream is a stream that costs next to nothing, so that the layer is what remains.
type idleStream struct {
	grpc.ServerStream

	ctx context.Context
}

func (s *idleStream) Context() context.Context { return s.ctx }

func (*idleStream) RecvMsg(any) error { return nil }

func (*idleStream) SendMsg(any) error { return nil }

// BenchmarkGRPCStreamMessage has a handler receive one message and send the next, in turns; ns/op is
// that of one message. Over a socket it takes some 10 µs, which vary by more than the goal.
func BenchmarkGRPCStreamMessage(b *testing.B) {
	a := newLease(b)
	intercept := map[string]grpc.StreamServerInterceptor{
		"bare": func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return next(srv, ss)
		},
		"lease": grpcmw.StreamServer(a, grpcmw.Fixed(device)),
	}
	for _, name := range []string{"bare", "lease"} {
		b.Run(name, func(b *testing.B) {
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			b.ReportAllocs()
			m := text("9e3779b1")
			err := intercept[name](nil, &idleStream{ctx: ctx}, &grpc.StreamServerInfo{FullMethod: both}, func(_ any, s grpc.ServerStream) error {
				for received := false; b.Loop(); received = !received {
					pass := s.RecvMsg
					if received {
						pass = s.SendMsg
					}
					if err := pass(m); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		})
	}
}

// clientVariable has this test binary, started again by itself, be the client of a benchmark: a
// process of its own, so that memory is the server's alone. Its value is the server's address.
const clientVariable = "EXECGUARD_GRPC_CLIENT_OF"

// streamsEnded begins the line that the client writes when a round's streams have ended; after it
// comes how many did so with the denial.
const streamsEnded = "streams ended: "

// playClient returns false in a process that is to measure. In a client it opens as many streams as
// each line of its standard input says, and says when they have ended, until the input ends.
func playClient(b *testing.B) bool {
	b.Helper()
	address, ok := os.LookupEnv(clientVariable)
	if !ok {
		return false
	}
	conn := dial(b, address)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		n, err := strconv.Atoi(in.Text())
		if err != nil {
			b.Fatal(err)
		}
		openStreams(b, conn, n)
	}
	return true
}

func openStreams(b *testing.B, conn *grpc.ClientConn, n int) {
	b.Helper()
	var denied atomic.Int64
	var open sync.WaitGroup
	for range n {
		s := mustOpen(b, conn, both)
		open.Go(func() {
			if w := read(b, s.RecvMsg(new(message))); w.code == codes.PermissionDenied && w.phase == "run" {
				denied.Add(1)
			}
		})
	}
	go func() {
		open.Wait()
		_, _ = fmt.Fprintf(os.Stdout, "%s%d\n", streamsEnded, denied.Load())
	}()
}

// remoteClient is such a process.
type remoteClient struct {
	in  io.WriteCloser
	out *bufio.Scanner
	cmd *exec.Cmd
}

// startClient starts one for a server. It plays the benchmark that has this name.
func startClient(b *testing.B, address, benchmark string) *remoteClient {
	b.Helper()
	cmd := exec.CommandContext(context.Background(), os.Args[0], "-test.run=^$", "-test.bench=^"+benchmark+"$", "-test.benchtime=1x")
	cmd.Env = append(os.Environ(), clientVariable+"="+address)
	cmd.Stderr = os.Stderr
	in, errIn := cmd.StdinPipe()
	out, errOut := cmd.StdoutPipe()
	if errIn != nil || errOut != nil {
		b.Fatal(errIn, errOut)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	c := &remoteClient{in, bufio.NewScanner(out), cmd}
	b.Cleanup(c.end)
	return c
}

func (c *remoteClient) end() {
	_ = c.in.Close()
	_ = c.cmd.Process.Kill() // it may wait for streams that nobody ends
	_ = c.cmd.Wait()
}

// open has the client open n streams, and returns when their handlers have been called.
func (c *remoteClient) open(b *testing.B, n int, inside <-chan struct{}) {
	b.Helper()
	if _, err := fmt.Fprintln(c.in, n); err != nil {
		b.Fatal(err)
	}
	for range n {
		<-inside
	}
}

// ended waits until all streams of the round have their status, and returns how many have the denial.
func (c *remoteClient) ended(b *testing.B) (denied int) {
	b.Helper()
	for c.out.Scan() {
		if count, ok := strings.CutPrefix(c.out.Text(), streamsEnded); ok {
			denied, err := strconv.Atoi(count)
			if err != nil {
				b.Fatal(err)
			}
			return denied
		}
	}
	b.Fatal("the client has gone")
	return 0
}

// idle is a handler of streams on which nothing comes.
func idle(inside, outside chan<- struct{}) calls {
	return calls{stream: func(s grpc.ServerStream) error {
		inside <- struct{}{}
		defer func() { outside <- struct{}{} }()
		return s.RecvMsg(new(message))
	}}
}

// BenchmarkGRPCStreamMemory reports what an open stream on which nothing happens keeps of the
// server's memory, heap and stacks.
func BenchmarkGRPCStreamMemory(b *testing.B) {
	if playClient(b) {
		return
	}
	const n = 2000
	for _, name := range []string{"bare", "guarded"} {
		b.Run(name, func(b *testing.B) {
			var heap, stacks float64
			for b.Loop() {
				var opts []grpc.ServerOption
				if name == "guarded" {
					opts = guarded(newLease(b), grpcmw.Fixed(device))
				}
				inside, outside := make(chan struct{}, n), make(chan struct{}, n+1)
				c := startClient(b, serve(b, idle(inside, outside), opts...), "BenchmarkGRPCStreamMemory")
				c.open(b, 1, inside) // the connection is not any stream's
				before := settledMemory()
				c.open(b, n, inside)
				after := settledMemory()
				heap += float64(after.HeapAlloc) - float64(before.HeapAlloc)
				stacks += float64(after.StackInuse) - float64(before.StackInuse)
				c.end()
				for range n + 1 { // they are not to be a part of what is there before the next round
					<-outside
				}
			}
			streams := float64(b.N * n)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric((heap+stacks)/streams, "B/stream")
			b.ReportMetric(stacks/streams, "stack-B/stream")
		})
	}
}

// settledMemory looks at the memory when two collections have gone over it: what the first finds
// unreachable through a finalizer or a pool only the second gives back.
func settledMemory() *runtime.MemStats {
	runtime.GC()
	runtime.GC()
	m := new(runtime.MemStats)
	runtime.ReadMemStats(m)
	return m
}

// BenchmarkGRPCStreamsDenied is how long it takes from the denial's reaching the guard until the last
// of 10,000 clients of one device has its status. The clients are another process.
func BenchmarkGRPCStreamsDenied(b *testing.B) {
	if playClient(b) {
		return
	}
	const n = 10_000
	a := newLease(b)
	inside, outside := make(chan struct{}, n), make(chan struct{}, n)
	c := startClient(b, serve(b, idle(inside, outside), guarded(a, grpcmw.Fixed(device))...), "BenchmarkGRPCStreamsDenied")
	var spent time.Duration
	for b.Loop() {
		a.script.Allow(device)
		_, _ = a.Validate(b.Context(), device)
		c.open(b, n, inside)
		a.script.Deny(device, guard.CodeDeviceRevoked)
		began := time.Now()
		_, _ = a.Validate(b.Context(), device) // answers at once
		if denied := c.ended(b); denied != n {
			b.Fatalf("%d of %d clients have the denial", denied, n)
		}
		spent += time.Since(began)
		for range n {
			<-outside
		}
	}
	b.ReportMetric(float64(spent)/float64(b.N), "ns/op")
	b.ReportMetric(n, "streams/op")
}

package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/execguard/execguard/cronwrap"
	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/httpmw"
	"github.com/execguard/execguard/internal/chaos"
)

// allLanes starts work on every path, each under a guard and for a device of its own. Some of the
// guards get the authority's hints.
func (w *world) allLanes() {
	w.runLanes()
	w.keepLane("keep")
	w.httpServer("httpmw-server")
	w.httpClient("httpmw-transport")
	w.grpcServer("grpcmw-server", "grpcmw-client")
	w.asynqLane("asynqmw")
	w.cronLane("cronwrap")
}

// hold is the work that is guarded: it takes a while, obeys its context, and goes wrong now and then.
func (w *world) hold(ctx context.Context, most time.Duration) error {
	if err := pause(ctx, rand.N(most)); err != nil {
		w.recorder.Saw(ctx)
		return err
	}
	if rand.N(16) == 0 {
		return errBroken
	}
	return nil
}

// again has n goroutines do something over and over, until the lanes shall end.
func (w *world) again(n int, f func(ctx context.Context)) {
	for range n {
		w.working.Go(func() {
			for w.over.Err() == nil {
				f(w.over)
				_ = pause(w.over, 20*ms+rand.N(100*ms)) // only the end of the lane cuts it short
			}
		})
	}
}

// runLanes are callers of Run: by default, with reuse and with retries, and one that nobody asks beside.
func (w *world) runLanes() {
	reuse, retry := pace, pace
	reuse.MaxAge, retry.Budget = pace.Interval/2, 60*ms
	for lane, terms := range map[string]chaos.Terms{"run": pace, "run-reuse": reuse, "run-retry": retry} {
		r := w.runner(lane, terms, false, lane == "run-reuse")
		w.again(2, func(ctx context.Context) {
			_ = r.Run(ctx, lane, func(ctx context.Context) error { return w.hold(ctx, 150*ms) })
		})
	}
	w.manyDevices("run-many")
	alone := w.runner("run-alone", pace, true, false)
	w.again(1, func(ctx context.Context) {
		_ = alone.Run(ctx, "run-alone", func(ctx context.Context) error { return w.hold(ctx, 2*time.Second) })
	})
}

// manyDevices has one guard for several devices: what one learns of the organisation stops them all.
func (w *world) manyDevices(lane string) {
	devices := []string{lane + "-0", lane + "-1", lane + "-2", lane + "-3"}
	r := w.runner(lane, pace, false, false, devices...)
	for _, device := range devices {
		w.again(1, func(ctx context.Context) {
			_ = r.Run(ctx, device, func(ctx context.Context) error { return w.hold(ctx, time.Second) })
		})
	}
}

// keepLane is a daemon.
func (w *world) keepLane(lane string) {
	r := w.runner(lane, pace, true, false)
	w.again(1, func(ctx context.Context) {
		err := r.Keep(ctx, lane, func(ctx context.Context) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})
		if ctx.Err() == nil {
			w.t.Errorf("Keep has given up: %v", err)
		}
	})
}

// httpServer is a guarded handler with clients that do not always wait for its end.
func (w *world) httpServer(lane string) {
	guarded := httpmw.New(w.runner(lane, pace, false, true), httpmw.FromHeader("Device"))
	srv := httptest.NewServer(guarded(http.HandlerFunc(w.answerSlowly)))
	w.closers = append(w.closers, srv.Close)
	client := &http.Client{Transport: &http.Transport{}}
	w.closers = append(w.closers, client.CloseIdleConnections)
	w.again(2, func(ctx context.Context) { w.fetch(ctx, client, srv.URL, lane) })
}

// answerSlowly sends half of an answer, works, and sends the rest.
func (w *world) answerSlowly(rw http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(rw, "first half, ")
	_ = http.NewResponseController(rw).Flush() // its error is the client's leaving, or the guard's stop
	if w.hold(r.Context(), 150*ms) != nil && r.Context().Err() == nil {
		_, _ = io.WriteString(rw, "and it goes wrong; ")
	}
	_, _ = io.WriteString(rw, "second half")
}

// fetch reads an answer to its end, or leaves before.
func (w *world) fetch(ctx context.Context, client *http.Client, url, device string) {
	ctx, cancel := context.WithTimeout(ctx, 50*ms+rand.N(400*ms))
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return
	}
	q.Header.Set("Device", device)
	answer, err := client.Do(q)
	if err != nil {
		return
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode == http.StatusOK && !strings.HasSuffix(string(text), "second half") {
		w.t.Errorf("%s: an answer that was cut short looks finished: %q", device, text)
	}
}

// httpClient calls a backend that has no guard through one that has.
func (w *world) httpClient(lane string) {
	srv := httptest.NewServer(http.HandlerFunc(w.answerSlowly))
	w.closers = append(w.closers, srv.Close)
	base := &http.Transport{}
	w.closers = append(w.closers, base.CloseIdleConnections)
	client := &http.Client{Transport: httpmw.Transport(w.runner(lane, pace, false, false), httpmw.Fixed(lane), base)}
	w.again(2, func(ctx context.Context) { w.fetch(ctx, client, srv.URL, lane) })
}

type message = wrapperspb.StringValue

// The two methods of the service.
const (
	unaryMethod  = "/chaos.Work/Once"
	streamMethod = "/chaos.Work/Both"
)

// grpcServer is a guarded server on a socket, and clients that are guarded too.
func (w *world) grpcServer(lane, clients string) {
	served, calling := w.runner(lane, pace, false, true), w.runner(clients, pace, false, false)
	srv := grpc.NewServer(
		grpc.UnaryInterceptor(grpcmw.UnaryServer(served, grpcmw.Fixed(lane))),
		grpc.StreamInterceptor(grpcmw.StreamServer(served, grpcmw.Fixed(lane))))
	srv.RegisterService(&grpc.ServiceDesc{
		ServiceName: "chaos.Work", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Once", Handler: w.once}},
		Streams: []grpc.StreamDesc{{StreamName: "Both", ServerStreams: true, ClientStreams: true, Handler: echo}},
	}, nil)
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	must(w.t, err)
	go func() { _ = srv.Serve(l) }() // ends with Stop
	w.closers = append(w.closers, srv.Stop)
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(grpcmw.UnaryClient(calling, grpcmw.Fixed(clients))),
		grpc.WithStreamInterceptor(grpcmw.StreamClient(calling, grpcmw.Fixed(clients))))
	must(w.t, err)
	w.closers = append(w.closers, func() { _ = conn.Close() })
	w.again(2, func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		reply := new(message)
		if err := conn.Invoke(ctx, unaryMethod, wrapperspb.String("x"), reply); err == nil && reply.GetValue() != "done" {
			w.t.Errorf("%s: a call that was cut short looks finished: %q", lane, reply.GetValue())
		}
	})
	w.again(2, func(ctx context.Context) { w.converse(ctx, conn) })
}

// once is what protoc makes of a method, and the method.
func (w *world) once(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
	in := new(message)
	if err := dec(in); err != nil {
		return nil, err
	}
	return interceptor(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: unaryMethod}, func(ctx context.Context, _ any) (any, error) {
		if err := w.hold(ctx, 300*ms); err != nil {
			return nil, err
		}
		return wrapperspb.String("done"), nil
	})
}

// echo answers until the client has no more to say.
func echo(_ any, s grpc.ServerStream) error {
	for {
		in := new(message)
		if err := s.RecvMsg(in); err != nil {
			if guard.Stopped(s.Context()) != nil {
				return nil //nolint:nilerr // a handler that makes nothing of it
			}
			return err
		}
		if err := s.SendMsg(in); err != nil {
			return err
		}
	}
}

// converse talks to the server for a while.
func (w *world) converse(ctx context.Context, conn *grpc.ClientConn) {
	ctx, cancel := context.WithTimeout(ctx, 100*ms+rand.N(time.Second))
	defer cancel()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, streamMethod)
	for err == nil {
		if err = s.SendMsg(wrapperspb.String("x")); err == nil || errors.Is(err, io.EOF) { // it is RecvMsg that says how it has ended
			err = s.RecvMsg(new(message))
		}
		_ = pause(ctx, 10*ms) // the stream ends with ctx
	}
	if err == io.EOF { //nolint:errorlint // as it comes from a stream that has ended well; no client has ended its half
		w.t.Error("a stream that was cut short looks finished")
	}
}

// every is a schedule finer than cron's own.
type every time.Duration

func (e every) Next(t time.Time) time.Time { return t.Add(time.Duration(e)) }

// cronLane is a job that ticks every 40 ms, and catches up what it has missed.
func (w *world) cronLane(lane string) {
	silent := slog.New(slog.DiscardHandler)
	job := cronwrap.Job(w.runner(lane, pace, true, false), lane, func(ctx context.Context) error { return w.hold(ctx, 300*ms) },
		cronwrap.WithCatchUp(), cronwrap.WithLogger(silent), cronwrap.WithErrorHandler(func(error) {}))
	c := cron.New(cron.WithChain(cronwrap.SkipIfStillRunning(cron.DiscardLogger)), cron.WithLogger(cron.DiscardLogger))
	c.Schedule(every(40*ms), job)
	c.Start()
	w.closers = append(w.closers, func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := cronwrap.Stop(ctx, c); err != nil {
			w.t.Error(fmt.Errorf("cron: %w", err))
		}
	})
}

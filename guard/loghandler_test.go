package guard_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/slogtest"

	"github.com/execguard/execguard/guard"
)

// inside calls f in a run of that device, on a decision with the request id "r1".
func inside(t testing.TB, ctx context.Context, device string, f func(ctx context.Context)) {
	t.Helper()
	g, err := guard.New(newAuthority())
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := g.Run(ctx, device, func(ctx context.Context) error { f(ctx); return nil }); err != nil {
		t.Fatal(err)
	}
}

// within has every record handled in the context of a run.
type within struct {
	slog.Handler
	ctx context.Context
}

func (w within) Handle(_ context.Context, r slog.Record) error { return w.Handler.Handle(w.ctx, r) }
func (w within) WithAttrs(as []slog.Attr) slog.Handler         { return within{w.Handler.WithAttrs(as), w.ctx} }
func (w within) WithGroup(name string) slog.Handler            { return within{w.Handler.WithGroup(name), w.ctx} }

// The handler is a correct one outside of runs and inside, whatever it hands on to; and inside each record has the two
// at the top.
func TestLogHandler_IsACorrectHandler(t *testing.T) {
	for name, in := range map[string]func(slog.Handler, context.Context) slog.Handler{
		"outside": func(h slog.Handler, _ context.Context) slog.Handler { return guard.LogHandler(h) },
		"inside":  func(h slog.Handler, ctx context.Context) slog.Handler { return within{guard.LogHandler(h), ctx} },
		"twice": func(h slog.Handler, ctx context.Context) slog.Handler {
			return within{guard.LogHandler(guard.LogHandler(h)), ctx}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inside(t, t.Context(), "dev", func(ctx context.Context) {
				var out *bytes.Buffer
				slogtest.Run(t, func(*testing.T) slog.Handler {
					out = new(bytes.Buffer)
					return in(slog.NewJSONHandler(out, nil), ctx)
				}, func(t *testing.T) map[string]any {
					record := map[string]any{}
					if err := json.Unmarshal(out.Bytes(), &record); err != nil {
						t.Fatal(err)
					}
					_, has := record["device"]
					if has == (name == "outside") || has && (record["device"] != "dev" || record["request_id"] != "r1") {
						t.Errorf("%s", out)
					}
					if strings.Count(out.String(), `"device"`) > 1 {
						t.Errorf("more than once: %s", out)
					}
					return record
				})
			})
		})
	}
}

// logText is what a logger says through LogHandler, without the time.
func logText(ctx context.Context, f func(ctx context.Context, l *slog.Logger)) string {
	var out bytes.Buffer
	f(ctx, slog.New(guard.LogHandler(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey && len(groups) == 0 {
			return slog.Attr{}
		}
		return a
	}}))))
	return strings.TrimSuffix(out.String(), "\n")
}

func TestLogHandler_AddsAtTheTopWhateverIsOpen(t *testing.T) {
	for _, c := range []struct {
		name string
		log  func(ctx context.Context, l *slog.Logger)
		want string // inside
		bare string // outside
	}{
		{"plain", func(ctx context.Context, l *slog.Logger) { l.InfoContext(ctx, "m", "a", 1) },
			`level=INFO msg=m a=1 device=dev request_id=r1`, `level=INFO msg=m a=1`},
		{"nothing else", func(ctx context.Context, l *slog.Logger) { l.ErrorContext(ctx, "m") },
			`level=ERROR msg=m device=dev request_id=r1`, `level=ERROR msg=m`},
		{"many", func(ctx context.Context, l *slog.Logger) {
			l.InfoContext(ctx, "m", "a", 1, "b", 2, "c", 3, "d", 4, "e", 5, "f", 6, "g", 7)
		}, `level=INFO msg=m a=1 b=2 c=3 d=4 e=5 f=6 g=7 device=dev request_id=r1`, `level=INFO msg=m a=1 b=2 c=3 d=4 e=5 f=6 g=7`},
		{"below the level", func(ctx context.Context, l *slog.Logger) { l.DebugContext(ctx, "m") }, "", ""},
		{"without a context", func(_ context.Context, l *slog.Logger) { l.Info("m") }, `level=INFO msg=m`, `level=INFO msg=m`},
		{"With", func(ctx context.Context, l *slog.Logger) { l.With("a", 1).With("b", 2).InfoContext(ctx, "m", "c", 3) },
			`level=INFO msg=m a=1 b=2 c=3 device=dev request_id=r1`, `level=INFO msg=m a=1 b=2 c=3`},
		{"a group", func(ctx context.Context, l *slog.Logger) {
			l.With("a", 1).WithGroup("g").With("b", 2).With("c", 3).InfoContext(ctx, "m", "d", 4)
		}, `level=INFO msg=m a=1 g.b=2 g.c=3 g.d=4 device=dev request_id=r1`, `level=INFO msg=m a=1 g.b=2 g.c=3 g.d=4`},
		{"groups", func(ctx context.Context, l *slog.Logger) {
			l.WithGroup("g").WithGroup("h").With("b", 2).WithGroup("i").InfoContext(ctx, "m", slog.Group("j", "d", 4))
		}, `level=INFO msg=m g.h.b=2 g.h.i.j.d=4 device=dev request_id=r1`, `level=INFO msg=m g.h.b=2 g.h.i.j.d=4`},
		{"an empty group", func(ctx context.Context, l *slog.Logger) { l.WithGroup("g").InfoContext(ctx, "m") },
			`level=INFO msg=m device=dev request_id=r1`, `level=INFO msg=m`},
		{"no group", func(ctx context.Context, l *slog.Logger) { l.WithGroup("").With().InfoContext(ctx, "m", "a", 1) },
			`level=INFO msg=m a=1 device=dev request_id=r1`, `level=INFO msg=m a=1`},
		{"siblings", func(ctx context.Context, l *slog.Logger) {
			g := l.WithGroup("g").With("a", 1)
			one, two := g.With("b", 2).WithGroup("x"), g.With("c", 3).WithGroup("y")
			_ = two.With("lost", 0)
			_ = g.WithGroup("z")
			one.InfoContext(ctx, "m", "d", 4)
		}, `level=INFO msg=m g.a=1 g.b=2 g.x.d=4 device=dev request_id=r1`, `level=INFO msg=m g.a=1 g.b=2 g.x.d=4`},
		{"younger siblings", func(ctx context.Context, l *slog.Logger) {
			g := l.WithGroup("g").With("a", 1)
			one := g.With("b", 2)
			_ = g.With("c", 3)
			one.InfoContext(ctx, "m", "d", 4)
		}, `level=INFO msg=m g.a=1 g.b=2 g.d=4 device=dev request_id=r1`, `level=INFO msg=m g.a=1 g.b=2 g.d=4`},
		// What is there stays, and nothing is said twice or about two devices at once.
		{"its own device", func(ctx context.Context, l *slog.Logger) { l.InfoContext(ctx, "m", "device", "other") },
			`level=INFO msg=m device=other`, `level=INFO msg=m device=other`},
		{"its own request_id", func(ctx context.Context, l *slog.Logger) { l.InfoContext(ctx, "m", "request_id", "mine") },
			`level=INFO msg=m request_id=mine device=dev`, `level=INFO msg=m request_id=mine`},
		{"the logger's own", func(ctx context.Context, l *slog.Logger) {
			l.With("request_id", "mine").WithGroup("g").InfoContext(ctx, "m", "a", 1)
		},
			`level=INFO msg=m request_id=mine g.a=1 device=dev`, `level=INFO msg=m request_id=mine g.a=1`},
		{"the logger's own device", func(ctx context.Context, l *slog.Logger) { l.With("device", "other").InfoContext(ctx, "m") },
			`level=INFO msg=m device=other`, `level=INFO msg=m device=other`},
		{"in a group without a name", func(ctx context.Context, l *slog.Logger) { l.InfoContext(ctx, "m", slog.Group("", "device", "other")) },
			`level=INFO msg=m device=other`, `level=INFO msg=m device=other`},
		{"in a group of its own", func(ctx context.Context, l *slog.Logger) {
			l.WithGroup("g").With("device", "other").InfoContext(ctx, "m", "request_id", 1)
		}, `level=INFO msg=m g.device=other g.request_id=1 device=dev request_id=r1`, `level=INFO msg=m g.device=other g.request_id=1`},
		{"in a group of the record", func(ctx context.Context, l *slog.Logger) { l.InfoContext(ctx, "m", slog.Group("g", "device", "other")) },
			`level=INFO msg=m g.device=other device=dev request_id=r1`, `level=INFO msg=m g.device=other`},
	} {
		t.Run(c.name, func(t *testing.T) {
			inside(t, t.Context(), "dev", func(ctx context.Context) {
				if got := logText(ctx, c.log); got != c.want {
					t.Errorf("inside: %s\nwant:   %s", got, c.want)
				}
				detached := context.WithoutCancel(context.WithValue(ctx, new(int), 1))
				if got := logText(detached, c.log); got != c.want {
					t.Errorf("derived: %s\nwant:    %s", got, c.want)
				}
			})
			if got := logText(t.Context(), c.log); got != c.bare {
				t.Errorf("outside: %s\nwant:    %s", got, c.bare)
			}
		})
	}
}

func TestLogHandler_TheInnermostRunCounts(t *testing.T) {
	m := func(ctx context.Context, l *slog.Logger) { l.InfoContext(ctx, "m") }
	inside(t, t.Context(), "outer", func(outer context.Context) {
		inside(t, outer, "inner", func(inner context.Context) {
			if got, want := logText(inner, m), `level=INFO msg=m device=inner request_id=r1`; got != want {
				t.Errorf("got %s", got)
			}
		})
		if got, want := logText(outer, m), `level=INFO msg=m device=outer request_id=r1`; got != want {
			t.Errorf("got %s", got)
		}
	})
}

// The guard's own records name their device themselves, also where the caller stands in a run of another.
func TestLogHandler_LeavesTheGuardsRecordsAlone(t *testing.T) {
	var out bytes.Buffer
	level := &slog.HandlerOptions{Level: slog.LevelWarn}
	g := newGuard(t, newAuthority(), guard.WithLogger(slog.New(guard.LogHandler(slog.NewTextHandler(&out, level)))))
	inside(t, t.Context(), "outer", func(ctx context.Context) {
		if err := g.Run(ctx, " ", mustNotRun(t)); !errors.Is(err, guard.ErrDenied) {
			t.Error(err)
		}
	})
	if text := out.String(); strings.Count(text, "device=") != 1 || !strings.Contains(text, `device=" "`) || strings.Count(text, "request_id=") != 1 {
		t.Error(text)
	}
}

// A handler that fails says so, and one that is not there logs nothing.
func TestLogHandler_HandsErrorsOnAndDiscardsForNobody(t *testing.T) {
	inside(t, t.Context(), "dev", func(ctx context.Context) {
		for _, h := range []slog.Handler{guard.LogHandler(slog.NewTextHandler(brokenWriter{}, nil)), guard.LogHandler(slog.NewTextHandler(brokenWriter{}, nil)).WithGroup("g")} {
			if err := h.Handle(ctx, slog.Record{}); !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("got %v", err)
			}
		}
		if guard.LogHandler(nil).Enabled(ctx, slog.LevelError) {
			t.Error("somebody listens")
		}
		slog.New(guard.LogHandler(nil)).With("a", 1).WithGroup("g").ErrorContext(ctx, "m")
	})
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// A record is the caller's: a handler may not write into what it shares with others.
func TestLogHandler_DoesNotWriteIntoTheRecordItIsGiven(t *testing.T) {
	inside(t, t.Context(), "dev", func(ctx context.Context) {
		var shared slog.Record
		shared.AddAttrs(slog.Int("a", 1), slog.Int("b", 2), slog.Int("c", 3), slog.Int("d", 4), slog.Int("e", 5), slog.Int("f", 6))
		h := guard.LogHandler(slog.DiscardHandler)
		for range 3 {
			_ = h.Handle(ctx, shared)
		}
		if shared.NumAttrs() != 6 {
			t.Errorf("%d attributes", shared.NumAttrs())
		}
		shared.AddAttrs(slog.Int("g", 7))
		shared.Attrs(func(a slog.Attr) bool {
			if a.Key == "!BUG" || a.Key == "device" {
				t.Errorf("found %v", a)
			}
			return true
		})
	})
}

// BenchmarkLogHandler is what the handler adds to a record.
func BenchmarkLogHandler(b *testing.B) {
	text := slog.NewTextHandler(io.Discard, nil) //nolint:sloglint // what it costs to write a record is the measure
	inside(b, context.Background(), "dev", func(ctx context.Context) {
		for name, h := range map[string]slog.Handler{
			"none":    text,
			"inside":  guard.LogHandler(text),
			"grouped": guard.LogHandler(text).WithGroup("g"),
		} {
			b.Run(name, func(b *testing.B) {
				b.ReportAllocs()
				l := slog.New(h)
				for b.Loop() {
					l.LogAttrs(ctx, slog.LevelInfo, "m", slog.Int("a", 1), slog.Int("b", 2))
				}
			})
		}
	})
}

func ExampleLogHandler() {
	g, err := guard.New(guard.ValidatorFunc(allowAll))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	withoutTime := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}
	log := slog.New(guard.LogHandler(slog.NewTextHandler(os.Stdout, withoutTime)))

	_ = g.Run(context.Background(), "worker:prod:mailer:01", func(ctx context.Context) error {
		log.InfoContext(ctx, "sent", "mails", 12)
		return nil
	})
	log.Info("outside")
	// Output:
	// level=INFO msg=sent mails=12 device=worker:prod:mailer:01 request_id=req-1
	// level=INFO msg=outside
}

func TestLogHandler_TheSourceIsTheCallers(t *testing.T) {
	inside(t, t.Context(), "dev", func(ctx context.Context) {
		for _, name := range []string{"", "g"} {
			var out bytes.Buffer
			l := slog.New(guard.LogHandler(slog.NewTextHandler(&out, &slog.HandlerOptions{AddSource: true})))
			l.WithGroup(name).InfoContext(ctx, "m", "a", 1)
			if !strings.Contains(out.String(), "loghandler_test.go:") {
				t.Errorf("group %q: %s", name, out.String())
			}
		}
	})
}

package guard_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
)

// inLoggedRun logs with a logger that LogHandler's is made into, in a run.
func inLoggedRun(t *testing.T, log func(ctx context.Context, l *slog.Logger)) string {
	t.Helper()
	var out bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		g := newGuard(t, newAuthority())
		l := slog.New(guard.LogHandler(slog.NewTextHandler(&out, nil)))
		if err := g.Run(t.Context(), "d", func(ctx context.Context) error {
			log(ctx, l)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	})
	return out.String()
}

// Loggers made of one logger do not share their groups.
func TestLogHandler_SiblingGroupsDoNotMix(t *testing.T) {
	text := inLoggedRun(t, func(ctx context.Context, l *slog.Logger) {
		l = l.WithGroup("a").WithGroup("b").WithGroup("c")
		x := l.WithGroup("x")
		_ = l.WithGroup("y")
		x.InfoContext(ctx, "m", "k", 1)
	})
	if !strings.Contains(text, " a.b.c.x.k=1") {
		t.Error(text)
	}
}

// Nor do they share their attributes.
func TestLogHandler_SiblingAttrsDoNotMix(t *testing.T) {
	text := inLoggedRun(t, func(ctx context.Context, l *slog.Logger) {
		l = l.WithGroup("g").With("k1", 1).With("k2", 2).With("k3", 3)
		x := l.With("x", 1)
		_ = l.With("y", 1)
		x.InfoContext(ctx, "m")
	})
	if !strings.Contains(text, " g.k3=3 g.x=1") || strings.Contains(text, "g.y") {
		t.Error(text)
	}
}

// The record stays the caller's: who hands it on to a second handler adds to it what he likes.
func TestLogHandler_TheRecordIsTheCallersStill(t *testing.T) {
	text := inLoggedRun(t, func(ctx context.Context, l *slog.Logger) {
		r := slog.NewRecord(time.Now(), slog.LevelInfo, "m", 0)
		for _, k := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10"} {
			r.Add("k"+k, k)
		}
		_ = l.Handler().Handle(ctx, r)
		r.AddAttrs(slog.Int("own", 1))
		_ = l.Handler().Handle(context.Background(), r)
	})
	if strings.Contains(text, "BUG") {
		t.Error(text)
	}
}

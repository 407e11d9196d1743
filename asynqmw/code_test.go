package asynqmw_test

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/execguard/execguard/asynqmw"
	"github.com/execguard/execguard/guard"
)

// closed stands among the codes for a guard that is closed.
const closed guard.Code = ""

// declaredCodes reads every constant of type Code in guard/code.go.
func declaredCodes(t testing.TB) (codes []guard.Code) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../guard/code.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for node := range ast.Preorder(file) {
		spec, ok := node.(*ast.ValueSpec)
		if !ok {
			continue
		}
		for _, value := range spec.Values {
			code, err := strconv.Unquote(value.(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			codes = append(codes, guard.Code(code))
		}
	}
	if len(codes) < 11 || !slices.Contains(codes, guard.CodeInvalidDeviceID) {
		t.Fatalf("read %q", codes)
	}
	return codes
}

// TestEveryCodeOnEverySurface meets every code, one of tomorrow and a closed guard, before the start and while the
// handler is at work, with retries left and on the last attempt: never is a task lost, never a retry spent.
func TestEveryCodeOnEverySurface(t *testing.T) {
	t.Parallel()
	tests := map[string]func(t *testing.T){}
	for _, code := range append(declaredCodes(t), "A_CODE_OF_TOMORROW", closed) {
		tests["code "+string(code)] = func(t *testing.T) { meetCode(t, code) }
	}
	sideBySide(t, tests)
}

func meetCode(t *testing.T, code guard.Code) {
	s := newSite(t)
	var cause, seen list[error]
	w := working(nil)
	w.act = func(ctx context.Context, _ *asynq.Task) error {
		if len(cause.get()) == 2 { // both have been stopped
			return nil
		}
		<-ctx.Done()
		cause.add(context.Cause(ctx))
		return nil
	}
	inside := s.around(w, asynqmw.WithInspector(s.inspector))
	shutdown := s.start(t, asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		err := inside.ProcessTask(ctx, task)
		if err != nil {
			seen.add(err)
		}
		return err
	}))
	keep := asynq.Retention(time.Hour)
	running := []string{s.enqueue(t, asynq.MaxRetry(1), keep), s.enqueue(t, asynq.MaxRetry(0), keep)}
	for _, id := range running {
		w.await(t, id, 1)
	}
	if code == closed {
		_ = s.guard.Close()
	} else {
		s.revoke(code)
	}
	eventually(t, "both have been stopped", func() bool { return len(cause.get()) == 2 })
	starting := []string{s.enqueue(t, asynq.MaxRetry(1), keep), s.enqueue(t, asynq.MaxRetry(0), keep)}
	all := append(slices.Clone(running), starting...)

	back := asynq.TaskStateRetry
	if code == closed {
		back = asynq.TaskStateActive // it is held, for this process will not be allowed again
	}
	for i, id := range all {
		s.unspent(t, id, []asynq.TaskState{back, asynq.TaskStateActive}[i%2], 0)
	}
	throughout(t, 3*interval, "nothing is spent or archived", func() bool {
		return !slices.ContainsFunc(all, func(id string) bool {
			info := s.info(t, id)
			return info == nil || info.Retried > 0 || info.State == asynq.TaskStateArchived || info.State == asynq.TaskStateCompleted
		})
	})
	wantWord(t, code, append(cause.get(), seen.get()...), s.info(t, starting[0]).LastErr)

	if code == closed {
		shutdown()
		for _, id := range all {
			s.unspent(t, id, asynq.TaskStatePending, 0)
		}
		g, _ := newGuard(t)
		s.start(t, asynqmw.New(g, asynqmw.Fixed(device))(w))
	}
	s.Allow(device)
	for i, id := range all {
		s.unspent(t, id, asynq.TaskStateCompleted, 0)
		w.want(t, id, 2-i/2)
	}
	if given := s.reported.get(); len(given) > 0 {
		t.Errorf("the ErrorHandler was given %v", given)
	}
}

// wantWord wants every error to say what the authority has said.
func wantWord(t *testing.T, code guard.Code, errs []error, lastErr string) {
	t.Helper()
	says := code
	if code == guard.CodeAllow {
		says = guard.CodeSystemUnavailable // beside Allowed == false that is a contradiction (S2)
	}
	for _, err := range errs {
		denied := (*guard.DeniedError)(nil)
		switch {
		case code == closed && !errors.Is(err, guard.ErrClosed):
			t.Errorf("%v does not say that the guard is closed", err)
		case code != closed && (!errors.As(err, &denied) || denied.Decision.Code != says || denied.DeviceID != device):
			t.Errorf("%v does not say %s", err, says)
		}
	}
	if code != closed && !strings.Contains(lastErr, string(says)) {
		t.Errorf("LastErr = %q does not say %s", lastErr, says)
	}
}

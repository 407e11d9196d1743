package guard

import (
	"context"
	"testing"
	"time"
)

// The names that plain knows are the standard library's own and unexported. Should it rename one,
// runs under it would cost a link more, and nobody would notice.
func TestPlain_KnowsTheStandardLibrarysContexts(t *testing.T) {
	cancellable, cancel := context.WithCancel(t.Context())
	defer cancel()
	timed, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	for name, ctx := range map[string]context.Context{
		"Background": context.Background(), "WithCancel": cancellable, "WithTimeout": timed,
		"WithoutCancel": context.WithoutCancel(timed),
	} {
		if !plain(ctx) {
			t.Errorf("%s is not known: it is now a %T", name, ctx)
		}
	}
	type key struct{}
	for name, ctx := range map[string]context.Context{
		"WithValue": context.WithValue(timed, key{}, 1), "a context of somebody's own": struct{ context.Context }{timed},
	} {
		if plain(ctx) {
			t.Errorf("%s may call somebody's code when a child of it is cancelled", name)
		}
	}
}

// S4: what tells runs to stop asks nothing of a context of the caller's own type: all that the
// standard library wants to know of it when a child is cancelled was asked when that was made.
func TestS4_ALinkIsAskedOnce(t *testing.T) {
	parent, cancelParent := context.WithCancel(t.Context())
	defer cancelParent()
	own := &talkative{Context: parent}
	child, cancel := context.WithCancelCause(newLink(own))
	asked := own.asked
	if asked == 0 {
		t.Fatal("the caller's context was not asked at all")
	}
	cancel(errOver)
	if own.asked != asked {
		t.Errorf("asked %d times more when the child was cancelled", own.asked-asked)
	}
	if context.Cause(child) != errOver {
		t.Errorf("the cause is %v", context.Cause(child))
	}
	type key struct{}
	if newLink(context.WithValue(own, key{}, "kept")).Value(key{}) != "kept" {
		t.Error("a value of the caller's is lost")
	}
	second, cancel := context.WithCancelCause(newLink(own))
	defer cancel(nil)
	cancelParent()
	if second.Err() == nil {
		t.Error("a child does not end with the caller's context")
	}
}

// talkative is a context of somebody's own that counts what it is asked.
type talkative struct {
	context.Context
	asked int
}

func (c *talkative) Done() <-chan struct{} {
	c.asked++
	return c.Context.Done()
}

func (c *talkative) Value(key any) any {
	c.asked++
	return c.Context.Value(key)
}

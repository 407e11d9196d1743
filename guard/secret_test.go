package guard_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/execguard/execguard/guard"
)

// secret is what must be found nowhere.
const secret = "hunter2"

// valueClient is a client that keeps its key where fmt finds it, and is no pointer.
type valueClient struct {
	key string
	do  func(ctx context.Context, c *asked) (guard.Decision, error)
}

func (v valueClient) Validate(ctx context.Context, id string) (guard.Decision, error) {
	return v.do(ctx, &asked{device: id})
}

// pointerClient is one that is a pointer.
type pointerClient struct{ valueClient }

func (p *pointerClient) Validate(ctx context.Context, id string) (guard.Decision, error) {
	return p.valueClient.Validate(ctx, id)
}

// secretError does not say its secret, but holds it where fmt finds it.
type secretError struct{ key string }

func (secretError) Error() string { return "the authority is down" }

// printed is every form in which a value may come to light.
func printed(v any) map[string]string {
	forms := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v"} {
		forms[verb] = fmt.Sprintf(verb, v)
	}
	if text, err := json.Marshal(v); err == nil {
		forms["JSON"] = string(text)
	}
	for name, h := range map[string]func(*bytes.Buffer) slog.Handler{
		"slog text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"slog JSON": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var b bytes.Buffer
		slog.New(h(&b)).Info("a value", "value", v)
		forms[name] = b.String()
	}
	return forms
}

// wantNoSecret looks at v in every form; where it is a pointer, at what it points to; and inside
// other values. What a guard at work points to cannot be looked at without a data race.
func wantNoSecret(t *testing.T, what string, v any) {
	t.Helper()
	_, atWork := v.(*guard.Guard)
	wantNoSecretIn(t, what, v, !atWork)
}

func wantNoSecretIn(t *testing.T, what string, v any, dereference bool) {
	t.Helper()
	values := map[string]any{
		"": v, " in a slice": []any{v}, " in a map": map[string]any{"k": v},
		" in a struct": struct{ V any }{v}, " hidden in a struct": struct{ v any }{v},
	}
	if p := reflect.ValueOf(v); dereference && p.Kind() == reflect.Pointer && !p.IsNil() {
		values[" dereferenced"] = p.Elem().Interface()
		values[" dereferenced in a struct"] = struct{ v any }{p.Elem().Interface()}
	}
	hexed := fmt.Sprintf("%x", secret)
	for where, v := range values {
		for form, text := range printed(v) {
			if strings.Contains(text, secret) || strings.Contains(strings.ToLower(text), hexed) {
				t.Errorf("%s%s tells the secret as %s: %.300s", what, where, form, text)
				break
			}
		}
	}
	for err, ok := v.(error); ok && err != nil; err = errors.Unwrap(err) {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%s tells the secret: %s", what, err.Error())
		}
	}
}

// clients are validators that hold the secret, and do as b says.
func clients(b behaviour) map[string]guard.Validator {
	v := valueClient{secret, b}
	return map[string]guard.Validator{
		"value": v, "pointer": &pointerClient{v}, "func": guard.ValidatorFunc(v.Validate),
		"both": struct {
			valueClient
			more map[string]string
		}{v, map[string]string{"token": secret}},
	}
}

// listen keeps every event and every line of the log.
type listen struct {
	mu     sync.Mutex
	events []guard.Event
	log    bytes.Buffer
}

func (l *listen) options() []guard.Option {
	level := &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true}
	return []guard.Option{
		guard.WithObserver(func(_ context.Context, e guard.Event) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.events = append(l.events, e)
		}),
		guard.WithLogger(slog.New(slog.NewTextHandler(l, level))),
		guard.WithLogger(slog.New(slog.NewJSONHandler(l, level))),
	}
}

func (l *listen) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Write(p)
}

func (l *listen) check(t *testing.T) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.events) == 0 || l.log.Len() == 0 {
		t.Fatalf("%d events, %d bytes of log", len(l.events), l.log.Len())
	}
	for _, e := range l.events {
		wantNoSecret(t, "the event "+string(e.Kind), e)
		wantNoSecret(t, "the event "+string(e.Kind), &e)
	}
	if strings.Contains(l.log.String(), secret) {
		t.Errorf("the log tells the secret: %s", l.log.String())
	}
}

// Nothing that the guard hands out tells what its validator holds.
func TestS8_NoPublicValueTellsTheValidatorsSecret(t *testing.T) {
	for name := range clients(allows) {
		bubble(t, name, func(t *testing.T) {
			next, l := allows, &listen{}
			v := clients(func(ctx context.Context, c *asked) (guard.Decision, error) { return next(ctx, c) })[name]
			g := newGuard(t, v, l.options()...)
			wantNoSecretIn(t, "the idle guard", g, true)
			r := launch(t.Context(), g, "dev")
			synctest.Wait()
			<-r.began
			wantNoSecret(t, "the guard", g)
			wantNoSecret(t, "the run's context", r.ctx)
			d, ok := guard.DecisionFrom(r.ctx)
			if !ok {
				t.Error("no decision")
			}
			wantNoSecret(t, "the decision", d)

			next = denies(guard.CodeDeviceRevoked)
			err := g.Run(t.Context(), "dev", mustNotRun(t))
			wantNoSecret(t, "the denial before the start", err)
			wantNoSecret(t, "the denial in flight", r.finish())
			wantNoSecret(t, "the cause", context.Cause(r.ctx))
			wantNoSecret(t, "what Checkpoint says", guard.Checkpoint(r.ctx))
			wantNoSecret(t, "the stopped run's context", r.ctx)

			_ = g.Close()
			err = g.Run(t.Context(), "dev", mustNotRun(t))
			wantNoSecret(t, "the error of a closed guard", err)
			wantNoSecret(t, "the closed guard", g)
			l.check(t)
		})
	}
}

// Whatever a validator panics with, only its type is told.
func TestS8_APanicIsToldByItsTypeAlone(t *testing.T) {
	for name, value := range map[string]any{
		"a text":           "key " + secret,
		"an error":         errors.New("key " + secret),
		"a wrapped error":  fmt.Errorf("asking: %w", errors.New(secret)),
		"a struct":         valueClient{key: secret},
		"a pointer":        &valueClient{key: secret},
		"a stringer":       slog.StringValue(secret),
		"a list":           []string{secret},
		"a map":            map[string]string{"key": secret},
		"bytes":            []byte(secret),
		"a runtime error":  spoiltRuntimeError{secret},
		"a formatted type": func() string { return secret },
	} {
		for _, when := range []string{"start", "watch"} {
			bubble(t, name+"/"+when, func(t *testing.T) {
				l, a := &listen{}, newAuthority()
				g := newGuard(t, a, l.options()...)
				var r *running
				if when == "watch" {
					r = launch(t.Context(), g, "dev")
					synctest.Wait()
				}
				a.set(func(context.Context, *asked) (guard.Decision, error) { panic(value) })
				if r == nil {
					r = launchFunc(t.Context(), g, "dev", mustNotRun(t))
				}
				err := r.finish()
				wantNoSecret(t, "the denial", err)
				denied := wantDenied(t, err, "dev", guard.CodeSystemUnavailable, when == "watch")
				if !strings.Contains(denied.Decision.Reason, "panic") {
					t.Errorf("the reason does not speak of a panic: %q", denied.Decision.Reason)
				}
				d, err := g.Validate(t.Context(), "dev")
				wantNoSecret(t, "Validate's decision", d)
				wantNoSecret(t, "Validate's error", err)
				l.check(t)
			})
		}
	}
}

// spoiltRuntimeError is a runtime.Error that the runtime did not make.
type spoiltRuntimeError struct{ text string }

func (e spoiltRuntimeError) Error() string { return e.text }
func (spoiltRuntimeError) RuntimeError()   {}

var _ runtime.Error = spoiltRuntimeError{}

// An error that keeps its secret to itself does not lose it on the way through the guard, not
// even where fmt looks into what it wraps. (An Event hands the error on as it is.)
func TestS8_ADenialDoesNotOpenTheErrorInside(t *testing.T) {
	bubble(t, "in flight", func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a)
		until := func(ctx context.Context) error {
			<-ctx.Done()
			return secretError{secret}
		}
		r := launchFunc(t.Context(), g, "dev", until)
		synctest.Wait()
		a.fail(secretError{secret})
		wantNoSecret(t, "the denial before the start", g.Run(t.Context(), "dev", mustNotRun(t)))
		d, err := g.Validate(t.Context(), "dev")
		wantNoSecret(t, "Validate's decision", d)
		wantNoSecret(t, "Validate's error", err)
		wantNoSecret(t, "the denial in flight", r.finish())
		wantNoSecret(t, "the cause", context.Cause(r.ctx))
		wantNoSecret(t, "what Checkpoint says", guard.Checkpoint(r.ctx))
	})
	bubble(t, "closed", func(t *testing.T) {
		g := newGuard(t, newAuthority())
		r := launchFunc(t.Context(), g, "dev", func(ctx context.Context) error {
			<-ctx.Done()
			return secretError{secret}
		})
		synctest.Wait()
		_ = g.Close()
		wantNoSecret(t, "closed while it ran", r.finish())
	})
}

// New's errors name options, never the validator.
func TestS8_NewDoesNotTellTheValidator(t *testing.T) {
	for name, v := range clients(allows) {
		_, err := guard.New(v, guard.WithInterval(-1), guard.WithMaxRequests(0))
		if err == nil {
			t.Fatal("accepted")
		}
		wantNoSecret(t, name, err)
	}
}

// What is printed is worth something: the settings of the guard, the facts of a denial.
func TestS8_WhatIsPrintedIsOfUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority()
		g := newGuard(t, a, guard.WithInterval(7*1e9))
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			if text := fmt.Sprintf(verb, g); !strings.Contains(text, "7s") {
				t.Errorf("%s of the guard: %s", verb, text)
			}
		}
		a.deny(guard.CodeDeviceRevoked)
		err := g.Run(t.Context(), "dev-1", mustNotRun(t))
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			for _, word := range []string{"dev-1", "DEVICE_REVOKED", "r1"} {
				if text := fmt.Sprintf(verb, err); !strings.Contains(text, word) {
					t.Errorf("%s of the denial does not name %s: %s", verb, word, text)
				}
			}
		}
	})
}

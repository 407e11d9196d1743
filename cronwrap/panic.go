package cronwrap

import (
	"fmt"
	"log/slog"
	"reflect"
	"runtime/debug"
	"strconv"
)

// panicError is a panic of a job as an error. errors.Is and errors.As find the value, if that is an error.
type panicError struct {
	value any
	stack []byte
}

func newPanicError(value any) *panicError { return &panicError{value, debug.Stack()} }

func (p *panicError) Error() string { return "cronwrap: the job panicked: " + panicText(p.value) }

func (p *panicError) Unwrap() error {
	err, _ := p.value.(error)
	return err
}

// GoString is Error, so that %#v does not look inside.
func (p *panicError) GoString() string { return p.Error() }

// panicText prints what the runtime prints of a panic that nobody catches: of other values only the type.
func panicText(value any) string {
	switch v := value.(type) {
	case error, fmt.Stringer:
		return fmt.Sprint(v) // which catches a panic of theirs
	case string:
		return strconv.Quote(v)
	}
	switch kind := reflect.ValueOf(value).Kind(); {
	case kind >= reflect.Bool && kind <= reflect.Complex128, kind == reflect.String:
		return fmt.Sprintf("%T(%v)", value, value)
	}
	return fmt.Sprintf("%T", value)
}

// catch makes an error of a panic of the job, where it came up: the guard then hears of an outcome.
func (a *attempt) catch(err *error) {
	if v := recover(); v != nil {
		*err = newPanicError(v)
		a.work = *err
	}
}

// reportPanic logs a panic with its stack and hands it to the error handler. It may be called while
// the goroutine unwinds: nothing more may go wrong there.
func (a *attempt) reportPanic(p *panicError) {
	func() {
		defer func() { _ = recover() }()
		a.log(slog.LevelError, "cronwrap: the job panicked", slog.String("error", p.Error()), slog.String("stack", string(p.stack)))
	}()
	if a.job.onError != nil {
		a.handOn(p)
	}
}

// handOn calls the error handler. A panic of its own is logged, and harms nothing.
func (a *attempt) handOn(err error) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		defer func() { _ = recover() }()
		p := newPanicError(v)
		a.log(slog.LevelError, "cronwrap: the error handler panicked", slog.String("error", err.Error()),
			slog.String("panic", panicText(v)), slog.String("stack", string(p.stack)))
	}()
	a.job.onError(err)
}

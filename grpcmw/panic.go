package grpcmw

import (
	"context"
	"fmt"
	"reflect"
	"runtime"
	"runtime/debug"

	"google.golang.org/grpc/grpclog"
)

// reportPanic tells of the handler's panic, on the goroutine and with the stack that it had. It is
// called while the goroutine unwinds, and lets nothing more go wrong there: a second panic would end the process.
func (h *handling) reportPanic() {
	if h.value == nil {
		return
	}
	defer func() { _ = recover() }()
	h.report(h.stream.Context(), h.method, h.value, debug.Stack())
}

// logger is made once: grpc keeps its components in a map that it does not lock.
var logger = grpclog.Component(domain) //nolint:gochecknoglobals // as grpc's own packages do

func logPanic(_ context.Context, fullMethod string, value any, stack []byte) {
	logger.Errorf("grpcmw: the handler of %s panicked: %s\n%s", fullMethod, panicText(value), stack)
}

// panicText prints no value but the runtime's own: there might be a secret in it.
func panicText(p any) string {
	kind := reflect.TypeOf(p)
	if kind.Kind() == reflect.Pointer {
		kind = kind.Elem()
	}
	if err, ok := p.(runtime.Error); ok && kind.PkgPath() == "runtime" {
		return err.Error()
	}
	return fmt.Sprintf("%T", p)
}

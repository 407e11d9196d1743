package httpmw_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/execguard/execguard/guard"
)

// A call in a guarded handler that ends because the guard of the handler's own run is closed: that is no
// cancellation either, which somebody might take for harmless.
func TestTransport_OuterCloseIsNoCancellation(t *testing.T) {
	outer, _ := newGuard(t)
	inner, _ := newGuard(t)
	reached := make(chan struct{})
	addr, c := serve(t, protocols()[0], http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(reached)
		<-r.Context().Done()
	}))
	result := make(chan error, 1)
	go func() {
		_ = outer.Run(t.Context(), device, func(ctx context.Context) error {
			r, _ := http.NewRequestWithContext(ctx, http.MethodGet, addr, nil)
			_, err := calling(inner, c).Do(r)
			result <- err
			return nil
		})
	}()
	await(t, "the request", reached)
	_ = outer.Close()
	if err := await(t, "the call", result); !errors.Is(err, guard.ErrClosed) || errors.Is(err, context.Canceled) {
		t.Errorf("err = %v, want ErrClosed without Canceled", err)
	}
}

package guard_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"

	"github.com/execguard/execguard/guard"
)

// A connection to the authority that breaks is often io.EOF (net/http: `Post "...": EOF`), and io.EOF is what
// everybody who reads a stream takes for its good end: like Canceled, it must not be found in a denial.
func TestDenialIsNoEndOfAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, err := guard.New(guard.ValidatorFunc(func(context.Context, string) (guard.Decision, error) {
			return guard.Decision{}, fmt.Errorf("Post \"https://authority/devices/validate\": %w", io.EOF)
		}))
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		err = g.Run(t.Context(), "d", func(context.Context) error { return nil })
		if !errors.Is(err, guard.ErrDenied) || errors.Is(err, io.EOF) {
			t.Errorf("%v matches io.EOF", err)
		}
	})
}

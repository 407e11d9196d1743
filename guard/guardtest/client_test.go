package guardtest_test

import (
	"context"
	"testing"

	"github.com/execguard/execguard/guard/guardtest"
	"github.com/execguard/execguard/guard/machineid"
)

func newClient(t *testing.T, srv *guardtest.Server, opts ...machineid.Option) *machineid.Client {
	t.Helper()
	opts = append([]machineid.Option{
		machineid.WithBaseURL(srv.URL()), machineid.WithHTTPClient(srv.Client()),
	}, opts...)
	c, err := machineid.New(srv.Key(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestEveryFaultOverTheRealClient(t *testing.T) {
	for _, fault := range guardtest.Faults() {
		t.Run(fault.String(), func(t *testing.T) {
			t.Parallel()
			srv := guardtest.NewServer(t)
			srv.Register(device)
			client := newClient(t, srv, machineid.WithTimeout(aWhile))
			if d, err := client.Validate(t.Context(), device); err != nil || !d.Allowed {
				t.Fatalf("before: %+v, %v", d, err)
			}
			srv.Inject(fault)
			ctx, cancel := context.WithTimeout(t.Context(), patience(fault))
			defer cancel()
			d, err := client.Validate(ctx, device)
			if err := fault.Check(d, err); err != nil {
				t.Error(err)
			}
			srv.Heal()
			if d, err := client.Validate(t.Context(), device); err != nil || !d.Allowed {
				t.Errorf("after: %+v, %v", d, err)
			}
			if strays := srv.Strays(); len(strays) > 0 {
				t.Errorf("the client followed a redirect: %+v", strays)
			}
		})
	}
}

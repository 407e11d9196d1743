package clerk

import (
	"context"
	"time"

	sdk "github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/machinescope"
)

// Scope says that the machine From may act on the machine To: its tokens are good for To.
type Scope struct {
	From      string    // mch_…
	To        string    // mch_…
	CreatedAt time.Time // UTC; zero when the service does not say
}

// AddScope lets the machine from act on the machine to, with the tokens that are made for it from
// now on. A scope that is there already is an *Error of status 409; a machine has at most 150.
func (c *Client) AddScope(ctx context.Context, from, to string) (Scope, error) {
	if err := checkIDs(from, to); err != nil {
		return Scope{}, mistake(opAddScope, err.Error())
	}
	x := &exchange{op: opAddScope, key: c.key}
	s, err := send(ctx, c, x, func(ctx context.Context) (*sdk.MachineScope, error) {
		return c.scopes.CreateScope(ctx, from, &machinescope.CreateScopeParams{ToMachineID: to})
	}, wantScope(from, to, false))
	if err != nil {
		return Scope{}, err
	}
	return Scope{From: from, To: to, CreatedAt: timeOf(s.CreatedAt)}, nil
}

// RemoveScope takes back what AddScope gave: WithScope(to) denies the machine from at its next
// Validate. Tokens that were made before keep the scope until they end or are revoked.
func (c *Client) RemoveScope(ctx context.Context, from, to string) error {
	if err := checkIDs(from, to); err != nil {
		return mistake(opRemoveScope, err.Error())
	}
	x := &exchange{op: opRemoveScope, key: c.key}
	_, err := send(ctx, c, x, func(ctx context.Context) (*sdk.DeletedMachineScope, error) {
		return c.scopes.DeleteScope(ctx, from, to)
	}, wantScope(from, to, true))
	if x.saysNothing() {
		return c.confirmRemoved(ctx, from, to, err)
	}
	return err
}

// confirmRemoved returns nil where the machine from is there without the scope, doubt where it still
// has it, and why that could not be asked.
func (c *Client) confirmRemoved(ctx context.Context, from, to string, doubt error) error {
	_, x, err := c.get(ctx, from, reading{})
	if err != nil {
		return err
	}
	if _, said := x.object.Objects("scoped_machines", members()...); !said || inScopes(x.object, to) {
		return doubt
	}
	return nil
}

func checkIDs(ids ...string) error {
	for _, id := range ids {
		if err := checkID(id, machinePrefix); err != nil {
			return err
		}
	}
	return nil
}

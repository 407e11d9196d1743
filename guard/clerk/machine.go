package clerk

import (
	"context"
	"errors"
	"net/http"
	"time"

	sdk "github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/machine"
)

// Machine is a machine as the service describes it.
type Machine struct {
	ID              string // mch_…
	Name            string
	InstanceID      string
	DefaultTokenTTL time.Duration // of tokens for which none is asked
	CreatedAt       time.Time     // UTC; zero when the service does not say
	UpdatedAt       time.Time     // as CreatedAt
	ScopedMachines  []Machine     // those it may act on, without scopes of their own
}

// CreatedMachine is the outcome of Create.
type CreatedMachine struct {
	Machine
	SecretKey Secret // ak_…; SecretKey gives it again
}

// CreateParams are what Create makes a machine of.
type CreateParams struct {
	Name            string        // 1 to 255 characters
	ScopedMachines  []string      // at most 150 machine ids that it may act on
	DefaultTokenTTL time.Duration // 1 s to ten years, in whole seconds; 0: the service's default, an hour
}

// UpdateParams are what Update changes; what is zero stays as it is.
type UpdateParams struct {
	Name            string        // at most 255 characters
	DefaultTokenTTL time.Duration // 1 s to ten years, in whole seconds
}

// Create makes a machine. It is sent once: where its answer is lost, the error matches
// guard.ErrUnavailable and there may be a machine nobody knows the key of, which List finds.
func (c *Client) Create(ctx context.Context, params CreateParams) (CreatedMachine, error) {
	if why := params.wrong(); why != "" {
		return CreatedMachine{}, mistake(opCreate, why)
	}
	x := &exchange{op: opCreate, key: c.key}
	m, err := send(ctx, c, x, func(ctx context.Context) (*sdk.MachineWithScopedMachinesAndSecretKey, error) {
		return c.machines.Create(ctx, &machine.CreateParams{
			Name: params.Name, ScopedMachines: params.ScopedMachines, DefaultTokenTTL: seconds(params.DefaultTokenTTL),
		})
	}, wantNewMachine)
	if err != nil {
		return CreatedMachine{}, err
	}
	made := CreatedMachine{Machine: machineOf(&m.MachineWithScopedMachines), SecretKey: newSecret(m.SecretKey)}
	return made, nil
}

// Get returns a machine. A machine that was deleted, or never was, is an *Error of status 404.
func (c *Client) Get(ctx context.Context, id string, opts ...CallOption) (Machine, error) {
	if err := checkID(id, machinePrefix); err != nil {
		return Machine{}, mistake(opGet, err.Error())
	}
	m, _, err := c.get(ctx, id, c.reading(opts))
	if err != nil {
		return Machine{}, err
	}
	return machineOf(m), nil
}

func (c *Client) get(ctx context.Context, id string, r reading) (*sdk.MachineWithScopedMachines, *exchange, error) {
	return read(ctx, c, r,
		func() *exchange { return &exchange{op: opGet, key: c.key} },
		func(ctx context.Context) (*sdk.MachineWithScopedMachines, error) { return c.machines.Get(ctx, id) },
		wantMachine(id))
}

// Update changes what params names, and returns the machine as it is then.
func (c *Client) Update(ctx context.Context, id string, params UpdateParams) (Machine, error) {
	if why := params.wrong(id); why != "" {
		return Machine{}, mistake(opUpdate, why)
	}
	x := &exchange{op: opUpdate, key: c.key}
	m, err := send(ctx, c, x, func(ctx context.Context) (*sdk.MachineWithScopedMachines, error) {
		return c.machines.Update(ctx, id, &machine.UpdateParams{
			Name: unlessEmpty(params.Name), DefaultTokenTTL: seconds(params.DefaultTokenTTL),
		})
	}, wantMachine(id))
	if err != nil {
		return Machine{}, err
	}
	return machineOf(m), nil
}

// Delete deletes a machine: its next Validate is DEVICE_NOT_FOUND.
func (c *Client) Delete(ctx context.Context, id string) error {
	if err := checkID(id, machinePrefix); err != nil {
		return mistake(opDelete, err.Error())
	}
	// Afterwards, also for what was verified meanwhile, and whatever came of it: it may be done.
	defer c.cache.forget(func(t *remembered) bool { return t.machineID == id })
	x := &exchange{op: opDelete, key: c.key}
	_, err := send(ctx, c, x, func(ctx context.Context) (*sdk.DeletedResource, error) {
		return c.machines.Delete(ctx, id)
	}, wantDeleted(id))
	if x.saysNothing() {
		return c.confirmDeleted(ctx, id, err)
	}
	return err
}

// saysNothing tells whether a deletion was answered by a success and the body null. It may be done,
// or somebody on the way says null to everything.
func (x *exchange) saysNothing() bool { return x.null && x.status == http.StatusOK }

// confirmDeleted returns nil where the machine is not there any more, doubt where it still is, and
// why that could not be asked.
func (c *Client) confirmDeleted(ctx context.Context, id string, doubt error) error {
	_, _, err := c.get(ctx, id, reading{})
	gone := (*Error)(nil)
	switch {
	case err == nil:
		return doubt
	case errors.As(err, &gone) && gone.Status == http.StatusNotFound && !gone.undecided:
		return nil
	}
	return err
}

// SecretKey returns the secret key of a machine, which makes tokens for it (CreateToken).
func (c *Client) SecretKey(ctx context.Context, id string, opts ...CallOption) (Secret, error) {
	if err := checkID(id, machinePrefix); err != nil {
		return Secret{}, mistake(opSecretKey, err.Error())
	}
	key, _, err := read(ctx, c, c.reading(opts),
		func() *exchange { return &exchange{op: opSecretKey, key: c.key} },
		func(ctx context.Context) (*sdk.MachineSecretKey, error) { return c.machines.GetSecretKey(ctx, id) },
		wantSecretKey)
	if err != nil {
		return Secret{}, err
	}
	return newSecret(key.Secret), nil
}

// RotateSecretKey gives the machine a new secret key and returns it. The old one makes tokens for
// previousTTL longer, 0 to 8 h in whole seconds; with 0 it ends now. It is sent once: where its
// answer is lost, the error matches guard.ErrUnavailable, and SecretKey gives the key that holds.
func (c *Client) RotateSecretKey(ctx context.Context, id string, previousTTL time.Duration) (Secret, error) {
	why := wrongTime("the previous key's time", previousTTL, 0, 8*time.Hour)
	if err := checkID(id, machinePrefix); err != nil {
		why = err.Error()
	}
	if why != "" {
		return Secret{}, mistake(opRotate, why)
	}
	x := &exchange{op: opRotate, key: c.key}
	key, err := send(ctx, c, x, func(ctx context.Context) (*sdk.MachineSecretKey, error) {
		return c.machines.RotateSecretKey(ctx, id, &machine.RotateSecretKeyParams{PreviousTokenTTL: int64(previousTTL / time.Second)})
	}, wantSecretKey)
	if err != nil {
		return Secret{}, err
	}
	return newSecret(key.Secret), nil
}

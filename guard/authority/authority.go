package authority

import (
	"context"
	"crypto/subtle"
	"fmt"
)

// Authority holds organisations and serves MachineID's API for them. It is made by New; the zero
// value is of no use. It is safe for concurrent use, starts nothing in the background and needs
// no closing.
type Authority struct {
	store      Store
	denyStatus int
	routes     map[string]endpoint // by path; not changed after New
	hints      *hub
}

// New makes an authority without organisations, or with those that its Store holds.
func New(opts ...Option) (*Authority, error) {
	c := config{store: newMemory(), denyStatus: 200}
	for i, o := range opts {
		if o == nil {
			return nil, fmt.Errorf("authority: option %d is nil", i+1)
		}
		o.apply(&c)
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	return &Authority{store: c.store, denyStatus: c.denyStatus, routes: routes(), hints: newHub()}, nil
}

// AddOrganisation makes an organisation of its key and plan, active and without devices. The
// key is the organisation's only secret and is not kept: choose it long and at random, such as
// "org_" + rand.Text(). It has the prefix org_ and at most 256 visible ASCII characters. The
// error matches ErrExists where the key is, or once was, that of an organisation.
func (a *Authority) AddOrganisation(ctx context.Context, key string, plan Plan) (*Organisation, error) {
	id, proof, ok := digest(key)
	if !ok {
		return nil, refuse(codeInvalidOrgKey)
	}
	if plan.Limit() == 0 {
		return nil, fmt.Errorf("authority: AddOrganisation: unknown plan %q", plan)
	}
	r := Record{Proof: proof, Plan: plan, State: StateActive, Devices: map[string]Device{}}
	if err := a.store.Create(ctx, id, r); err != nil {
		return nil, fmt.Errorf("authority: AddOrganisation: %w", err)
	}
	return &Organisation{authority: a, id: &id}, nil
}

// Organisation returns the organisation of a key, such as one that the Store kept over a
// restart. The error is an *Error: invalid_org_key, org_not_found or system_unavailable.
func (a *Authority) Organisation(ctx context.Context, key string) (*Organisation, error) {
	id, proof, ok := digest(key)
	if !ok {
		return nil, refuse(codeInvalidOrgKey)
	}
	r, err := a.store.Load(ctx, id)
	if err != nil {
		return nil, storeError(err)
	}
	if subtle.ConstantTimeCompare([]byte(r.Proof), []byte(proof)) != 1 {
		return nil, refuse(codeInvalidOrgKey)
	}
	if r.Removed {
		return nil, refuse(codeOrgNotFound)
	}
	return &Organisation{authority: a, id: &id}, nil
}

// RemoveOrganisation forgets the devices of the organisation for good. Its key answers
// ORG_NOT_FOUND from then on and cannot be used for another organisation. The errors are those
// of Organisation.
func (a *Authority) RemoveOrganisation(ctx context.Context, key string) error {
	o, err := a.Organisation(ctx, key)
	if err != nil {
		return err
	}
	return o.update(ctx, func(r *Record) []string {
		r.Removed, r.Devices = true, nil
		return []string{everyDevice}
	})
}

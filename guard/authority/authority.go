// Package authority decides which devices may execute: MachineID's API in full, to run oneself.
// An Authority is an http.Handler that any MachineID client, in any language, can be pointed
// at, and its organisations are guard.Validators in process. Both ways lead to the same code.
//
// It is to the hosted service what a local registry is to a public one: the same words on the
// same paths, held by the one who runs it. Organisations have a key and a plan, the plan caps
// the active devices, an operator switches devices or the whole organisation off, and the next
// validate says so.
//
// What Validate answers, the first line that applies:
//
//	the key is missing, malformed or unknown          INVALID_ORG_KEY
//	the organisation was removed                      ORG_NOT_FOUND
//	the store failed, or StateUnavailable             SYSTEM_UNAVAILABLE
//	StateDisabled, -Frozen, -Inactive, -Expired       the code beside the constant
//	the plan is none of the four                      PLAN_NOT_ACTIVE
//	the id breaks the rule for ids                    INVALID_DEVICE_ID
//	not registered, or removed                        DEVICE_NOT_FOUND
//	revoked                                           DEVICE_REVOKED
//	otherwise                                         ALLOW
//
// An id is trimmed of white space and then has 1 to 128 characters of A-Z a-z 0-9 . _ : and -,
// the first a letter or digit. An organisation knows at most 10 000 devices, revoked ones
// included; Remove makes room.
//
// It does not promise what needs more than one process: the Store that comes with it forgets
// everything when the process ends, and hints (Organisation.Subscribe) reach listeners in
// process only. It speaks plain HTTP, without TLS, rate limits or accounts; those belong in
// front of it. It sells nothing: Checkout returns a link that leads nowhere. Where the hosted
// service's answers are not published, the shape of ours is our own.
package authority

import (
	"context"
	"crypto/subtle"
	"fmt"
)

// Authority holds organisations and serves MachineID's API for them. It is safe for concurrent
// use, starts nothing in the background and needs no closing.
type Authority struct {
	store      Store
	denyStatus int
	routes     map[string]endpoint // by path; not changed after New
	hints      *hub
}

// New makes an authority without organisations, or with those that its Store holds.
func New(opts ...Option) (*Authority, error) {
	c := config{store: newMemory(), denyStatus: 200}
	for _, o := range opts {
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

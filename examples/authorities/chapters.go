package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/internal/licentricserver"
)

// fingerprint names this machine to Licentric. A program would take licentric.Fingerprint's.
const fingerprint = "demo-machine-0001"

// underMachineID revokes the device while the job runs.
func underMachineID(ctx context.Context, d *desk) error {
	const device = "worker:demo:01"
	d.title("MachineID: the device is revoked")
	s, org, err := localMachineID(ctx, d)
	if err != nil {
		return err
	}
	if _, err := org.Register(ctx, device); err != nil {
		return err
	}
	v, err := byMachineID(s)
	if err != nil {
		return err
	}
	revoke := func() error {
		_, err := org.Revoke(ctx, device)
		return err
	}
	return d.stopAndRefuse(ctx, v, device, ending{happens: revoke, want: guard.CodeDeviceRevoked})
}

// underLicentric suspends the licence.
func underLicentric(ctx context.Context, d *desk) error {
	d.title("Licentric: the licence is suspended")
	s, server, license, err := localLicentric(d, fingerprint)
	if err != nil {
		return err
	}
	v, err := byLicentric(s)
	if err != nil {
		return err
	}
	suspend := func() error { return server.Suspend(license.ID) }
	return d.stopAndRefuse(ctx, v, fingerprint, ending{happens: suspend, want: guard.CodePlanFrozen})
}

// underClerk takes the machine's scope.
func underClerk(ctx context.Context, d *desk) error {
	d.title("Clerk: the machine loses its scope")
	s, server, worker, jobs, err := localClerk(d)
	if err != nil {
		return err
	}
	v, err := byClerk(s, jobs)
	if err != nil {
		return err
	}
	takeScope := func() error {
		if !server.SetScopes(worker) {
			return errors.New("there is no such machine")
		}
		return nil
	}
	return d.stopAndRefuse(ctx, v, worker, ending{happens: takeScope, want: guard.CodeDeviceRevoked})
}

// underFile has no network at all. What ends the job is the end of the file.
func underFile(ctx context.Context, d *desk) error {
	const life = 2 * time.Second
	d.title("A signed file, no network: the file ends")
	issuer, err := licentricserver.New()
	if err != nil {
		return err
	}
	file, err := sign(issuer, licentricserver.FileData{ID: "demo"}, life)
	if err != nil {
		return err
	}
	v, err := byFile(file, issuer.PublicKey())
	if err != nil {
		return err
	}
	nothing := func() error { return nil }
	return d.stopAndRefuse(ctx, v, fingerprint, ending{happens: nothing, want: guard.CodeSystemUnavailable, within: life})
}

// underLicentricAndFile pulls the cable: the file carries the job over that. Then the licence is
// revoked, the cable pulled again and the program started anew: nothing runs.
func underLicentricAndFile(ctx context.Context, d *desk) error {
	d.title("Licentric, and a file for when its cable is pulled")
	s, server, license, err := localLicentric(d, fingerprint)
	if err != nil {
		return err
	}
	file, err := sign(server.Service, licentricserver.FileData{ID: license.ID}, time.Hour)
	if err != nil {
		return err
	}
	memory, err := d.memory()
	if err != nil {
		return err
	}
	start := func() (*guard.Guard, error) {
		v, err := byLicentricOrFile(s, file, server.PublicKey(), memory)
		if err != nil {
			return nil, err
		}
		return d.guarded(v)
	}
	g, err := start()
	if err != nil {
		return err
	}
	if err := d.carriedOver(ctx, g, server); err != nil {
		return err
	}
	revoke := func() error { return server.Revoke(license.ID) }
	if err := d.stopped(ctx, g, fingerprint, ending{happens: revoke, want: guard.CodePlanNotActive}); err != nil {
		return err
	}
	if err := server.Inject("connection refused"); err != nil {
		return err
	}
	d.say("cable pulled", "and the program started anew")
	if g, err = start(); err != nil {
		return err
	}
	return d.refused(ctx, g, fingerprint, guard.CodeSystemUnavailable)
}

// carriedOver pulls the cable and expects the file to allow what the service cannot be asked about.
func (d *desk) carriedOver(ctx context.Context, g *guard.Guard, server *licentricserver.Server) error {
	if err := server.Inject("connection refused"); err != nil {
		return err
	}
	decision, err := g.Validate(ctx, fingerprint)
	if err != nil || !decision.Allowed || !strings.HasPrefix(decision.Reason, "offline") {
		return errors.Join(errors.New("the file should have allowed the job"), err)
	}
	d.say("cable pulled", fmt.Sprintf("%s by the file, until %s at the latest",
		decision.Code, decision.ExpiresAt.UTC().Format(time.RFC3339)))
	return server.Heal()
}

// stopAndRefuse runs the job until it is stopped, and then tries to run it again.
func (d *desk) stopAndRefuse(ctx context.Context, v guard.Validator, device string, e ending) error {
	g, err := d.guarded(v)
	if err != nil {
		return err
	}
	if err := d.stopped(ctx, g, device, e); err != nil {
		return err
	}
	return d.refused(ctx, g, device, e.want)
}

// sign makes a licence file for this machine that may be used from now on.
func sign(issuer *licentricserver.Service, data licentricserver.FileData, ttl time.Duration) ([]byte, error) {
	data.Type, data.Fingerprint = "licenses", fingerprint
	return issuer.SignFile(data, time.Now(), ttl)
}

// memory names a file that is gone after the chapter.
func (d *desk) memory() (string, error) {
	dir, err := os.MkdirTemp("", "authorities")
	if err != nil {
		return "", err
	}
	d.atEnd(func() { _ = os.RemoveAll(dir) }) // what is left of it is the system's to clean up
	return filepath.Join(dir, "memory"), nil
}

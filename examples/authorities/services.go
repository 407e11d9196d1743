package main

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/execguard/execguard/guard/authority"
	"github.com/execguard/execguard/internal/clerkserver"
	"github.com/execguard/execguard/internal/licentricserver"
)

// localMachineID starts the embedded authority behind MachineID's API.
func localMachineID(ctx context.Context, d *desk) (service, *authority.Organisation, error) {
	const key = "org_authorities_demo"
	a, err := authority.New()
	if err != nil {
		return service{}, nil, err
	}
	org, err := a.AddOrganisation(ctx, key, authority.PlanFree)
	if err != nil {
		return service{}, nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return service{}, nil, err
	}
	server := &http.Server{Handler: a, ReadHeaderTimeout: time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // it ends with the server
	}()
	client := &http.Client{Transport: &http.Transport{}}
	d.atEnd(func() {
		client.CloseIdleConnections()
		_ = server.Close() // its error is that of sockets that are gone anyway
		<-served
	})
	return service{url: "http://" + listener.Addr().String(), client: client, secret: key}, org, nil
}

// localLicentric starts a Licentric with one licence that is activated on the machine.
func localLicentric(d *desk, fingerprint string) (service, *licentricserver.Server, licentricserver.License, error) {
	server, err := licentricserver.Start()
	if err != nil {
		return service{}, nil, licentricserver.License{}, err
	}
	d.atEnd(func() { _ = server.Close() }) // its error is that of sockets that are gone anyway
	license, err := server.AddLicense(licentricserver.License{Name: "demonstration"})
	if err == nil {
		_, err = server.AddMachine(license.ID, fingerprint)
	}
	return service{url: server.URL(), client: server.Client(), secret: license.Key}, server, license, err
}

// localClerk starts a Clerk with two machines, of which the first may act on the second.
func localClerk(d *desk) (s service, server *clerkserver.Server, worker, jobs string, err error) {
	server, err = clerkserver.Start()
	if err != nil {
		return service{}, nil, "", "", err
	}
	d.atEnd(func() { _ = server.Close() }) // its error is that of sockets that are gone anyway
	jobs, _ = server.AddMachine("jobs")
	worker, _ = server.AddMachine("worker", jobs)
	return service{url: server.URL() + "/v1", client: server.Client(), secret: server.SecretKey()}, server, worker, jobs, nil
}

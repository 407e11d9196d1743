package licentric_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/licentric"
	"github.com/execguard/execguard/internal/licentricserver"
)

// signedFile is a file for one machine, as the vendor's server checks it out for it.
func signedFile(fingerprint string) (*licentricserver.Service, []byte, error) {
	service, err := licentricserver.New()
	if err != nil {
		return nil, nil, err
	}
	license, err := service.AddLicense(licentricserver.License{})
	if err != nil {
		return nil, nil, err
	}
	data, err := service.FileData(license.ID, fingerprint)
	if err != nil {
		return nil, nil, err
	}
	file, err := service.SignFile(data, time.Now(), 24*time.Hour)
	return service, file, err
}

// A machine without a network runs by a signed file. The file is for that machine alone, and a change of one byte
// makes it worthless.
func ExampleOffline() {
	service, file, err := signedFile("machine-7f3a9c")
	if err != nil {
		fmt.Println(err)
		return
	}
	offline, err := licentric.Offline(file, licentric.FormatCertificate, service.PublicKey())
	if err != nil {
		fmt.Println(err)
		return
	}
	g, err := guard.New(offline)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	work := func(context.Context) error { return nil }
	fmt.Println(g.Run(context.Background(), "machine-7f3a9c", work))
	err = g.Run(context.Background(), "machine-9d0e4c", work)
	if denied := (*guard.DeniedError)(nil); errors.As(err, &denied) {
		fmt.Println(denied.Decision.Code)
	}

	other, err := licentricserver.New() // who has another key
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = licentric.Offline(file, licentric.FormatCertificate, other.PublicKey())
	fmt.Println(err)
	// Output:
	// <nil>
	// DEVICE_NOT_FOUND
	// licentric: offline file: signature: it was not signed by any of the keys, or was changed since
}

// With a memory, a clock that is set back and a refusal by the service outlive the process.
func ExampleOfflineWith() {
	service, file, err := signedFile("machine-7f3a9c")
	if err != nil {
		fmt.Println(err)
		return
	}
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the program is over
	memory := filepath.Join(dir, "licence")
	open := func() (guard.Validator, error) {
		return licentric.OfflineWith(file, licentric.FormatCertificate, service.PublicKeys(), licentric.WithMemory(memory))
	}

	offline, err := open()
	if err != nil {
		fmt.Println(err)
		return
	}
	no := guard.Decision{Code: guard.CodeDeviceRevoked}
	witness, _ := offline.(guard.Witness) // guard.Fallback tells it, in a program
	fmt.Println(witness.Witness(context.Background(), "machine-7f3a9c", no, time.Now()))

	offline, err = open() // the program is started anew
	if err != nil {
		fmt.Println(err)
		return
	}
	d, err := offline.Validate(context.Background(), "machine-7f3a9c")
	refused := (*licentric.RefusedError)(nil)
	fmt.Println(d.Allowed, d.Code, errors.As(err, &refused) && refused.Code == guard.CodeDeviceRevoked)
	// Output:
	// <nil>
	// false SYSTEM_UNAVAILABLE true
}

// What a file says, to show it to somebody.
func ExampleVerifyFile() {
	service, file, err := signedFile("machine-7f3a9c")
	if err != nil {
		fmt.Println(err)
		return
	}
	license, err := licentric.VerifyFile(file, licentric.FormatCertificate, "machine-7f3a9c", time.Now(), service.PublicKeys()...)
	fmt.Println(license.Fingerprint, err)
	_, err = licentric.VerifyFile(file, licentric.FormatCertificate, "machine-7f3a9c", time.Now().Add(48*time.Hour), service.PublicKeys()...)
	failed := (*licentric.FileError)(nil)
	fmt.Println(errors.As(err, &failed) && failed.Reason == licentric.FileExpired)
	// Output:
	// machine-7f3a9c <nil>
	// true
}

// A key in the wrong place is refused where the guard is made.
func ExampleClient_Validator() {
	client, err := licentric.New("")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	_, err = guard.New(client.Validator(" "))
	fmt.Println(err)
	_, err = guard.New(client.Validator("a-licence-key", licentric.WithEntitlements()))
	fmt.Println(err)
	// Output:
	// licentric: Validator: the licence key is blank
	// licentric: WithEntitlements: no entitlement is named
}

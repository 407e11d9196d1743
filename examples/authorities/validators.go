package main

import (
	"crypto/ed25519"
	"net/http"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/clerk"
	"github.com/execguard/execguard/guard/licentric"
	"github.com/execguard/execguard/guard/machineid"
)

// service is where a hosted service is, how it is reached, and what it is asked with. For the
// real ones url and client are not needed.
type service struct {
	url    string
	client *http.Client
	secret string
}

// byMachineID allows the devices that are registered and not revoked.
func byMachineID(s service) (guard.Validator, error) {
	return machineid.New(s.secret, machineid.WithBaseURL(s.url), machineid.WithHTTPClient(s.client))
}

// byLicentric allows the machines that the licence is activated on, while the licence is in order.
func byLicentric(s service) (guard.Validator, error) {
	client, err := licentric.New("", licentric.WithBaseURL(s.url), licentric.WithHTTPClient(s.client))
	if err != nil {
		return nil, err
	}
	return client.Validator(s.secret), nil // asking needs the licence key alone, and no API key
}

// byClerk allows the machines that are there and may act on the machine jobs.
func byClerk(s service, jobs string) (guard.Validator, error) {
	client, err := clerk.New(s.secret, clerk.WithBaseURL(s.url), clerk.WithHTTPClient(s.client))
	if err != nil {
		return nil, err
	}
	return client.Validator(clerk.WithScope(jobs)), nil
}

// byFile allows the machine that the file was signed for, until the file ends.
func byFile(file []byte, key ed25519.PublicKey) (guard.Validator, error) {
	return licentric.Offline(file, licentric.FormatCertificate, key)
}

// byLicentricOrFile asks the service, and goes by the file where the service cannot be asked. What
// the service has refused stays refused, also when its cable is pulled and the program started anew:
// that is what the memory is for.
func byLicentricOrFile(s service, file []byte, key ed25519.PublicKey, memory string) (guard.Validator, error) {
	online, err := byLicentric(s)
	if err != nil {
		return nil, err
	}
	offline, err := licentric.OfflineWith(file, licentric.FormatCertificate, []ed25519.PublicKey{key}, licentric.WithMemory(memory))
	if err != nil {
		return nil, err
	}
	return guard.Fallback(online, offline), nil
}

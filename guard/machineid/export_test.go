package machineid

import "github.com/execguard/execguard/guard/internal/httpapi"

// NewTransport lets the tests give the client's own transport roots that it can trust.
var NewTransport = httpapi.NewTransport

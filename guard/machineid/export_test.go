package machineid

// NewTransport lets the tests give the client's own transport roots that it can trust.
var NewTransport = newTransport

package asynqmw

// ParkedUntil is parkedUntil, for the tests.
var ParkedUntil = parkedUntil

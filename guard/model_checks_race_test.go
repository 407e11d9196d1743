//go:build race

package guard_test

// modelChecks is how many schedules are played by default.
const modelChecks = "1000"

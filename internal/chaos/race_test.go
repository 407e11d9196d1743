//go:build race

package chaos_test

// underRace is whether the race detector is at work, under which everything takes some times as long.
const underRace = true

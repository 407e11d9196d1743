package cronwrap_test

import (
	"testing"
	"time"
	_ "time/tzdata" // machines without zones are none without this test
)

func location(t testing.TB, name string) *time.Location {
	t.Helper()
	l, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

package main

import (
	"testing"

	"github.com/execguard/execguard/guard"
)

// With -retries the runs are to go through the outage; guards that do not retry at all are found out.
func TestRetriesThatDoNothingAreFoundOut(t *testing.T) {
	s := usual()
	s.retries = true
	without := func(v guard.Validator, _ ...guard.Option) (keeper, error) {
		return guard.New(v, guard.WithInterval(s.interval), guard.WithTimeout(s.timeout))
	}
	if text, err := measured(t, s, without); err == nil {
		t.Errorf("every run was stopped by the outage, and the verdict is good:\n%s", text)
	}
}

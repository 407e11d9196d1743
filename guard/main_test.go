package guard_test

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if playRole() {
		return
	}
	goleak.VerifyTestMain(m)
}

package httpmw_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if address, ok := os.LookupEnv(readersVariable); ok {
		readStreams(address) // this process is the clients of a benchmark
		return
	}
	goleak.VerifyTestMain(m)
}

//go:build !unix

package asynqmw_test

import (
	"errors"
	"os"
	"os/exec"
)

// processes tells that other processes cannot be suspended here.
const processes = false

func tiedCommand(_, path string, args ...string) *exec.Cmd { return exec.Command(path, args...) } //nolint:noctx // never called

func suspend(*os.Process) error { return errors.ErrUnsupported }

func resume(*os.Process) error { return errors.ErrUnsupported }

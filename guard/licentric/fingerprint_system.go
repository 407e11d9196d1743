//go:build darwin || windows || freebsd || netbsd || openbsd || dragonfly

package licentric

import (
	"errors"

	"github.com/denisbrodbeck/machineid"
)

// systemID asks the system for the id of the hardware, or of the installation.
func systemID(source) (id string, bare bool, err error) {
	text, err := machineid.ID()
	if err != nil {
		return "", true, err
	}
	id, ok := plausible(text)
	if !ok {
		return "", true, errors.New("the system's machine id says nothing")
	}
	return id, true, nil
}

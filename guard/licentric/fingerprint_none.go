//go:build !linux && !darwin && !windows && !freebsd && !netbsd && !openbsd && !dragonfly

package licentric

import "errors"

// systemID knows nothing of this system, so that its host name has to do.
func systemID(source) (id string, bare bool, err error) {
	return "", true, errors.New("no machine id is known of this system")
}

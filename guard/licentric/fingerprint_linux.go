package licentric

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
)

// systemID finds the machine id that systemd, or D-Bus before it, has left behind when the system
// was installed.
func systemID(s source) (id string, bare bool, err error) {
	mounts := s.mounts()
	contained := s.contained(mounts)
	for _, path := range []string{"etc/machine-id", "var/lib/dbus/machine-id"} {
		text, err := fs.ReadFile(s.root, path)
		if err != nil {
			continue
		}
		id, ok := plausible(string(text))
		if ok && !strings.Contains(string(text), "-") && stable(mounts["/"+path], contained) {
			return id, true, nil
		}
	}
	if contained {
		return "", false, errors.New("this is a container, and no machine id is mounted into it from outside")
	}
	return "", true, errors.New("there is no stable machine id")
}

// stable tells whether a machine id with this type of file system mounted on it stays the same. One
// in memory is made anew by each start of the system, or by the container's own.
func stable(mounted string, contained bool) bool {
	if mounted == "" {
		return !contained
	}
	return mounted != "tmpfs" && mounted != "ramfs" && mounted != "overlay"
}

// mounts returns the type of the file system that is uppermost on each mount point.
func (s source) mounts() map[string]string {
	text, _ := fs.ReadFile(s.root, "proc/self/mountinfo") // without it nothing is known to be mounted
	types := map[string]string{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		dash := slices.Index(fields, "-")
		if dash >= 6 && dash+1 < len(fields) {
			types[fields[4]] = fields[dash+1]
		}
	}
	return types
}

// contained tells whether this is a container. None of the signs is always there, so any one is
// enough: taken for one by mistake, a machine needs the variable set, which an error says.
func (s source) contained(mounts map[string]string) bool {
	for _, mark := range []string{".dockerenv", "run/.containerenv", "run/systemd/container"} {
		if _, err := fs.Stat(s.root, mark); err == nil {
			return true
		}
	}
	for _, name := range []string{"KUBERNETES_SERVICE_HOST", "container"} {
		if value, ok := s.variable(name); ok && value != "" {
			return true
		}
	}
	for _, path := range []string{"proc/self/cgroup", "proc/1/cgroup"} {
		text, err := fs.ReadFile(s.root, path)
		if err == nil && namesContainer(string(text)) {
			return true
		}
	}
	return mounts["/"] == "overlay" // what container engines make of an image's layers
}

// namesContainer tells whether a list of control groups has one of a container engine.
func namesContainer(groups string) bool {
	for line := range strings.Lines(groups) {
		for _, engine := range []string{"docker", "containerd", "kubepods", "libpod", "crio", "lxc"} {
			if strings.Contains(line, engine) {
				return true
			}
		}
	}
	return false
}

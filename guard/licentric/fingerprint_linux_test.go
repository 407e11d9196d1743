package licentric

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/fstest"
)

// mount is a line of mountinfo.
func mount(point, kind string) string {
	return fmt.Sprintf("36 35 98:0 / %s rw,noatime shared:1 master:2 - %s /dev/root rw,errors=continue\n", point, kind)
}

// and is a root directory with more files, which go before.
func and(root fstest.MapFS, pairs ...string) fstest.MapFS {
	more := maps.Clone(root)
	maps.Copy(more, files(pairs...))
	return more
}

const cgroup = "proc/self/cgroup"

const otherID = "b08dfa6083e7567a1921a715000001fb"

// bareMetal is what an installed system looks like.
var bareMetal = files("etc/machine-id", machineID+"\n", "proc/self/mountinfo", mount("/", "ext4")+mount("/tmp", "tmpfs"),
	cgroup, "0::/user.slice/user-1000.slice/session-2.scope\n", "proc/1/cgroup", "0::/init.scope\n")

func TestFingerprintFromTheMachineID(t *testing.T) {
	want := salt("machine", machineID, app)
	for name, root := range map[string]fstest.MapFS{
		"systemd":              bareMetal,
		"without proc":         files("etc/machine-id", machineID),
		"with both":            and(bareMetal, "var/lib/dbus/machine-id", otherID),
		"D-Bus alone":          files("var/lib/dbus/machine-id", machineID+"\n"),
		"uninitialized":        files("etc/machine-id", "uninitialized\n", "var/lib/dbus/machine-id", machineID),
		"an empty one":         files("etc/machine-id", "", "var/lib/dbus/machine-id", machineID),
		"all zero":             files("etc/machine-id", strings.Repeat("0", 32), "var/lib/dbus/machine-id", machineID),
		"with hyphens":         files("etc/machine-id", "b08dfa60-83e7-567a-1921-a715000001fb", "var/lib/dbus/machine-id", machineID),
		"for this start alone": and(bareMetal, "etc/machine-id", otherID, "var/lib/dbus/machine-id", machineID, "proc/self/mountinfo", mount("/", "ext4")+mount("/etc/machine-id", "tmpfs")),
	} {
		t.Run(name, func(t *testing.T) { wantFingerprint(t, on(root, "host-7"), want) })
	}
	// A mount without optional fields, as a private one has it, is seen too.
	bare := "36 35 98:0 / /etc/machine-id rw,noatime - tmpfs none rw\n"
	wantFingerprint(t, on(and(bareMetal, "etc/machine-id", otherID, "var/lib/dbus/machine-id", machineID, "proc/self/mountinfo", bare), "host-7"), want)
	inside := and(bareMetal, ".dockerenv", "", "proc/self/mountinfo", strings.Replace(bare, "tmpfs", "ext4", 1))
	wantFingerprint(t, on(inside, "3f2a9c0d1e4b"), want)
	// A variable that is empty is as good as unset.
	wantFingerprint(t, on(bareMetal, "host-7", "container", "", "KUBERNETES_SERVICE_HOST", ""), want)
	wantFingerprint(t, on(files(), "host-7"), salt("host", "host-7", app))
	wantFingerprint(t, on(files("etc/machine-id", "uninitialized\n"), "host-7"), salt("host", "host-7", app))
	wantNoFingerprint(t, on(files(), "localhost"), "neither an id nor a host name")
}

// In a container neither the image's machine id nor the container's name says which machine it is.
func TestFingerprintInAContainer(t *testing.T) {
	for name, c := range map[string]struct {
		files     []string
		variables []string
	}{
		"Docker":                 {files: []string{".dockerenv", ""}},
		"Podman":                 {files: []string{"run/.containerenv", "engine=podman"}},
		"nspawn":                 {files: []string{"run/systemd/container", "systemd-nspawn"}},
		"a variable":             {variables: []string{"container", "oci"}},
		"Kubernetes":             {variables: []string{"KUBERNETES_SERVICE_HOST", "10.0.0.1"}},
		"cgroup of Docker":       {files: []string{cgroup, "12:cpu:/docker/0123456789ab\n"}},
		"cgroup of Kubernetes":   {files: []string{cgroup, "0::/kubepods.slice/kubepods-burstable.slice\n"}},
		"cgroup of containerd":   {files: []string{"proc/1/cgroup", "1:name=systemd:/system.slice/containerd.service/x\n"}},
		"cgroup of Podman":       {files: []string{cgroup, "0::/\n1:cpu:/machine.slice/libpod-0123.scope\n"}},
		"cgroup of CRI-O":        {files: []string{cgroup, "0::/crio-0123\n"}},
		"cgroup of LXC":          {files: []string{cgroup, "0::/lxc/a\n"}},
		"nothing but its layers": {files: []string{"proc/self/mountinfo", mount("/", "overlay")}},
	} {
		t.Run(name, func(t *testing.T) {
			image := and(bareMetal, c.files...)
			contained := func(root fstest.MapFS) source { return on(root, "3f2a9c0d1e4b", c.variables...) }
			wantNoFingerprint(t, contained(image), "this is a container")
			wantNoFingerprint(t, contained(files(c.files...)), "this is a container")
			mounted := func(lines string) fstest.MapFS {
				return and(image, "proc/self/mountinfo", mount("/", "overlay")+lines)
			}
			wantFingerprint(t, contained(mounted(mount("/etc/machine-id", "ext4"))), salt("machine", machineID, app))
			dbus := and(mounted(mount("/var/lib/dbus/machine-id", "xfs")), "var/lib/dbus/machine-id", otherID)
			wantFingerprint(t, contained(dbus), salt("machine", otherID, app))
			for _, lines := range []string{
				mount("/etc/hosts", "ext4"), mount("/etc", "overlay"), mount("/etc/machine-id2", "ext4"),
				mount("/etc/machine-id", "tmpfs"), mount("/etc/machine-id", "overlay"), mount("/etc/machine-id", "ramfs"),
				mount("/etc/machine-id", "ext4") + mount("/etc/machine-id", "tmpfs"),
				"36 35 98:0 /etc/machine-id /etc/machine-id rw -", "/etc/machine-id",
			} {
				wantNoFingerprint(t, contained(mounted(lines)), "this is a container")
			}
			nonsense := and(mounted(mount("/etc/machine-id", "ext4")), "etc/machine-id", "uninitialized")
			wantNoFingerprint(t, contained(nonsense), "this is a container")
		})
	}
}

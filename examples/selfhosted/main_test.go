package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// childEnv makes the test binary be the command, for the test that sends it real signals.
const childEnv = "SELFHOSTED_TEST_IS_THE_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

func noEnv(string) string { return "" }

// command is a run of the example, with its output line by line.
type command struct {
	t      *testing.T
	lines  *bufio.Scanner
	output strings.Builder
	status chan int
	stop   context.CancelFunc
	stderr bytes.Buffer // to be read after wait
}

func start(t *testing.T, getenv func(string) string, args ...string) *command {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	c := &command{t: t, lines: bufio.NewScanner(r), status: make(chan int, 1), stop: cancel}
	go func() {
		status := run(ctx, args, getenv, w, &c.stderr)
		_ = w.Close()
		c.status <- status
	}()
	t.Cleanup(func() {
		cancel()
		_, _ = io.Copy(io.Discard, r)
	})
	return c
}

// find reads on to the line that matches and returns what the group caught.
func (c *command) find(pattern string) string {
	c.t.Helper()
	re := regexp.MustCompile(pattern)
	for c.lines.Scan() {
		c.output.WriteString(c.lines.Text() + "\n")
		if m := re.FindStringSubmatch(c.lines.Text()); m != nil {
			return m[1]
		}
	}
	c.t.Fatalf("no line matches %s in:\n%s", pattern, c.output.String())
	return ""
}

// wait reads to the end and returns the exit status.
func (c *command) wait() int {
	for c.lines.Scan() {
		c.output.WriteString(c.lines.Text() + "\n")
	}
	return <-c.status
}

// ask sends what the vendor's Python client sends.
func ask(t *testing.T, method, url, key, body string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"User-Agent": {"python-requests/2.32.3"}, "Accept": {"*/*"}, "x-org-key": {key}}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var out map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, out
}

// drive takes one device through its life at base.
func drive(t *testing.T, base, key string) {
	t.Helper()
	const device = `{"deviceId":"python-starter:01"}`
	for _, step := range []struct {
		method, path, field string
		want                any
	}{
		{"POST", "devices/validate", "code", "DEVICE_NOT_FOUND"},
		{"POST", "devices/register", "status", "ok"},
		{"POST", "devices/register", "status", "exists"},
		{"POST", "devices/validate", "allowed", true},
		{"POST", "devices/revoke", "status", "ok"},
		{"POST", "devices/validate", "code", "DEVICE_REVOKED"},
		{"POST", "devices/unrevoke", "status", "ok"},
		{"POST", "devices/validate", "code", "ALLOW"},
		{"GET", "devices/list", "devicesUsed", 1.0},
		{"GET", "usage", "remaining", 24.0},
		{"POST", "devices/remove", "status", "ok"},
		{"POST", "devices/validate", "allowed", false},
	} {
		body := ""
		if step.method == http.MethodPost {
			body = device
		}
		status, got := ask(t, step.method, base+"/api/v1/"+step.path, key, body)
		if status != 200 || got[step.field] != step.want {
			t.Errorf("%s: %d %v, want %s %v", step.path, status, got, step.field, step.want)
		}
	}
	if status, got := ask(t, "GET", base+"/api/v1/usage", key+"x", ""); status != 401 {
		t.Errorf("a bad key: %d %v", status, got)
	}
}

func TestServesUntilItIsTold(t *testing.T) {
	c := start(t, noEnv, "-addr", "127.0.0.1:0", "-plan", "pro")
	line := c.find(`^ *(export MACHINEID_BASE_URL=http://127\.0\.0\.1:[1-9]\d* MACHINEID_ORG_KEY=org_\w{20,})$`)
	assignments := strings.Fields(line)
	base, key := strings.TrimPrefix(assignments[1], "MACHINEID_BASE_URL="), strings.TrimPrefix(assignments[2], "MACHINEID_ORG_KEY=")
	if serving := c.find(`^serving .*(http://\S+)$`); serving != base {
		t.Errorf("it serves on %s, and clients are sent to %s", serving, base)
	}
	drive(t, base, key)
	c.stop()
	if status := c.wait(); status != 0 || c.stderr.Len() != 0 {
		t.Errorf("status %d, %q", status, c.stderr.String())
	}
	if n := strings.Count(c.output.String(), key); n != 1 {
		t.Errorf("the key was shown %d times", n)
	}
	addr := strings.TrimPrefix(base, "http://")
	if conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr); err == nil {
		_ = conn.Close()
		t.Error("it still listens")
	}
}

// A key that its owner knows already is used, and not shown.
func TestKeyFromFlagOrEnvironment(t *testing.T) {
	env := func(name string) string {
		return map[string]string{"MACHINEID_ORG_KEY": "org_from_the_environment"}[name]
	}
	for _, tc := range []struct {
		name   string
		getenv func(string) string
		args   []string
		key    string
	}{
		{"environment", env, nil, "org_from_the_environment"},
		{"flag", noEnv, []string{"-org-key", "org_from_the_flag"}, "org_from_the_flag"},
		{"flag before environment", env, []string{"-org-key", "org_from_the_flag"}, "org_from_the_flag"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := start(t, tc.getenv, append([]string{"-addr", "127.0.0.1:0", "-plan", "pro"}, tc.args...)...)
			base := c.find(`^ *export MACHINEID_BASE_URL=(http://\S+)$`)
			c.find(`^(serving) `) // it serves once all is read, for the pipe holds nothing
			drive(t, base, tc.key)
			c.stop()
			if status := c.wait(); status != 0 || strings.Contains(c.output.String(), tc.key) {
				t.Errorf("status %d:\n%s", status, c.output.String())
			}
		})
	}
}

// TestPrintedCallsWork takes the lines for curl apart as a shell would and sends what they say.
func TestPrintedCallsWork(t *testing.T) {
	const key = "org_from_the_flag"
	c := start(t, noEnv, "-addr", "127.0.0.1:0", "-org-key", key)
	base := c.find(`export MACHINEID_BASE_URL=(http://\S+)$`)
	calls := []string{c.find(`^ *(curl .*)$`), c.find(`^ *(curl .*)$`)}
	c.find(`^(serving) `) // it serves once all is read, for the pipe holds nothing
	for i, want := range []string{"/api/v1/devices/register", "/api/v1/devices/revoke"} {
		line := calls[i]
		args := regexp.MustCompile(`^curl -H "x-org-key: \$MACHINEID_ORG_KEY" -H 'content-type: application/json' ` +
			`-d '([^']*)' "\$MACHINEID_BASE_URL([^"]*)"$`).FindStringSubmatch(line)
		if args == nil || args[2] != want {
			t.Fatalf("not a call of %s: %s", want, line)
		}
		if status, got := ask(t, http.MethodPost, base+args[2], key, args[1]); status != 200 || got["status"] != "ok" {
			t.Errorf("%s: %d %v", want, status, got)
		}
	}
	c.stop()
	if status := c.wait(); status != 0 {
		t.Errorf("status %d", status)
	}
}

// An address that stands for all of them is listened on, and none that clients can use.
func TestReachable(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:80": "127.0.0.1:80", "0.0.0.0:8080": "localhost:8080", "[::]:8080": "localhost:8080",
		"[::1]:80": "[::1]:80", "192.0.2.1:80": "192.0.2.1:80",
	} {
		if got := reachable(addr); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}

func TestGeneratedKeysDiffer(t *testing.T) {
	one, err := parse(nil, noEnv, io.Discard)
	if err != nil || one.addr != "127.0.0.1:8080" || one.plan != "free" || !one.generated {
		t.Fatalf("%+v, %v", one, err)
	}
	if two, err := parse(nil, noEnv, io.Discard); err != nil || two.orgKey == one.orgKey {
		t.Errorf("twice the same key, %v", err)
	}
}

// The wrong way to start it is refused before anything listens, with the reason and status 2.
func TestBadFlags(t *testing.T) {
	for _, tc := range []struct {
		args []string
		says string
	}{
		{[]string{"-nonsense"}, "-nonsense"},
		{[]string{"-plan", "gold"}, `unknown plan "gold"`},
		{[]string{"-plan", ""}, `unknown plan ""`},
		{[]string{"-addr", "8080"}, "-addr"},
		{[]string{"-addr", ""}, "-addr"},
		{[]string{"-addr"}, "-addr"},
		{[]string{"serve"}, `"serve"`},
	} {
		t.Run(strings.Join(tc.args, " "), func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := run(t.Context(), tc.args, noEnv, &stdout, &stderr)
			if status != 2 || stdout.Len() != 0 || !strings.Contains(stderr.String(), tc.says) || !strings.Contains(stderr.String(), "-plan") {
				t.Errorf("status %d, printed %q, complained %q", status, stdout.String(), stderr.String())
			}
		})
	}
}

func TestHelp(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), []string{"-h"}, noEnv, &stdout, &stderr); status != 0 || !strings.Contains(stderr.String(), "-org-key") {
		t.Errorf("status %d, %q", status, stderr.String())
	}
}

// What fails although it was started the right way is status 1.
func TestFailuresAtStart(t *testing.T) {
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, args := range map[string][]string{
		"address in use": {"-addr", taken.Addr().String()},
		"malformed key":  {"-addr", "127.0.0.1:0", "-org-key", "sk_not_an_organisations"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := run(t.Context(), args, noEnv, &stdout, &stderr)
			if status != 1 || stderr.Len() == 0 || stdout.Len() != 0 || strings.Contains(stderr.String(), "sk_not") {
				t.Errorf("status %d, printed %q, complained %q", status, stdout.String(), stderr.String())
			}
		})
	}
}

// A real process, ended by a real interrupt, leaves with status 0.
func TestEndsOnASignal(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "-addr", "127.0.0.1:0", "-plan", "pro")
	cmd.Env = append(os.Environ(), childEnv+"=1", "MACHINEID_ORG_KEY=org_from_the_environment")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &command{t: t, lines: bufio.NewScanner(stdout)}
	drive(t, c.find(`(http://\S+)$`), "org_from_the_environment")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for c.lines.Scan() {
		c.output.WriteString(c.lines.Text() + "\n")
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v after:\n%s", err, c.output.String())
	}
	if !strings.HasSuffix(c.output.String(), "stopped\n") {
		t.Errorf("it did not say that it stopped:\n%s", c.output.String())
	}
}

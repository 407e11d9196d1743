package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBarsAndScenes(t *testing.T) {
	if got := bars([]int{0, 1, 50, 99, 100, 1000}, 100); got != " ▁▅███" {
		t.Errorf("got %q", got)
	}
	want := "ss" + strings.Repeat(".", 20) + strings.Repeat("x", 15) + strings.Repeat(".", 20) + strings.Repeat("r", 13)
	if got := shown().scenes(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := grouped(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

// The table has a column for each fleet, under its size.
func TestTable(t *testing.T) {
	large, quiet := shown(), shown()
	large.size, quiet.downTo = 10000, quiet.downFrom
	var out bytes.Buffer
	printTable(&out, []*result{shown(), large, quiet})
	var width int
	for l := range strings.Lines(strings.TrimPrefix(out.String(), "\n")) {
		if n := len([]rune(l)); width != 0 && n != width {
			t.Errorf("a line of %d characters, and one of %d", width, n)
		} else {
			width = n
		}
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	wantLines(t, text, "devices 1,000 10,000 1,000", "devices / interval 100.0 1000.0 100.0", "p50 4.995s", "p99 9.895s", "max 9.995s",
		"after the outage: mean 100.0 100.0 -", "% of one core 10.0", "µs a request 1000", "MiB 50.0", "KiB 30.0", "goroutines 2,100")
}

func TestChart(t *testing.T) {
	small, quiet := shown(), shown()
	small.revoked, quiet.downTo = nil, quiet.downFrom
	all := []*result{shown(), small, quiet}
	var out bytes.Buffer
	if err := drawChart(&out, "png", all); err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(&out)
	if err != nil {
		t.Fatal(err)
	}
	if size := picture.Bounds(); size.Dx() != 17*96 || size.Dy() < 3*300 || size.Dy() > 3*400 {
		t.Errorf("the picture is %v", size)
	}
	name := filepath.Join(t.TempDir(), "fleet.svg")
	if err := saveChart(name, all); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(bytes.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for word, times := range map[string]int{"1,000 devices, interval 10s": 3, "the authority is down": 2, "all are revoked": 3, "memory of the process": 3} {
		if n := strings.Count(string(text), word); n != times {
			t.Errorf("%q stands in it %d times, want %d", word, n, times)
		}
	}
	if err := saveChart(filepath.Join(t.TempDir(), "none", "fleet.png"), all); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("saved where there is no folder: %v", err)
	}
	if err := drawChart(io.Discard, "gif", all); err == nil {
		t.Error("drawn as what cannot be drawn")
	}
}

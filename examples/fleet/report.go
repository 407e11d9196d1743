package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// report prints what one fleet has shown, and returns what it has not.
func report(out io.Writer, r *result) error {
	fmt.Fprintln(out, "requests a second at the authority, one sign a second:")
	fmt.Fprintln(out, "  "+bars(r.arrived, excess*r.expected()))
	fmt.Fprintln(out, "  "+r.scenes())
	fmt.Fprintf(out, "  (█: %.0f or more; s: all start at once, x: the authority is down, r: all are revoked)\n", excess*r.expected())
	all := r.findings()
	for _, f := range all {
		mark := "ok      "
		if !f.seen {
			mark = "NOT SEEN"
		}
		fmt.Fprintln(out, mark, f.text)
	}
	if late := r.lateness(); late >= 2*tick {
		fmt.Fprintf(out, "         (this machine was late by up to %v, which is granted above)\n", round(late))
	}
	return verdict(all)
}

// bars draws the counts, each as a sign.
func bars(counts []int, full float64) string {
	signs := []rune("▁▂▃▄▅▆▇█")
	var text strings.Builder
	for _, n := range counts {
		if n == 0 {
			text.WriteByte(' ')
			continue
		}
		text.WriteRune(signs[min(len(signs)-1, int(float64(n)/full*float64(len(signs))))])
	}
	return text.String()
}

// scenes says below each of the bars what was going on.
func (r *result) scenes() string {
	down, up, revoked := r.zero+int(r.downFrom/second), r.zero+int(r.downTo/second), r.zero+int(r.revokeAt()/second)
	var text strings.Builder
	for i := range r.arrived {
		switch {
		case i < r.zero:
			text.WriteByte('s')
		case i >= down && i < up:
			text.WriteByte('x')
		case i >= revoked:
			text.WriteByte('r')
		default:
			text.WriteByte('.')
		}
	}
	return text.String()
}

// row is one line of the table: what it is, and what a fleet has shown of it.
type row struct {
	name string
	of   func(r *result) string
}

// rows are those of the table.
func rows() []row {
	number := func(format string, of func(r *result) float64) func(r *result) string {
		return func(r *result) string { return fmt.Sprintf(format, of(r)) }
	}
	stop := func(share float64) func(r *result) string {
		return func(r *result) string { return round(percentile(r.revoked, share)).String() }
	}
	behind := func(format string, of func(r *result) float64) func(r *result) string {
		return func(r *result) string {
			if r.outage() == 0 {
				return "-"
			}
			return fmt.Sprintf(format, of(r))
		}
	}
	return []row{
		{"devices", func(r *result) string { return grouped(r.size) }},
		{"requests a second: devices / interval", number("%.1f", (*result).expected)},
		{"  mean in normal running", number("%.1f", func(r *result) float64 { return r.steady.mean })},
		{"  peak / mean", number("%.2f", func(r *result) float64 { return float64(r.steady.peak) / r.steady.mean })},
		{"  after the outage: mean", behind("%.1f", func(r *result) float64 { return r.after.mean })},
		{"  after the outage: peak / normal mean", behind("%.2f", func(r *result) float64 { return float64(r.after.peak) / r.steady.mean })},
		{"from revocation to stop: p50", stop(0.50)},
		{"  p99", stop(0.99)},
		{"  max", stop(1)},
		{"all started at once, started after", func(r *result) string { return round(r.started).String() }},
		{"processor, % of one core", number("%.1f", func(r *result) float64 { return 100 * r.processor() })},
		{"  µs a request", number("%.0f", func(r *result) float64 { return 1e6 * r.processor() / r.steady.mean })},
		{"memory of the process, MiB", number("%.1f", func(r *result) float64 { return float64(r.memory()) / (1 << 20) })},
		{"  in use for each device, KiB", number("%.1f", func(r *result) float64 { return float64(r.held) / (1 << 10) })},
		{"goroutines", func(r *result) string { return grouped(r.samples[r.normal.to-1].goroutines) }},
	}
}

// printTable prints a column for each fleet.
func printTable(out io.Writer, all []*result) {
	fmt.Fprintln(out)
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	width := 0
	for _, line := range rows() {
		width = max(width, len([]rune(line.name)))
	}
	for _, line := range rows() {
		fmt.Fprintf(table, "%-*s\t", width, line.name) // all alike wide, so that this column stays aligned to the left
		for _, r := range all {
			fmt.Fprint(table, line.of(r), "\t")
		}
		fmt.Fprintln(table)
	}
	_ = table.Flush() // fails only where printing does
}

// processor is how many cores were in use in normal running: for authority, clients and guards.
func (r *result) processor() float64 {
	w := r.normal
	spent := r.samples[w.to].processor - r.samples[w.from].processor
	return spent.Seconds() / float64(w.to-w.from)
}

// memory is the most that the process had in normal running.
func (r *result) memory() uint64 {
	var most uint64
	for _, s := range r.samples[r.normal.from:r.normal.to] {
		most = max(most, s.memory)
	}
	return most
}

// round leaves of a time what is worth reading.
func round(d time.Duration) time.Duration {
	if d < second {
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// grouped is n with its thousands apart.
func grouped(n int) string {
	digits := strconv.Itoa(n)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}

package main

import (
	"fmt"
	"image/color"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

const sinceStart = "seconds since normal running began"

// line is one line of a panel; without a name the legend does not tell of it.
type line struct {
	name   string
	points plotter.XYs
	style  draw.LineStyle
}

// The styles can be told apart in grey, too.
func bold() draw.LineStyle {
	return draw.LineStyle{Color: color.RGBA{R: 0x1f, G: 0x4e, B: 0x79, A: 0xff}, Width: 2}
}

func accent() draw.LineStyle {
	return draw.LineStyle{Color: color.RGBA{R: 0xc0, G: 0x50, B: 0x20, A: 0xff}, Width: 1.2}
}

func thin() draw.LineStyle { return draw.LineStyle{Color: color.Black, Width: 0.6} }

func dashed(s draw.LineStyle) draw.LineStyle {
	s.Dashes = []vg.Length{4, 3}
	return s
}

// newPanel makes a panel of lines.
func newPanel(title, x string, lines ...line) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text, p.X.Label.Text = title, x
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.TickerFunc(ticks), plot.TickerFunc(ticks)
	p.Legend.Top = true
	p.Legend.TextStyle.Font.Size = vg.Points(9)
	for _, l := range lines {
		drawn, err := plotter.NewLine(l.points)
		if err != nil {
			return nil, err
		}
		drawn.LineStyle = l.style
		p.Add(drawn)
		if l.name != "" {
			p.Legend.Add(l.name, drawn)
		}
	}
	p.Y.Min, p.Y.Max = 0, 1.1*p.Y.Max
	return p, nil
}

// ticks are the usual ones, with no more digits than they need.
func ticks(least, most float64) []plot.Tick {
	all := plot.DefaultTicks{}.Ticks(least, most)
	for i := range all {
		if all[i].Label != "" {
			all[i].Label = strconv.FormatFloat(all[i].Value, 'f', -1, 64)
		}
	}
	return all
}

// loadPanel shows the requests a second.
func (r *result) loadPanel() (*plot.Plot, error) {
	from, to, top := -float64(r.zero), float64(len(r.arrived)-r.zero), 2.6*r.expected()
	level := func(y float64) plotter.XYs { return plotter.XYs{{X: from, Y: y}, {X: to, Y: y}} }
	revoked := r.revokeAt().Seconds()
	p, err := newPanel(fmt.Sprintf("%s devices, interval %v: requests a second", grouped(r.size), r.interval), sinceStart,
		line{"sent by the workers", r.steps(r.sent), dashed(accent())},
		line{"arrived at the authority", r.steps(r.arrived), bold()},
		line{"devices / interval", level(r.expected()), thin()},
		line{"1.3 times that", level(excess * r.expected()), dashed(thin())},
		line{"all are revoked", plotter.XYs{{X: revoked}, {X: revoked, Y: 1.5 * r.expected()}}, accent()},
	)
	if err != nil {
		return nil, err
	}
	p.Y.Max = top // there is room for the legend, and what is asked at the start would dwarf the rest
	return p, r.shade(p)
}

// shade marks the outage.
func (r *result) shade(p *plot.Plot) error {
	if r.outage() == 0 {
		return nil
	}
	from, to, top := r.downFrom.Seconds(), r.downTo.Seconds(), 1.5*r.expected()
	area, err := plotter.NewPolygon(plotter.XYs{{X: from}, {X: to}, {X: to, Y: top}, {X: from, Y: top}})
	if err != nil {
		return err
	}
	area.Color, area.Width = color.RGBA{A: 0x20}, 0
	p.Add(area)
	p.Legend.Add("the authority is down", area)
	return nil
}

// steps makes a line of counts that is level through each second.
func (r *result) steps(counts []int) plotter.XYs {
	var points plotter.XYs
	for i, n := range counts {
		x := float64(i - r.zero)
		points = append(points, plotter.XY{X: x, Y: float64(n)}, plotter.XY{X: x + 1, Y: float64(n)})
	}
	return points
}

// stopPanel shows the share of the runs that had stopped by a time after the revocation.
func (r *result) stopPanel() (*plot.Plot, error) {
	bound := r.bound().Seconds()
	points := plotter.XYs{{}}
	each := max(1, len(r.revoked)/1000) // a chart has no room for more points
	for i := each - 1; i < len(r.revoked); i += each {
		points = append(points, plotter.XY{X: r.revoked[i].Seconds(), Y: 100 * float64(i+1) / float64(len(r.revoked))})
	}
	p, err := newPanel("stopped after the revocation, %", "seconds; the line is interval + timeout",
		line{"", points, bold()}, line{"", plotter.XYs{{X: bound}, {X: bound, Y: 100}}, accent()})
	if err != nil {
		return nil, err
	}
	p.X.Min, p.Y.Max = 0, 100
	return p, nil
}

// processorPanel shows how much of the machine the process had in each second.
func (r *result) processorPanel() (*plot.Plot, error) {
	return r.usePanel("processor, % of one core", func(was, is sample) float64 {
		return 100 * (is.processor - was.processor).Seconds()
	})
}

// memoryPanel shows how much memory the process had in each second.
func (r *result) memoryPanel() (*plot.Plot, error) {
	return r.usePanel("memory of the process, MiB", func(_, is sample) float64 { return float64(is.memory) / (1 << 20) })
}

func (r *result) usePanel(title string, of func(was, is sample) float64) (*plot.Plot, error) {
	var points plotter.XYs
	for i := 1; i < len(r.samples); i++ {
		points = append(points, plotter.XY{X: float64(i - r.zero), Y: of(r.samples[i-1], r.samples[i])})
	}
	return newPanel(title, sinceStart, line{"", points, bold()})
}

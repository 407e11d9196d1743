package main

import (
	"image/color"
	"io"
	"os"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// The size of the chart: a row of panels for each fleet.
const (
	chartWidth = 17 * vg.Inch
	rowHeight  = 3.6 * vg.Inch
)

// saveChart draws the chart into a file; the end of its name says of which kind.
func saveChart(name string, all []*result) (err error) {
	f, err := os.Create(name) //nolint:gosec // the user names the file
	if err != nil {
		return err
	}
	defer func() {
		if closed := f.Close(); err == nil {
			err = closed
		}
	}()
	return drawChart(f, strings.TrimPrefix(filepath.Ext(name), "."), all)
}

// drawChart draws the rows below each other.
func drawChart(to io.Writer, kind string, all []*result) error {
	height := rowHeight * vg.Length(len(all))
	canvas, err := draw.NewFormattedCanvas(chartWidth, height, kind)
	if err != nil {
		return err
	}
	whole := draw.New(canvas)
	whole.SetColor(color.White)
	whole.Fill(whole.Path())
	for i, r := range all {
		above := rowHeight * vg.Length(i)
		if err := r.drawRow(draw.Crop(whole, 0, 0, height-above-rowHeight, -above)); err != nil {
			return err
		}
	}
	_, err = canvas.WriteTo(to)
	return err
}

// drawRow draws the panels of one fleet beside each other.
func (r *result) drawRow(on draw.Canvas) error {
	at, gap, width := 0.0, vg.Points(6), on.Max.X-on.Min.X
	for _, panel := range []struct {
		share float64
		plot  func() (*plot.Plot, error)
	}{
		{0.43, r.loadPanel}, {0.19, r.stopPanel}, {0.19, r.processorPanel}, {0.19, r.memoryPanel},
	} {
		p, err := panel.plot()
		if err != nil {
			return err
		}
		left, right := width*vg.Length(at), width*vg.Length(1-at-panel.share)
		p.Draw(draw.Crop(on, left+gap, -right-gap, gap, -gap))
		at += panel.share
	}
	return nil
}

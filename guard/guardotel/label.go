package guardotel

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/execguard/execguard/guard"
)

// The names of attributes. Where OpenTelemetry's conventions have one, that is used.
const (
	keyGuard        = "execguard.guard.name"
	keyDevice       = "execguard.device.id"
	keyCode         = "execguard.decision.code"
	keyCodeOriginal = "execguard.decision.code_original"
	keyRequestID    = "execguard.decision.request_id"
	keyAllowedBy    = "execguard.run.allowed_by"
	keyOutcome      = "execguard.run.outcome"
	keyState        = "execguard.run.state"
	keyStop         = "execguard.run.stop.duration"
	keyError        = "error.type"
)

// about is what a set of labels says, besides the guard's name and a device.
type about uint8

const (
	nothing  about = iota
	decision       // the code, and an error where nobody could decide
	stopping       // the code
	finished       // this and the next: the outcome, the code, and an error
	stopped
	refused
)

func outcomeOf(k guard.EventKind) about {
	switch k {
	case guard.EventStopped:
		return stopped
	case guard.EventRefused:
		return refused
	default:
		return finished
	}
}

// label is a set of labels, ready for every instrument.
type label struct {
	attrs  []attribute.KeyValue // never written to
	failed string               // error.type, "" where nothing failed
	add    []metric.AddOption
	record []metric.RecordOption
	see    []metric.ObserveOption
}

type labelKey struct {
	about about
	code  guard.Code
}

// labels has the sets of labels made beforehand that most events need. It is never written to.
type labels struct {
	base   []attribute.KeyValue
	device bool // see WithDeviceLabel
	known  map[guard.Code]bool
	ready  map[labelKey]*label
}

func newLabels(c *config) *labels {
	l := &labels{device: c.device, known: map[guard.Code]bool{"": true}, ready: map[labelKey]*label{}}
	if c.name != "" {
		l.base = []attribute.KeyValue{attribute.String(keyGuard, c.name)}
	}
	for _, code := range labelCodes() {
		l.known[code] = true
	}
	for code := range l.known {
		for a := nothing; a <= refused; a++ {
			k := labelKey{a, code}
			l.ready[k] = newLabel(l.attrs(k, k.failure()))
		}
	}
	return l
}

// of is the labels of an event.
func (l *labels) of(a about, e *guard.Event) *label {
	k := labelKey{a, l.code(e.Decision.Code)}
	failure := k.failure()
	if a == finished && e.Err != nil {
		failure = typeOf(e.Err)
	}
	ready := l.ready[k]
	if !l.device && failure == ready.failed {
		return ready
	}
	attrs := l.attrs(k, failure)
	if !l.device {
		return newLabel(attrs)
	}
	made := newLabel(append(slices.Clone(attrs), attribute.String(keyDevice, text(e.DeviceID))))
	made.attrs = attrs // a span has the device anyway
	return made
}

// code is c where labels may have it.
func (l *labels) code(c guard.Code) guard.Code {
	if !l.known[c] {
		return guard.CodeOther
	}
	return c
}

// failure is the error.type that goes with an outcome and a code.
func (k labelKey) failure() string {
	switch {
	case k.about == decision && k.code == guard.CodeSystemUnavailable, k.about == stopped, k.about == refused:
		return failed(k.code)
	}
	return ""
}

func (l *labels) attrs(k labelKey, failure string) []attribute.KeyValue {
	attrs := append(make([]attribute.KeyValue, 0, len(l.base)+4), l.base...)
	if k.about != nothing && k.code != "" {
		attrs = append(attrs, attribute.String(keyCode, string(k.code)))
	}
	switch k.about {
	case finished:
		attrs = append(attrs, attribute.String(keyOutcome, "finished"))
	case stopped:
		attrs = append(attrs, attribute.String(keyOutcome, "stopped"))
	case refused:
		attrs = append(attrs, attribute.String(keyOutcome, "refused"))
	case nothing, decision, stopping:
	}
	if failure != "" {
		attrs = append(attrs, attribute.String(keyError, failure))
	}
	return attrs
}

func newLabel(attrs []attribute.KeyValue) *label {
	o := metric.WithAttributeSet(attribute.NewSet(slices.Clone(attrs)...))
	l := &label{
		attrs: attrs, add: []metric.AddOption{o}, record: []metric.RecordOption{o}, see: []metric.ObserveOption{o},
	}
	for _, a := range attrs {
		if a.Key == keyError {
			l.failed = a.Value.AsString()
		}
	}
	return l
}

// typeOf names the type of a function's own error. It calls no method of that error: whatever these do or say is
// the function's. Wrappers of fmt's are looked through, for they say nothing.
func typeOf(err error) string {
	t := reflect.TypeOf(err)
	for t.String() == "*fmt.wrapError" {
		wrapper, ok := err.(interface{ Unwrap() error })
		if !ok || wrapper.Unwrap() == nil {
			break
		}
		err = wrapper.Unwrap()
		t = reflect.TypeOf(err)
	}
	switch {
	case err == context.Canceled: //nolint:errorlint // whose type says nothing
		return errorCanceled
	case t.PkgPath() != "" && t.Name() != "":
		return t.PkgPath() + "." + t.Name()
	}
	return t.String()
}

// longestText bounds what comes from outside, in bytes.
const longestText = 256

// text is s as it may go into telemetry: not endless, and UTF-8.
func text(s string) string {
	if len(s) > longestText {
		end := longestText
		for end > longestText-utf8.UTFMax && !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

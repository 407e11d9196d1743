package licentric

import (
	"strings"
	"time"

	"github.com/execguard/execguard/guard/internal/strictjson"
)

// The members that files and answers have in common.
const (
	fieldFingerprint  = "fingerprint"
	fieldEntitlements = "entitlements"
)

// payload reads what was signed.
func payload(text []byte) (License, error) {
	top, err := strictjson.Parse(text, "data", "meta")
	if err != nil {
		return License{}, fileError(FileMalformed, "its payload is no good: "+err.Error())
	}
	data := readMembers("data", top.Raw("data"), "id", "type", fieldFingerprint, "name", "status", "productId", "policyId",
		"expiresAt", fieldEntitlements)
	license := License{
		ID:           data.needed("id"),
		Name:         data.text("name"),
		Status:       data.text("status"),
		ProductID:    data.text("productId"),
		PolicyID:     data.text("policyId"),
		ExpiresAt:    data.time("expiresAt"),
		Entitlements: data.texts(fieldEntitlements),
		Fingerprint:  data.text(fieldFingerprint),
	}
	if data.text("type") != "licenses" {
		data.spoil("type", "is not licenses")
	}
	if data.wrong != "" {
		return License{}, fileError(FileMalformed, data.wrong)
	}
	err = readMeta(&license, top.Raw("meta")) // before license is read: within one return the order is not specified
	return license, err
}

// readMeta reads the file's own life into license.
func readMeta(license *License, raw []byte) error {
	meta := readMembers("meta", raw, "issued", "expiry", "ttl")
	issued, expiry, ttl := meta.time("issued"), meta.time("expiry"), meta.seconds("ttl")
	switch {
	case meta.wrong != "":
		return fileError(FileMalformed, meta.wrong)
	case issued.IsZero() || expiry.IsZero() || !expiry.After(issued):
		return fileError(FileMalformed, "its meta has no times, or it ends before it begins")
	case ttl > maxLifetime || expiry.Sub(issued) > maxLifetime:
		return fileError(FileTooLong, "it would live more than 90 days")
	}
	license.Issued, license.Ends = issued, expiry
	if end := issued.Add(ttl); end.Before(expiry) {
		license.Ends = end
	}
	return nil
}

// members reads members of a payload, and keeps the first thing that is wrong with them.
type members struct {
	object strictjson.Object
	where  string
	wrong  string
}

func readMembers(where string, raw []byte, names ...string) *members {
	object, err := strictjson.Parse(raw, names...)
	m := &members{object: object, where: where}
	if err != nil {
		m.wrong = "its " + where + " is no good: " + err.Error()
		if raw == nil {
			m.wrong = "its " + where + " is missing"
		}
	}
	return m
}

func (m *members) spoil(name, why string) {
	if m.wrong == "" {
		m.wrong = "its " + m.where + "." + name + " " + why
	}
}

// absent tells whether there is nothing, or null, which the service writes for it.
func (m *members) absent(name string) bool { return absent(m.object.Raw(name)) }

func (m *members) text(name string) string {
	if m.absent(name) {
		return ""
	}
	text, ok := m.object.Text(name)
	if !ok {
		m.spoil(name, "is no text")
	}
	return string(text)
}

func (m *members) needed(name string) string {
	text := m.text(name)
	if strings.TrimSpace(text) == "" {
		m.spoil(name, "is missing")
	}
	return text
}

func (m *members) texts(name string) []string {
	if m.absent(name) {
		return nil
	}
	texts, ok := m.object.Texts(name)
	if !ok {
		m.spoil(name, "is no list of texts")
	}
	return texts
}

func (m *members) time(name string) time.Time {
	text := m.text(name)
	if text == "" {
		return time.Time{}
	}
	at, ok := parseTime(text)
	if !ok {
		m.spoil(name, "is no RFC 3339 time that ends in Z")
	}
	return at
}

// seconds reads a number of seconds above 0. One that is beyond any file is cut there, for it could
// not be multiplied.
func (m *members) seconds(name string) time.Duration {
	seconds, ok := m.object.Int(name)
	if !ok || seconds <= 0 {
		m.spoil(name, "is no whole number of seconds above 0")
	}
	return time.Duration(min(seconds, int(maxLifetime/time.Second)+1)) * time.Second
}

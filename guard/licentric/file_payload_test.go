package licentric

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"
)

// The begin and the end of a file's life, to the nanosecond, both written in either way.
func TestFileLivesFromIssuedToItsEnd(t *testing.T) {
	iso := wireTime
	day := 24 * time.Hour
	for name, c := range map[string]struct {
		meta object
		end  time.Duration // since it was issued
	}{
		"both the same":        {object{}, 14 * day},
		"expiry comes first":   {object{"expiry": iso(vectorIssued.Add(day))}, day},
		"ttl comes first":      {object{"ttl": 3600}, time.Hour},
		"ninety days":          {object{"expiry": iso(vectorIssued.Add(90 * day)), "ttl": 90 * 86400}, 90 * day},
		"a second":             {object{"ttl": 1}, time.Second},
		"parts of a second":    {object{"expiry": "2026-01-01T00:00:00.000000001Z"}, 1},
		"no parts of a second": {object{"expiry": "2026-01-02T00:00:00Z"}, day},
	} {
		t.Run(name, func(t *testing.T) {
			file := fileFrom(vectorIssued, twoWeeks).with("meta", c.meta).signed(t)
			at := func(since time.Duration) error {
				_, err := VerifyFile(file, FormatCertificate, ownMachine, vectorIssued.Add(since), public)
				return err
			}
			for _, good := range []time.Duration{-5 * time.Minute, 0, c.end - 1} {
				if err := at(good); err != nil {
					t.Errorf("%v after it was issued: %v", good, err)
				}
			}
			wantFileError(t, at(-5*time.Minute-1), FileNotYet)
			wantFileError(t, at(c.end), FileExpired)
			wantFileError(t, at(1000*day), FileExpired)
		})
	}
}

func TestFileIsForOneFingerprint(t *testing.T) {
	own := fileFrom(vectorIssued, twoWeeks)
	for _, fingerprint := range []string{"", otherMachine, ownMachine + " ", strings.ToUpper(ownMachine), ownMachine[1:]} {
		_, err := VerifyFile(own.signed(t), FormatCertificate, fingerprint, vectorIssued, public)
		wantFileError(t, err, FileForeign)
	}
	none := own.with("data", object{fieldFingerprint: nil})
	_, err := VerifyFile(none.signed(t), FormatCertificate, ownMachine, vectorIssued, public)
	wantFileError(t, err, FileForeign)
	if _, err := VerifyFile(none.signed(t), FormatCertificate, "", vectorIssued, public); err != nil {
		t.Error(err)
	}
}

// A signature says who wrote a file, not that it makes sense.
func TestSignedNonsense(t *testing.T) {
	good := fileFrom(vectorIssued, twoWeeks)
	change := func(part, name string, value any) string { return good.with(part, object{name: value}).payload(t) }
	text := good.payload(t)
	for name, c := range map[string]struct {
		payload string
		want    FileReason
	}{
		"empty":                     {"", FileMalformed},
		"nothing":                   {"null\n", FileMalformed},
		"an array":                  {"[" + text + "]", FileMalformed},
		"two documents":             {text + text, FileMalformed},
		"half":                      {text[:len(text)/2], FileMalformed},
		"no data":                   {`{"meta":{}}`, FileMalformed},
		"data null":                 {`{"data":null,"meta":{}}`, FileMalformed},
		"data an array":             {`{"data":[],"meta":{}}`, FileMalformed},
		"no meta":                   {`{"data":{"id":"a","type":"licenses"}}`, FileMalformed},
		"data twice":                {text[:len(text)-1] + `,"data":{}}`, FileMalformed},
		"meta in another case":      {text[:len(text)-1] + `,"Meta":{}}`, FileMalformed},
		"no id":                     {change("data", "id", nil), FileMalformed},
		"a blank id":                {change("data", "id", " "), FileMalformed},
		"an id that is a number":    {change("data", "id", 7), FileMalformed},
		"no type":                   {change("data", "type", nil), FileMalformed},
		"another type":              {change("data", "type", "machines"), FileMalformed},
		"fingerprint a number":      {change("data", fieldFingerprint, 1234567890), FileMalformed},
		"status an object":          {change("data", "status", object{}), FileMalformed},
		"Status":                    {change("data", "Status", "REVOKED"), FileMalformed},
		"expiresAt without a zone":  {change("data", "expiresAt", "2026-12-31T00:00:00"), FileMalformed},
		"expiresAt in another zone": {change("data", "expiresAt", "2026-12-31T00:00:00+00:00"), FileMalformed},
		"expiresAt a date":          {change("data", "expiresAt", "2026-12-31"), FileMalformed},
		"expiresAt with a comma":    {change("data", "expiresAt", "2026-12-31T00:00:00,5Z"), FileMalformed},
		"expiresAt a number":        {change("data", "expiresAt", 1798675200), FileMalformed},
		"expiresAt on February 30":  {change("data", "expiresAt", "2026-02-30T00:00:00Z"), FileMalformed},
		"entitlements a text":       {change("data", fieldEntitlements, "offline"), FileMalformed},
		"an entitlement null":       {change("data", fieldEntitlements, []any{"offline", nil}), FileMalformed},
		"no issued":                 {change("meta", "issued", nil), FileMalformed},
		"issued null":               {strings.Replace(text, wireTime(vectorIssued), "", 1), FileMalformed},
		"no expiry":                 {change("meta", "expiry", nil), FileMalformed},
		"expiry a number":           {change("meta", "expiry", 1768435200), FileMalformed},
		"expiry at issued":          {change("meta", "expiry", wireTime(vectorIssued)), FileMalformed},
		"expiry before issued":      {change("meta", "expiry", wireTime(vectorIssued.Add(-time.Hour))), FileMalformed},
		"no ttl":                    {change("meta", "ttl", nil), FileMalformed},
		"ttl null":                  {strings.Replace(text, `"ttl":1209600`, `"ttl":null`, 1), FileMalformed},
		"ttl 0":                     {change("meta", "ttl", 0), FileMalformed},
		"ttl below 0":               {change("meta", "ttl", -1), FileMalformed},
		"ttl a text":                {change("meta", "ttl", "1209600"), FileMalformed},
		"ttl with a fraction":       {change("meta", "ttl", 0.5), FileMalformed},
		"ttl beyond all numbers":    {strings.Replace(text, "1209600", "1"+strings.Repeat("0", 30), 1), FileMalformed},
		"ttl of a second too much":  {change("meta", "ttl", 90*86400+1), FileTooLong},
		"ttl that overflows":        {change("meta", "ttl", int64(1)<<62), FileTooLong},
		"expiry in the year 9999":   {change("meta", "expiry", "9999-12-31T23:59:59Z"), FileTooLong},
		"a millisecond too much":    {change("meta", "expiry", wireTime(vectorIssued.Add(90*24*time.Hour+time.Millisecond))), FileTooLong},
	} {
		t.Run(name, func(t *testing.T) {
			wantFileError(t, verify(sign(c.payload, private), public), c.want)
			_, err := Offline(sign(c.payload, private), FormatCertificate, public)
			wantFileError(t, err, c.want)
		})
	}
}

// Whatever library writes the envelope: with its members in any order, with blanks between its parts.
func TestEnvelopesAsLibrariesWriteThem(t *testing.T) {
	text := fileFrom(vectorIssued, twoWeeks).payload(t)
	good := envelope(text, private)
	enc, sig, alg := `"enc":"`+base64.StdEncoding.EncodeToString([]byte(text))+`"`, `"sig":"`+strings.Split(good, `"`)[7]+`"`, `"alg":"base64+ed25519"`
	for _, written := range []string{
		good, "{" + alg + "," + enc + "," + sig + "}", "{" + sig + "," + alg + "," + enc + "}", "{" + sig + "," + enc + "," + alg + "}",
		strings.NewReplacer(`":`, `": `, `",`, `", `).Replace(good), "  { " + good[1:len(good)-1] + " }  ",
	} {
		if err := verify(wrap(written, 76, "\n"), public); err != nil {
			t.Errorf("%s: %v", written, err)
		}
	}
}

// What is written otherwise is refused, or a changed bit could lead from one way to another.
func TestEnvelopeIsRefused(t *testing.T) {
	text := fileFrom(vectorIssued, twoWeeks).payload(t)
	good := envelope(text, private)
	enc, sig := base64.StdEncoding.EncodeToString([]byte(text)), strings.Split(good, `"`)[7]
	for name, c := range map[string]struct {
		envelope string
		want     FileReason
	}{
		"not JSON":                  {"enc=" + enc, FileMalformed},
		"an array":                  {"[" + good + "]", FileMalformed},
		"a tab":                     {strings.Replace(good, `,"sig"`, ",\t\"sig\"", 1), FileMalformed},
		"a line end":                {good + "\n", FileMalformed},
		"a carriage return":         {good + "\r", FileMalformed},
		"a blank in enc":            {strings.Replace(good, enc, enc[:4]+" "+enc[4:], 1), FileMalformed},
		"a blank in enc, signed":    {signedEnc(enc[:4] + " " + enc[4:]), FileMalformed},
		"a blank in sig":            {strings.Replace(good, sig, sig[:4]+" "+sig[4:], 1), FileMalformed},
		"a blank in alg":            {strings.Replace(good, "+ed25519", " +ed25519", 1), FileFormat},
		"a blank in a name":         {strings.Replace(good, `"sig"`, `"sig "`, 1), FileMalformed},
		"one member more":           {good[:len(good)-1] + `,"kid":"1"}`, FileMalformed},
		"a member twice":            {good[:len(good)-1] + `,"enc":"` + enc + `"}`, FileMalformed},
		"a member in another case":  {good[:len(good)-1] + `,"ENC":"` + enc + `"}`, FileMalformed},
		"an escape":                 {strings.Replace(good, "ed25519", `\u0065d25519`, 1), FileMalformed},
		"an escaped line end":       {strings.Replace(good, `","sig"`, `\n","sig"`, 1), FileMalformed},
		"no sig":                    {`{"enc":"` + enc + `","alg":"base64+ed25519"}`, FileMalformed},
		"sig null":                  {strings.Replace(good, `"`+sig+`"`, "null", 1), FileMalformed},
		"sig not base64":            {strings.Replace(good, sig, "-"+sig[1:], 1), FileMalformed},
		"sig without padding":       {strings.Replace(good, sig, strings.TrimRight(sig, "="), 1), FileMalformed},
		"sig empty":                 {strings.Replace(good, sig, "", 1), FileSignature},
		"sig too short":             {strings.Replace(good, sig, sig[4:], 1), FileSignature},
		"sig of the payload itself": {strings.Replace(good, sig, signature([]byte(text)), 1), FileSignature},
		"sig of enc alone":          {strings.Replace(good, sig, signature([]byte(enc)), 1), FileSignature},
		"sig of another purpose":    {strings.Replace(good, sig, signature([]byte("machine/"+enc)), 1), FileSignature},
		"sig of another file":       {strings.Replace(good, sig, vectorSignature, 1), FileSignature},
		"enc not base64, signed":    {signedEnc("*" + enc), FileMalformed},
		"enc of the URL kind":       {signedEnc(base64.URLEncoding.EncodeToString([]byte(text + "\xff\xff\xff"))), FileMalformed},
		"enc empty, signed":         {signedEnc(""), FileMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			wantFileError(t, verify(wrap(c.envelope, 0, "\n"), public), c.want)
		})
	}
}

// No error of a file holds anything of the file (S8: it may hold a licence key).
func TestFileErrorsHoldNothingOfTheFile(t *testing.T) {
	const mark = "KEY-1234-SECRET"
	good := fileFrom(vectorIssued, twoWeeks).with("data", object{"key": mark, "name": mark})
	for _, name := range []string{"id", "type", fieldFingerprint, "status", "expiresAt", fieldEntitlements} {
		for _, value := range []any{mark, []any{mark, 1}, object{mark: mark}} {
			file := good.with("data", object{name: value}).with("meta", object{"issued": mark}).signed(t)
			_, err := VerifyFile(file, FormatCertificate, "", vectorIssued, public)
			if text := fmt.Sprintf("%v %+v %#v", err, err, err); err == nil || strings.Contains(text, "KEY-") {
				t.Errorf("%s: %s", name, text)
			}
		}
	}
}

package licentricserver_test

import (
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/internal/licentricserver"
)

// What no licence may be made of, and what no change can be made to.
func TestStateThatCannotBe(t *testing.T) {
	s := newService(t)
	addMachine(t, s, fingerprint)
	for name, err := range map[string]error{
		"an id that is taken":     second(s.AddLicense(licentricserver.License{ID: licenseID})),
		"a key that is taken":     second(s.AddLicense(licentricserver.License{Key: licenseKey})),
		"a status of no kind":     second(s.AddLicense(licentricserver.License{Status: "GOOD"})),
		"expired by status":       second(s.AddLicense(licentricserver.License{Status: licentricserver.StatusExpired})),
		"set to expired":          s.SetStatus(licenseID, licentricserver.StatusExpired),
		"no such licence":         s.Suspend("none"),
		"machine of none":         second(s.AddMachine("none", fingerprint)),
		"machine twice":           second(s.AddMachine(licenseID, fingerprint)),
		"machine that is not":     s.RemoveMachine(licenseID, other),
		"heartbeat of none":       s.SetHeartbeat(licenseID, other, time.Now()),
		"file of no licence":      second(s.FileData("none", fingerprint)),
		"file of what is no JSON": second(s.SignFile(make(chan int), time.Now(), time.Hour)),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), "licentricserver: ") {
			t.Errorf("%s: error %v", name, err)
		} else if strings.Contains(err.Error(), licenseKey) {
			t.Errorf("%s: the error has the key: %v", name, err) // S8
		}
	}
	says(t, s, validateMachine(fingerprint), "VALID")
}

func second[T any](_ T, err error) error { return err }

// A caller's slices are its own.
func TestStateIsCopied(t *testing.T) {
	s, err := licentricserver.New()
	ok(t, err)
	mine := []string{"SYNC"}
	addLicense(t, s, licentricserver.License{Entitlements: mine})
	mine[0] = "OTHER"
	says(t, s, validate(`"entitlements":["SYNC"]`), "VALID")
	ok(t, s.SetEntitlements(licenseID, mine...))
	mine[0] = "THIRD"
	says(t, s, validate(`"entitlements":["OTHER"]`), "VALID")
}

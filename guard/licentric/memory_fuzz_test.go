package licentric

import (
	"encoding/json"
	"testing"
)

// Whatever stands in a memory: no panic, no refusal lost on the way through the file, and an error
// that holds nothing of it.
func FuzzMemory(f *testing.F) {
	file := newMemoryFile("memory", ownMachine, "lic-1")
	f.Add(memoryText(f))
	f.Add(memoryText(f, `"PLAN_FROZEN"`, `"\u0050LAN"`))
	f.Add(memoryText(f, `,"refused"`, `,"r"`))
	f.Add(memoryText(f, "2026-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z"))
	f.Add(`{"version":1,"machine":"` + file.machine + `","latest":"0001-01-01T00:00:00Z"}`)
	f.Add("nul")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := file.decode([]byte(text))
		if err != nil {
			if leaks(err.Error(), []byte(text), "it is the memory of another machine's file") {
				t.Fatalf("%v for %q", err, text)
			}
			return
		}
		var loose memoryJSON // as encoding/json understands it
		if err := json.Unmarshal([]byte(text), &loose); err == nil && (loose.Refused != nil) != (k.refused.code != "") || k.latest.IsZero() {
			t.Fatalf("%+v of %q", k, text)
		}
		again, err := file.encode(k)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := file.decode(again); err != nil || got.refused.code != k.refused.code || !got.latest.Equal(k.latest) {
			t.Fatalf("%+v became %+v, %v", k, got, err)
		}
	})
}

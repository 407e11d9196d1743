package licentric

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
)

// A denial is not settled before it is written: lock and read work here, the write does not (the name of
// the temporary file is too long), and the file's time is young.
func TestDenialThatCannotBeWrittenStaysOne(t *testing.T) {
	file := newFile().signed(t)
	path := filepath.Join(t.TempDir(), strings.Repeat("m", 248))
	v := newOffline(t, file, WithMemory(path))
	_, now := v.clock.now()
	text, err := v.memory.file.encode(known{latest: now})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Skip(err)
	}
	wantAllow(t, v, v.license.Ends)
	if err := v.Witness(t.Context(), ownMachine, said(guard.CodeDeviceRevoked), time.Now()); err == nil {
		t.Fatal("written?")
	}
	for range 3 {
		if d, _ := v.Validate(t.Context(), ownMachine); d.Allowed {
			t.Fatalf("%+v", d)
		}
	}
}

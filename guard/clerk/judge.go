package clerk

import (
	"encoding/json"
	"strings"
	"time"

	sdk "github.com/clerk/clerk-sdk-go/v2"
	"github.com/execguard/execguard/guard/internal/httpapi"
	"github.com/execguard/execguard/guard/internal/strictjson"
)

// The judges say what is wrong with the object of a success, "" where nothing is. They come before
// the SDK's struct is believed: it takes null for false, zero or nothing, and what is missing too.

// wantMachine wants the machine with that id.
func wantMachine(id string) func(o strictjson.Object) string {
	return func(o strictjson.Object) string {
		if why := wrongMachine(o); why != "" {
			return why
		}
		if text, _ := o.Text("id"); string(text) != id {
			return "the answer is about another machine"
		}
		return ""
	}
}

// wantNewMachine wants a machine and its key.
func wantNewMachine(o strictjson.Object) string {
	if why := wrongMachine(o); why != "" {
		return why
	}
	return wrongSecret(o, "secret_key")
}

// wrongMachine says why o is no machine.
func wrongMachine(o strictjson.Object) string {
	if why := wrongPlainMachine(o); why != "" {
		return why
	}
	raw := o.Raw("scoped_machines")
	if raw == nil || string(raw) == null {
		return ""
	}
	others, ok := o.Objects("scoped_machines", members()...)
	if !ok {
		return "scoped_machines is not a list of objects"
	}
	for _, other := range others {
		if why := wrongPlainMachine(other); why != "" {
			return "in scoped_machines: " + why
		}
	}
	return ""
}

func wrongPlainMachine(o strictjson.Object) string {
	if !says(o, "object", "machine") {
		return "the object is not a machine"
	}
	if id, _ := o.Text("id"); checkID(string(id), machinePrefix) != nil {
		return "the machine's id is missing or none"
	}
	if o.Raw("deleted") != nil || o.Raw("errors") != nil {
		return "a machine beside a deletion or errors"
	}
	return ""
}

// wantPage wants a list of machines, of no more than were asked for.
func wantPage(o strictjson.Object, limit int64) string {
	machines, ok := o.Objects("data", members()...)
	if !ok {
		return "data is missing or not a list of objects"
	}
	if int64(len(machines)) > limit {
		return "more machines than were asked for"
	}
	for _, m := range machines {
		if why := wrongMachine(m); why != "" {
			return why
		}
	}
	if n, ok := integer(o, "total_count"); !ok || n < 0 {
		return "total_count is missing or not a count"
	}
	return ""
}

// kindOfToken is what tokens are called. The service's description lists no such member of theirs, its
// SDK reads it: where it is there, it is that.
const kindOfToken = "machine_to_machine_token"

// wantDeleted wants to be told that the machine is gone.
func wantDeleted(id string) func(o strictjson.Object) string {
	return func(o strictjson.Object) string {
		if deleted, ok := o.Bool("deleted"); !ok || !deleted || !says(o, "object", "machine") || !says(o, "id", id) {
			return "it does not say that this machine was deleted"
		}
		return ""
	}
}

// wantScope wants to be told of the scope between the two machines; of its end, where gone is true.
func wantScope(from, to string, gone bool) func(o strictjson.Object) string {
	return func(o strictjson.Object) string {
		deleted, known := o.Bool("deleted")
		switch {
		case !says(o, "from_machine_id", from) || !says(o, "to_machine_id", to):
			return "it is not about the scope of these two machines"
		case deleted != gone || gone && !known:
			return "it does not say whether the scope is there"
		}
		return ""
	}
}

// wantSecretKey wants a machine's key.
func wantSecretKey(o strictjson.Object) string {
	if !says(o, "object", "machine_secret_key") {
		return "the object is not a machine's secret key"
	}
	return wrongSecret(o, "secret")
}

// wrongSecret says why the member is no secret that could be sent anywhere. A service that repeats
// the key it was sent has not made a new one.
func wrongSecret(o strictjson.Object, name string) string {
	text, _ := o.Text(name)
	if httpapi.CheckKey(string(text)) != nil || strings.Contains(string(text), httpapi.Redacted) {
		return name + " is missing or no secret"
	}
	return ""
}

// null is JSON's word for nothing.
const null = "null"

// says tells whether the member is just that text.
func says(o strictjson.Object, name, want string) bool {
	text, ok := o.Text(name)
	return ok && string(text) == want
}

// integer returns a whole number; ok is false where there is none. Times in milliseconds do not fit
// every platform's int.
func integer(o strictjson.Object, name string) (n int64, ok bool) {
	raw := o.Raw(name)
	if len(raw) == 0 || raw[0] == 'n' { // Unmarshal takes null for «leave it as it is»
		return 0, false
	}
	err := json.Unmarshal(raw, &n) // before n is read: within one return the order is not specified
	return n, err == nil
}

// machineOf is the SDK's machine as ours.
func machineOf(m *sdk.MachineWithScopedMachines) Machine {
	own := plainMachineOf(&m.Machine)
	for _, other := range m.ScopedMachines {
		if other != nil {
			own.ScopedMachines = append(own.ScopedMachines, plainMachineOf(other))
		}
	}
	return own
}

func plainMachineOf(m *sdk.Machine) Machine {
	return Machine{
		ID: m.ID, Name: m.Name, InstanceID: m.InstanceID,
		DefaultTokenTTL: min(max(time.Duration(min(m.DefaultTokenTTL, int64(longestTTL/time.Second)))*time.Second, 0), longestTTL),
		CreatedAt:       timeOf(m.CreatedAt), UpdatedAt: timeOf(m.UpdatedAt),
	}
}

// endOfTime is the first instant that no four digits of a year can write, in milliseconds: JSON
// has none beyond.
const endOfTime = 253402300800000

// timeOf is a time that the service sent in milliseconds; zero for none, and for none in the calendar.
func timeOf(ms int64) time.Time {
	if ms <= 0 || ms >= endOfTime {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

package guard

import "testing"

// Of several that denied before they could know of each other the first in the list speaks, and of
// several that could not be asked too; a denial goes before all else. What can only be a matter of
// luck when they are asked is looked at here.
func TestAll_TheFirstInTheListSpeaks(t *testing.T) {
	answered := func(codes ...Code) []answer {
		var answers []answer
		for _, code := range codes {
			answers = append(answers, answer{verdict: judge("dev", Decision{Allowed: code == CodeAllow, Code: code}, nil)})
		}
		return answers
	}
	for _, c := range []struct {
		codes []Code
		want  Code
	}{
		{[]Code{CodeAllow, CodeAllow}, CodeAllow},
		{[]Code{CodeDeviceRevoked, CodeOrgDisabled}, CodeDeviceRevoked},
		{[]Code{CodeAllow, CodeOrgDisabled, CodeDeviceRevoked}, CodeOrgDisabled},
		{[]Code{CodeSystemUnavailable, CodeAllow, CodeDeviceRevoked}, CodeDeviceRevoked},
		{[]Code{CodeAllow, CodeSystemUnavailable}, CodeSystemUnavailable},
	} {
		v := conclusion("dev", answered(c.codes...))
		if v.Code != c.want || v.Allowed != (c.want == CodeAllow) {
			t.Errorf("%v: got %+v, want %s", c.codes, v.Decision, c.want)
		}
	}
}

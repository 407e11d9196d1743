package licentricserver_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/execguard/execguard/internal/licentricserver"
)

type page struct {
	Data       []machine
	Pagination struct {
		NextCursor *string
		HasMore    bool
	}
}

// next asks for one page and holds it to what every page must be.
func next(t *testing.T, s *licentricserver.Service, query string) (prints []string, cursor string) {
	t.Helper()
	a := list(s, query).ask(s)
	p := decode[page](t, a)
	if a.status != http.StatusOK || p.Data == nil || p.Pagination.HasMore != (p.Pagination.NextCursor != nil) {
		t.Fatalf("%s: %d %s", query, a.status, a.body)
	}
	for _, m := range p.Data {
		prints = append(prints, m.Fingerprint)
	}
	if p.Pagination.NextCursor != nil {
		cursor = "&cursor=" + url.QueryEscape(*p.Pagination.NextCursor)
	}
	return prints, cursor
}

func TestPages(t *testing.T) {
	s := newService(t)
	var want []string
	for i := range 60 {
		want = append(want, fmt.Sprintf("fp-machine-%02d", i))
		addMachine(t, s, want[i])
	}
	for query, sizes := range map[string][]int{
		"?": {25, 25, 10}, "?limit=1": nil, "?limit=30": {30, 30}, "?limit=59": {59, 1}, "?limit=60": {60}, "?limit=100": {60},
		"?limit=7&licenseId=" + licenseID: {7, 7, 7, 7, 7, 7, 7, 7, 4},
	} {
		var all []string
		var got []int
		prints, cursor := next(t, s, query)
		for all, got = append(all, prints...), append(got, len(prints)); cursor != ""; {
			prints, cursor = next(t, s, query+cursor)
			all, got = append(all, prints...), append(got, len(prints))
		}
		if !slices.Equal(all, want) || sizes != nil && !slices.Equal(got, sizes) || sizes == nil && len(got) != 60 {
			t.Errorf("%s: pages of %v with %q", query, got, all)
		}
	}
}

// What is removed or added while a client walks the pages makes it miss no other machine, and see
// none twice.
func TestPagesWhileTheListChanges(t *testing.T) {
	s := newService(t)
	for i := range 6 {
		addMachine(t, s, fmt.Sprintf("fp-machine-%02d", i))
	}
	first, cursor := next(t, s, "?limit=3")
	ok(t, s.RemoveMachine(licenseID, "fp-machine-00"))
	ok(t, s.RemoveMachine(licenseID, "fp-machine-02")) // where the cursor stands
	ok(t, s.RemoveMachine(licenseID, "fp-machine-04"))
	addMachine(t, s, "fp-machine-00")
	rest, cursor := next(t, s, "?limit=3"+cursor)
	if want := []string{"fp-machine-03", "fp-machine-05", "fp-machine-00"}; !slices.Equal(rest, want) || cursor != "" {
		t.Errorf("after %q came %q, want %q and no more", first, rest, want)
	}
}

// A list may be of one licence, of all, or of none.
func TestListOfALicence(t *testing.T) {
	s := newService(t)
	second, err := s.AddLicense(licentricserver.License{})
	ok(t, err)
	addMachine(t, s, fingerprint)
	_, err = s.AddMachine(second.ID, other)
	ok(t, err)
	for query, want := range map[string][]string{
		"?licenseId=" + licenseID: {fingerprint}, "?licenseId=" + second.ID: {other},
		"": {fingerprint, other}, "?licenseId=": {fingerprint, other}, "?licenseId=none": nil,
	} {
		if got, _ := next(t, s, query); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}

package clerk_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/execguard/execguard/guard/clerk"
)

// book is a service with machines in pages.
type book struct {
	ids   []string
	asked []string
	turn  func(page int) // before each page
}

func (b *book) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.turn != nil {
		b.turn(len(b.asked))
	}
	q := r.URL.Query()
	limit, _ := strconv.Atoi(q.Get("limit"))
	offset, _ := strconv.Atoi(q.Get("offset"))
	b.asked = append(b.asked, q.Get("limit")+"@"+q.Get("offset"))
	var page []string
	for _, id := range b.ids[min(offset, len(b.ids)):min(offset+limit, len(b.ids))] {
		page = append(page, `{"object":"machine","id":"`+id+`"}`)
	}
	return reply(r, 200, fmt.Sprintf(`{"data":[%s],"total_count":%d}`, strings.Join(page, ","), len(b.ids))), nil
}

func numbered(n int) []string {
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprintf("mch_%04d", i))
	}
	return ids
}

func idsOf(machines []clerk.Machine) []string {
	var ids []string
	for _, m := range machines {
		ids = append(ids, m.ID)
	}
	return ids
}

// List walks over all pages, asks for no more than it needs, and begins anew each time.
func TestListWalksPages(t *testing.T) {
	for n, want := range map[int][]string{
		0: {"3@0"}, 1: {"3@0"}, 3: {"3@0"}, 4: {"3@0", "3@3"}, 6: {"3@0", "3@3"}, 7: {"3@0", "3@3", "3@6"},
	} {
		b := &book{ids: numbered(n)}
		walk := offline(t, b).List(t.Context(), clerk.ListParams{PageSize: 3})
		for range 2 {
			b.asked = nil
			got, err := collect(walk)
			if err != nil || !slices.Equal(idsOf(got), b.ids) || !slices.Equal(b.asked, want) {
				t.Errorf("%d machines: %v, %v, asked %v", n, idsOf(got), err, b.asked)
			}
		}
	}
}

// A walk that is left asks for nothing more.
func TestListIsLeft(t *testing.T) {
	b := &book{ids: numbered(9)}
	for m, err := range offline(t, b).List(t.Context(), clerk.ListParams{PageSize: 3}) {
		if err != nil {
			t.Fatal(err)
		}
		if m.ID == "mch_0004" {
			break
		}
	}
	if !slices.Equal(b.asked, []string{"3@0", "3@3"}) {
		t.Errorf("asked %v", b.asked)
	}
}

// Machines that are made or deleted meanwhile shift the pages: none comes twice, and the walk ends.
func TestListWhileItChanges(t *testing.T) {
	b := &book{ids: numbered(6)}
	b.turn = func(page int) {
		if page == 1 {
			b.ids = append([]string{"mch_new1", "mch_new2"}, b.ids...)
		}
	}
	got, err := collect(offline(t, b).List(t.Context(), clerk.ListParams{PageSize: 3}))
	if want := numbered(6); err != nil || !slices.Equal(idsOf(got), want) {
		t.Errorf("%v, %v", idsOf(got), err)
	}
	b = &book{ids: numbered(6)}
	b.turn = func(page int) {
		if page == 1 {
			b.ids = b.ids[:2]
		}
	}
	if got, err = collect(offline(t, b).List(t.Context(), clerk.ListParams{PageSize: 3})); err != nil || len(got) != 3 {
		t.Errorf("%v, %v", idsOf(got), err)
	}
}

// A service that sends the same page for ever, or more than was asked for, is not walked for ever.
func TestListDoesNotTurnInCircles(t *testing.T) {
	asked := 0
	for _, count := range []string{"999", "9223372036854775807"} {
		asked = 0
		client := offline(t, transport(func(r *http.Request) (*http.Response, error) {
			asked++
			return reply(r, 200, `{"data":[`+aMachine+`],"total_count":`+count+`}`), nil
		}))
		got, err := collect(client.List(t.Context(), clerk.ListParams{}))
		if wantError[*clerk.BodyError](t, err).Status != 200 || len(got) != 1 || asked > 12 {
			t.Errorf("%d machines, %d requests, %v", len(got), asked, err)
		}
	}
	b := &book{ids: numbered(3)}
	client := offline(t, transport(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		r.URL.RawQuery = "limit=3&offset=0"
		return b.RoundTrip(r)
	}))
	if _, err := collect(client.List(t.Context(), clerk.ListParams{PageSize: 2})); wantError[*clerk.BodyError](t, err) == nil {
		t.Error(err)
	}
}

// The first error ends the walk, after what had come.
func TestListEndsWithAnError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := &book{ids: numbered(9)}
	b.turn = func(page int) {
		if page == 2 {
			cancel()
		}
	}
	var got []string
	var errs []error
	for m, err := range offline(t, b).List(ctx, clerk.ListParams{PageSize: 3}) {
		if got = append(got, m.ID); err != nil {
			errs = append(errs, err)
		}
		if len(got) == 6 {
			cancel()
		}
	}
	if len(got) != 7 || got[6] != "" || len(errs) != 1 || !errors.Is(errs[0], context.Canceled) {
		t.Errorf("%v, %v", got, errs)
	}
}

// A page may be of 8 MiB and no other answer over one; nothing is read beyond.
func TestBounds(t *testing.T) {
	padded := func(body string, size int) string {
		return strings.TrimSuffix(body, "}") + `,"x":"` + strings.Repeat("x", size-len(body)-7) + `"}`
	}
	for name, most := range map[string]int{"list": 8 << 20, "get": 1 << 20, "verify token": 1 << 20, "secret key": 1 << 20} {
		fits, err := calls()[name].do(t.Context(), offline(t, canned(200, padded(success(name), most))))
		if err != nil {
			t.Errorf("%s: %v, %v", name, fits, err)
		}
		_, err = calls()[name].do(t.Context(), offline(t, canned(200, padded(success(name), most+1))))
		if failed := wantError[*clerk.Error](t, err); failed.Status != 200 || !strings.Contains(failed.Reason, "longer than") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Against the local Clerk: every order, a query, and a machine that is deleted while it is walked.
func TestListAgainstServer(t *testing.T) {
	server, client, own := start(t)
	want := []string{own}
	for i := range 5 {
		id, _ := server.AddMachine(fmt.Sprintf("worker %c", 'e'-i))
		want = append(want, id)
	}
	list := func(p clerk.ListParams) []string {
		got, err := collect(client.List(t.Context(), p))
		if err != nil {
			t.Error(err)
		}
		return idsOf(got)
	}
	if got := list(clerk.ListParams{OrderBy: "+created_at", PageSize: 2}); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := list(clerk.ListParams{Query: "worker c"}); !slices.Equal(got, want[3:4]) {
		t.Errorf("%v, want %v", got, want[3:4])
	}
	if got := list(clerk.ListParams{Query: own, PageSize: 1}); !slices.Equal(got, want[:1]) {
		t.Errorf("%v, want %v", got, want[:1])
	}
	slices.Reverse(want)
	for _, p := range []clerk.ListParams{{}, {OrderBy: "-created_at", PageSize: 4}} {
		if got := list(p); !slices.Equal(got, want) {
			t.Errorf("%+v: %v, want %v", p, got, want)
		}
	}
	server.Limit(3 * time.Second)
	_, err := collect(client.List(t.Context(), clerk.ListParams{}))
	if failed := wantError[*clerk.Error](t, err); failed.Status != 429 || failed.RetryAfter != 3*time.Second {
		t.Errorf("%v", err)
	}
}

package licentric_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/licentric"
)

// An error beside a success is no success, whichever call it was; null is none.
func TestErrorBesideASuccess(t *testing.T) {
	for name, data := range map[string]string{
		"activate": machineJSON, "heartbeat": machineJSON, "deactivate": `{}`, "machine": machineJSON, "machines": `[` + machineJSON + `]`,
		"checkout": `{"certificate":"x"}`,
	} {
		for beside, good := range map[string]bool{`null`: true, `"oops"`: false, `{}`: false, `false`: false} {
			client := offsocket(t, apiKey, canned(200, []byte(`{"data":`+data+`,"error":`+beside+`}`)))
			_, err := calls[name](t.Context(), client)
			if (err == nil) != good || err != nil && !errors.Is(err, guard.ErrUnavailable) {
				t.Errorf("%s, error %s: %v", name, beside, err)
			}
		}
	}
}

// S2: a contradiction decides nothing, with a status that refuses either.
func TestContradictionBesideARefusal(t *testing.T) {
	for _, status := range []int{401, 403, 404, 422} {
		for _, body := range []string{`{"valid":true,"code":"REVOKED"}`, `{"valid":false,"code":"VALID"}`, `{"valid":"no","code":"REVOKED"}`} {
			d, err := ask(t, status, body)
			checkUndecided(t, d, err)
		}
	}
}

// What came before an answer broke off is told: its status, and how long to leave the service alone.
func TestHalfAnAnswer(t *testing.T) {
	d, err := offsocket(t, "", transport(func(r *http.Request) (*http.Response, error) {
		answer := response(r, 503, nil)
		answer.Header.Set("Retry-After", "7")
		answer.Body, answer.ContentLength = io.NopCloser(iotest.ErrReader(io.ErrUnexpectedEOF)), -1
		return answer, nil
	})).Validator(licenseKey).Validate(t.Context(), device)
	checkUndecided(t, d, err)
	if e := typedError(t, err); e.Status != 503 || d.RetryAfter != 7*time.Second || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%+v, %#v", d, e)
	}
}

// A 204 says enough without a body, and nothing with one that cannot be read.
func TestNoContentWithContent(t *testing.T) {
	for body, good := range map[string]bool{"": true, `{}`: false, "<html>": false, " ": false} {
		_, err := offsocket(t, "", canned(204, []byte(body))).Heartbeat(t.Context(), licenseKey, machineID)
		if (err == nil) != good || err != nil && !errors.Is(err, guard.ErrUnavailable) {
			t.Errorf("%q: %v", body, err)
		}
	}
}

// A list that goes on without machines ends in an error, not as if it were whole.
func TestListWithoutMachinesIsNotWhole(t *testing.T) {
	n := 0
	client := offsocket(t, apiKey, transport(func(r *http.Request) (*http.Response, error) {
		n++
		return response(r, 200, fmt.Appendf(nil, `{"data":[],"pagination":{"hasMore":true,"nextCursor":"c%d"}}`, n)), nil
	}))
	all, err := collect(client, t.Context(), licentric.MachinesParams{})
	if !errors.Is(err, guard.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), "goes on without machines") || len(all) != 0 || n != 101 {
		t.Errorf("%d machines, %v after %d pages", len(all), err, n)
	}
	for _, p := range []string{`{"hasMore":true,"nextCursor":"x","NextCursor":"y"}`, `{"hasMore":false,"HASMORE":true}`} {
		client := offsocket(t, apiKey, canned(200, []byte(`{"data":[],"pagination":`+p+`}`)))
		if _, err := collect(client, t.Context(), licentric.MachinesParams{}); !strings.Contains(fmt.Sprint(err), "does not say whether there is more") {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// Without the licence's id the list of machines is not looked at: it would be that of all licences.
func TestNoListOfAllMachines(t *testing.T) {
	for _, license := range []string{`null`, `{}`, `{"id":""}`} {
		asked := 0
		client := offsocket(t, apiKey, transport(func(r *http.Request) (*http.Response, error) {
			asked++
			return response(r, 200, []byte(`{"valid":false,"code":"HEARTBEAT_REQUIRED","license":`+license+`}`)), nil
		}))
		d, err := client.Validator(licenseKey).Validate(t.Context(), device)
		if err != nil || d.Allowed || asked != 1 || !strings.Contains(d.Reason, "the answer names no machine") {
			t.Errorf("%s: %+v, %v after %d requests", license, d, err, asked)
		}
	}
}

// Blanks are no fingerprint, however many; and metadata that is null is none.
func TestNothingIsNothing(t *testing.T) {
	client := offsocket(t, apiKey, transport(func(r *http.Request) (*http.Response, error) {
		if r.Method == http.MethodPost {
			t.Error("asked")
		}
		return response(r, 200, []byte(`{"data":{"id":"`+machineID+`","metadata":null}}`)), nil
	}))
	blank := strings.Repeat(" ", 10)
	if _, err := client.Validate(t.Context(), licenseKey, licentric.ValidateParams{Fingerprint: blank}); !strings.Contains(fmt.Sprint(err), "blank") {
		t.Errorf("%v", err)
	}
	if _, err := client.Activate(t.Context(), licenseKey, licentric.Activation{Fingerprint: blank}); !strings.Contains(fmt.Sprint(err), "blank") {
		t.Errorf("%v", err)
	}
	if m, err := client.Machine(t.Context(), machineID); err != nil || m.Metadata != nil {
		t.Errorf("%+v, %v", m, err)
	}
}

// An id of 128 characters is sent, one of 129 is not.
func TestLengthOfIDs(t *testing.T) {
	client := offsocket(t, apiKey, canned(200, []byte(`{}`)))
	for n, good := range map[int]bool{1: true, 128: true, 129: false} {
		if err := client.Deactivate(t.Context(), licenseKey, strings.Repeat("a", n)); (err == nil) != good {
			t.Errorf("%d: %v", n, err)
		}
	}
}

// What is wrong with how a validator was made is named, the place of a nil option too; and no key of
// the API is taken for a licence's. No name of a member may be the licence key's, which it would replace.
func TestFlawsAreNamed(t *testing.T) {
	client := offsocket(t, "", canned(200, []byte(valid)))
	for want, v := range map[string]guard.Validator{
		"licentric: Validator: option 2 is nil":         client.Validator(licenseKey, licentric.WithExpiredAccess(), nil),
		"licentric: Validator: that is an API key":      client.Validator("lk_live_5Qz0vW"),
		"licentric: Validator: that is an API key, whi": client.Validator("lk_test_5Qz0vW"),
	} {
		d, err := v.Validate(t.Context(), device)
		if err != nil || d.Code != guard.CodeInvalidOrgKey || !strings.HasPrefix(d.Reason, want) {
			t.Errorf("%+v, %v, want %s", d, err, want)
		}
	}
	for _, paths := range []licentric.Paths{{FingerprintMember: "key"}, {EntitlementsMember: "key"}} {
		if _, err := licentric.New("", licentric.WithPaths(paths)); !strings.Contains(fmt.Sprint(err), "must differ") {
			t.Errorf("%+v: %v", paths, err)
		}
	}
}

// Who leaves while the heartbeat is on its way is told «could not ask», as by every other call.
func TestDecisionOfACallerWhoLeft(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	client := offsocket(t, "", transport(func(r *http.Request) (*http.Response, error) {
		if strings.HasSuffix(r.URL.Path, "/heartbeat") {
			cancel()
			return nil, context.Cause(r.Context())
		}
		return response(r, 200, []byte(valid)), nil
	}))
	d, err := client.Validator(licenseKey, licentric.WithHeartbeats(time.Minute)).Validate(ctx, device)
	checkUndecided(t, d, err)
}

// idle is a transport that counts how often it was told to close what is idle.
type idle struct {
	transport

	told atomic.Int32
}

func (i *idle) CloseIdleConnections() { i.told.Add(1) }

// The connection of a call that was in flight when the client was closed is not kept either.
func TestCloseDuringACall(t *testing.T) {
	rt := &idle{}
	var client *licentric.Client
	rt.transport = func(r *http.Request) (*http.Response, error) {
		checkClosed(t, client)
		return response(r, 200, []byte(valid)), nil
	}
	client = offsocket(t, "", rt)
	if _, err := client.Validate(t.Context(), licenseKey, licentric.ValidateParams{}); err != nil || rt.told.Load() != 2 {
		t.Errorf("told %d times, %v", rt.told.Load(), err)
	}
}

// Also where no answer names the machine, who waits for another's heartbeat shares what became of it.
func TestWaitersShareAHeartbeatOfAMachineFromTheList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.rewrite(func(call, body string) string {
			if call == "validate" {
				return `{"valid":false,"code":"HEARTBEAT_REQUIRED","license":{"id":"` + b.license.ID + `"}}`
			}
			return body
		})
		hold := make(chan struct{})
		b.set(func(call string, r *http.Request) error {
			if of := r.URL.Query().Get("licenseId"); call == "machines" && of != b.license.ID {
				t.Errorf("the machines of %q are listed: another licence's may have this fingerprint too", of)
			}
			if call != "heartbeat" {
				return nil
			}
			<-hold
			return errors.New("no route")
		})
		v := offsocket(t, b.APIKey(), b).Validator(b.license.Key)
		var group sync.WaitGroup
		for range 3 {
			group.Go(func() {
				d, err := v.Validate(t.Context(), device)
				if err != nil || d.Allowed || d.Reason != "HEARTBEAT_REQUIRED; the heartbeat failed: no route" {
					t.Errorf("%+v, %v", d, err)
				}
			})
			synctest.Wait()
		}
		close(hold)
		group.Wait()
		if got := b.asked(); got != "VMHVV" {
			t.Errorf("asked %s", got)
		}
	})
}

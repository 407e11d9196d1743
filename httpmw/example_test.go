package httpmw_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/guardtest"
	"github.com/execguard/execguard/httpmw"
)

// A server that works only while it is allowed to: its one device is the process itself.
func ExampleNew() {
	const deviceID = "api:prod:eu-1"
	authority := guardtest.NewValidator(deviceID) // in production machineid.Client, for one
	g, err := guard.New(authority)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()

	guarded := httpmw.New(g, httpmw.Fixed(deviceID))
	h := guarded(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "report")
	}))
	show := func() {
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/report", http.NoBody))
		fmt.Println(answer.Code, answer.Header().Get("Content-Type"))
		fmt.Println(answer.Body)
	}
	show()
	authority.Deny(deviceID, guard.CodeDeviceRevoked)
	show()
	// Output:
	// 200 text/plain; charset=utf-8
	// report
	// 403 application/problem+json
	// {"type":"https://pkg.go.dev/github.com/execguard/execguard/httpmw#hdr-Denied","title":"The device may not execute","status":403,"code":"DEVICE_REVOKED","request_id":"script-2"}
}

// Each client shows a token, and its owner is the device. What stands outside of the guard decides
// which requests are guarded: a health check is not.
func ExampleFromBearer() {
	g, err := guard.New(guardtest.NewValidator("agent:prod:7"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()

	owners := map[string]string{"t-7": "agent:prod:7", "t-8": "agent:prod:8"}
	verify := func(_ context.Context, token string) (string, error) {
		owner, ok := owners[token]
		if !ok {
			return "", errors.New("nobody has this token")
		}
		return owner, nil
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	mux := http.NewServeMux()
	mux.Handle("/work", httpmw.New(g, httpmw.FromBearer(verify))(hello))
	mux.Handle("/health", hello)

	for _, ask := range []struct{ path, credential string }{
		{"/work", "Bearer t-7"}, {"/work", "Bearer t-8"}, {"/work", "Bearer t-9"}, {"/work", ""}, {"/health", ""},
	} {
		r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, ask.path, http.NoBody)
		if ask.credential != "" {
			r.Header.Set("Authorization", ask.credential)
		}
		answer := httptest.NewRecorder()
		mux.ServeHTTP(answer, r)
		fmt.Printf("%s %q: %d %q\n", ask.path, ask.credential, answer.Code, answer.Header().Get("WWW-Authenticate"))
	}
	// Output:
	// /work "Bearer t-7": 200 ""
	// /work "Bearer t-8": 403 ""
	// /work "Bearer t-9": 401 "Bearer error=\"invalid_token\""
	// /work "": 401 "Bearer"
	// /health "": 200 ""
}

// A client whose calls are made only while its device is allowed to. The denial is in the error.
func ExampleTransport() {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "done") }))
	defer service.Close()
	const deviceID = "worker:prod:01"
	authority := guardtest.NewValidator(deviceID)
	g, err := guard.New(authority)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()

	client := &http.Client{Transport: httpmw.Transport(g, httpmw.Fixed(deviceID), service.Client().Transport)}
	call := func() {
		r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, service.URL, http.NoBody)
		if err != nil {
			fmt.Println(err)
			return
		}
		resp, err := client.Do(r)
		if denied := (*guard.DeniedError)(nil); errors.As(err, &denied) {
			fmt.Println("denied:", denied.Decision.Code)
			return
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		defer resp.Body.Close() // guarded until here
		text, err := io.ReadAll(resp.Body)
		fmt.Println(resp.StatusCode, string(text), err)
	}
	call()
	authority.Deny(deviceID, guard.CodeDeviceRevoked)
	call()
	// Output:
	// 200 done <nil>
	// denied: DEVICE_REVOKED
}

// A page of one's own in the place of application/problem+json.
func ExampleWithAnswer() {
	g, err := guard.New(guardtest.NewValidator())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()

	page := func(w http.ResponseWriter, _ *http.Request, p httpmw.Problem) {
		http.Error(w, p.Title+".", p.Status)
	}
	h := httpmw.New(g, httpmw.Fixed("kiosk:17"), httpmw.WithAnswer(page))(http.NotFoundHandler())
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/", http.NoBody))
	fmt.Println(answer.Code, answer.Header().Get("Content-Type"), answer.Header().Get("Cache-Control"))
	fmt.Print(answer.Body)
	// Output:
	// 403 text/plain; charset=utf-8 no-store
	// The device may not execute.
}

// A stream of events whose client is told why it ends. It also sees that it was cut.
func ExampleWithLastEvent() {
	const deviceID = "dashboard:1"
	authority := guardtest.NewValidator(deviceID)
	g, err := guard.New(authority)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()

	sent := make(chan struct{})
	guarded := httpmw.New(g, httpmw.Fixed(deviceID), httpmw.WithLastEvent(func(p httpmw.Problem) []byte {
		return []byte("event: denied\ndata: " + p.Code + "\n\n")
	}))
	server := httptest.NewServer(guarded(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: 42\n\n")
		_ = http.NewResponseController(w).Flush()
		close(sent)
		<-r.Context().Done() // there is nothing else to send
	})))
	defer server.Close()

	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, server.URL, http.NoBody)
	if err != nil {
		fmt.Println(err)
		return
	}
	resp, err := server.Client().Do(r)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	<-sent
	authority.Deny(deviceID, guard.CodeDeviceRevoked)
	_, _ = g.Validate(context.Background(), deviceID) // or the guard's own watch finds out
	events, err := io.ReadAll(resp.Body)
	fmt.Print(string(events))
	fmt.Println(err)
	// Output:
	// data: 42
	//
	// event: denied
	// data: DEVICE_REVOKED
	//
	// unexpected EOF
}

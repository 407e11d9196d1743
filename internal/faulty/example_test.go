package faulty_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/internal/faulty"
)

// A service is made faulty by telling how it speaks. The client here believes whatever says
// "active":true, and the faults show where that is not enough.
func Example() {
	speaks := faulty.Dialect{
		DeviceID: func(q faulty.Question) string { return path.Base(q.Path) },
		Yes:      func(q faulty.Question) string { return `{"id":` + strconv.Quote(q.DeviceID) + `,"active":true}` },
		No:       func(q faulty.Question) string { return `{"id":` + strconv.Quote(q.DeviceID) + `,"active":false}` },
		Another:  faulty.Always(`{"id":"m-2","active":true}`),
		Own: []faulty.Answer{
			{Name: "active as a string", Body: faulty.Always(`{"id":"m-1","active":"true"}`)},
		},
	}
	srv, err := faulty.Start(faulty.Config{Handler: http.NotFoundHandler(), Dialect: speaks})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer srv.Close() //nolint:errcheck // the example is over
	for _, fault := range srv.Faults() {
		if fault.Endless {
			continue // this client would wait for ever
		}
		if err := srv.Inject(fault.Name); err != nil {
			fmt.Println(err)
		}
		if fault.Check(careless(srv)) != nil {
			fmt.Println(fault)
		}
	}
	// Output:
	// duplicate keys
	// keys in another case
	// second document after the first
	// ALLOW with 201
	// ALLOW with 403
	// ALLOW with 500
	// redirect 301
	// redirect 302
	// redirect 307
	// redirect 308
	// 429 with Retry-After in seconds
	// 429 with Retry-After as a date
	// answer for another device
}

// careless is a client that works well while nothing goes wrong.
func careless(srv *faulty.Server) (guard.Decision, error) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, srv.URL()+"/machines/m-1", http.NoBody)
	if err != nil {
		return guard.Decision{}, err
	}
	response, err := srv.Client().Do(request)
	if err != nil {
		return guard.Decision{}, err
	}
	defer response.Body.Close()
	var said struct{ Active bool }
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&said); err != nil {
		return guard.Decision{}, err
	}
	if !said.Active {
		return guard.Decision{Code: guard.CodeSystemUnavailable}, nil
	}
	return guard.Decision{Allowed: true, Code: guard.CodeAllow}, nil
}

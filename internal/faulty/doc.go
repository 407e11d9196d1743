// Package faulty puts a service on a loopback socket and shows every fault that a server or a
// network can have, one at a time: connections refused, reset and stalled, TLS and names gone
// wrong, bodies cut, swollen, doubled and late. It is a net/http/httptest server that can be
// told to fail.
//
// The service itself is an http.Handler. How its answers look is told by a Dialect, which gives
// bodies and nothing else; how a fault is made of them is this package's.
//
//	dialect := faulty.Dialect{
//		// Whom a request is about: for the log, and for the answers below.
//		DeviceID: func(q faulty.Question) string { return path.Base(q.Path) },
//		// A complete yes to the question: what a client would believe if it were not for the fault.
//		Yes: func(q faulty.Question) string { return `{"id":` + strconv.Quote(q.DeviceID) + `,"active":true}` },
//		// A complete no.
//		No: func(q faulty.Question) string { return `{"id":` + strconv.Quote(q.DeviceID) + `,"active":false}` },
//		// A yes about somebody else. Without it the fault «answer for another device» is left out.
//		Another: func(faulty.Question) string { return `{"id":"m-2","active":true}` },
//		// The service's form of an error, for 429, 500 and 503.
//		Failure: func(status int) string { return `{"error":` + strconv.Quote(http.StatusText(status)) + `}` },
//		Own: []faulty.Answer{
//			// A fault of this dialect alone. It denies SYSTEM_UNAVAILABLE unless Code says otherwise.
//			{Name: "active as a string", Body: faulty.Always(`{"id":"m-1","active":"true"}`)},
//			// The name of a common fault: this answer is shown in its place.
//			{Name: "ALLOW with 403", Status: 403, Code: "INVALID_ORG_KEY", Body: faulty.Always(`{"error":"bad key"}`)},
//		},
//	}
//	srv, err := faulty.Start(faulty.Config{Handler: service, Dialect: dialect})
//	...
//	defer srv.Close()
//	for _, fault := range srv.Faults() {
//		err := srv.Inject(fault.Name)
//		...
//		err = fault.Check(validator.Validate(ctx, "m-1"))
//		...
//		err = srv.Heal()
//	}
//
// A fault strikes every request, whatever its path: Yes and its like are asked about each and
// can tell them apart. Errors bear no prefix of this package; who hands them on says whose
// server it was.
//
// It does not know what a right client does with an answer beyond its Code, and it is no
// package for users: guard/guardtest is.
package faulty

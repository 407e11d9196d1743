package clerkserver

import "net/http"

// problem is a refusal: a status, and what the errors of the body say.
type problem struct {
	status int
	list   []ErrorItem
}

// problemJSON is an error of Clerk's as it is sent. Errors of tokens have no trace id.
type problemJSON struct {
	Errors  []ErrorItem `json:"errors"`
	TraceID string      `json:"clerk_trace_id,omitempty"`
}

func refuse(status int, code, message, long string) *problem {
	return &problem{status, []ErrorItem{{Message: message, LongMessage: long, Code: code}}}
}

func notFound(what string) *problem {
	return refuse(http.StatusNotFound, "resource_not_found", "not found", "There is no "+what+" with this id.")
}

func unauthenticated() *problem {
	return refuse(http.StatusUnauthorized, "authentication_invalid", "Invalid authentication",
		"The Authorization header has to hold Bearer and a secret key that is known.")
}

func forbidden(why string) *problem {
	return refuse(http.StatusForbidden, "authorization_invalid", "Not allowed", why)
}

func tooMany() *problem {
	return refuse(http.StatusTooManyRequests, "too_many_requests", "Too many requests",
		"There were too many requests. Try again later.")
}

// invalid refuses a parameter of the machines' calls: 422 and its name.
func invalid(param, code, why string) *problem {
	return &problem{http.StatusUnprocessableEntity, []ErrorItem{{
		Message: "is invalid", LongMessage: "`" + param + "` " + why + ".", Code: code,
		Meta: map[string]any{"param_name": param},
	}}}
}

// bad refuses a parameter of the tokens' calls: 400, and its name in the text alone.
func bad(param, _, why string) *problem { return badRequest("'" + param + "' " + why) }

func badRequest(long string) *problem {
	return refuse(http.StatusBadRequest, "bad_request", "Bad Request", long)
}

package clerkserver

import (
	"net/http"
	"strings"
)

// keyring tells which keys a call takes.
type keyring int

const (
	instanceOnly keyring = iota
	machineOnly
	either
)

// route is one call of the API.
type route struct {
	method  string
	pattern string // * stands for an id
	keys    keyring
	status  int  // of the answer where all is well
	tokens  bool // a call of tokens, whose errors differ
	serve   func(*Service, *call) (any, *problem)
}

// anyMachine is the path of a machine.
const anyMachine = "/machines/*"

// routes lists every call, in the order of Clerk's description of its API.
func routes() []route {
	const get, post, patch, del = http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete
	return []route{
		{get, "/machines", instanceOnly, 200, false, (*Service).listMachines},
		{post, "/machines", instanceOnly, 200, false, (*Service).createMachine},
		{get, anyMachine, instanceOnly, 200, false, (*Service).getMachine},
		{patch, anyMachine, instanceOnly, 200, false, (*Service).updateMachine},
		{del, anyMachine, instanceOnly, 200, false, (*Service).deleteMachine},
		{get, "/machines/*/secret_key", instanceOnly, 200, false, (*Service).getSecretKey},
		{post, "/machines/*/secret_key/rotate", instanceOnly, 200, false, (*Service).rotateSecretKey},
		{post, "/machines/*/scopes", instanceOnly, 200, false, (*Service).createScope},
		{del, "/machines/*/scopes/*", instanceOnly, 200, false, (*Service).deleteScope},
		{post, "/m2m_tokens", machineOnly, 201, true, (*Service).createToken},
		{get, "/m2m_tokens", either, 200, true, (*Service).listTokens},
		{post, "/m2m_tokens/verify", either, 200, true, (*Service).verifyToken},
		{post, "/m2m_tokens/*/revoke", either, 200, true, (*Service).revokeToken},
	}
}

// find looks for the call that a request makes. Its path is taken as it is: a client that puts
// ../ or // into it does not find what it would have found by tidying up.
func find(method, path string) (route, []string, *problem) {
	if rest, ok := strings.CutPrefix(path, "/v1/"); ok {
		path = "/" + rest
	}
	var known bool
	for _, way := range routes() {
		ids, ok := match(way.pattern, path)
		if ok && way.method == method {
			return way, ids, nil
		}
		known = known || ok
	}
	if known {
		return route{}, nil, refuse(http.StatusMethodNotAllowed, "method_not_allowed", "Method not allowed",
			"There is no such call of this resource.")
	}
	return route{}, nil, refuse(http.StatusNotFound, "resource_not_found", "not found", "There is no such path.")
}

// match compares a path with a pattern, part by part, and takes out the ids. An empty part is an
// id that nobody has.
func match(pattern, path string) (ids []string, ok bool) {
	parts, given := strings.Split(pattern, "/"), strings.Split(path, "/")
	if len(parts) != len(given) {
		return nil, false
	}
	for i, part := range parts {
		switch {
		case part == "*":
			ids = append(ids, given[i])
		case part != given[i]:
			return nil, false
		}
	}
	return ids, true
}

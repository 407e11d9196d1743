package clerkserver

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/execguard/execguard/internal/faulty"
)

// sample is what the service would answer to a question if all were well, and changes nothing:
// what the faults spoil. A machine or a token that is not there is made up, so that a fault
// never hides behind a 404.
func (s *Service) sample(q faulty.Question) any {
	s.mu.Lock()
	defer s.mu.Unlock()
	way, ids, p := find(q.Method, q.Path)
	if p != nil {
		way.pattern, ids = anyMachine, []string{q.DeviceID}
	}
	if strings.HasPrefix(way.pattern, "/m2m_tokens") {
		return s.sampleOfTokens(way, q)
	}
	return s.sampleOfMachines(way, ids)
}

func (s *Service) sampleOfMachines(way route, ids []string) any {
	if len(ids) == 0 {
		shown := s.show(s.someMachine(""))
		if way.method == http.MethodGet {
			return listJSON{Data: []machineJSON{shown}, TotalCount: 1}
		}
		shown.SecretKey = "ak_" + word()
		return shown
	}
	made := scopeJSON{Object: "machine_scope", FromMachineID: ids[0], ToMachineID: "mch_" + word()}
	switch {
	case strings.HasSuffix(way.pattern, "/scopes"):
		made.CreatedAt = milliseconds(time.Now())
		return made
	case len(ids) == 2:
		made.ToMachineID, made.Deleted = ids[1], true
		return made
	case strings.Contains(way.pattern, "secret_key"):
		return secretJSON{"machine_secret_key", "ak_" + word()}
	case way.method == http.MethodDelete:
		return deletedJSON{Object: "machine", ID: ids[0], Deleted: true}
	}
	return s.show(s.someMachine(ids[0]))
}

func (s *Service) sampleOfTokens(way route, q faulty.Question) any {
	shown := s.someToken(q).show()
	switch {
	case way.pattern != "/m2m_tokens":
		shown.Revoked = strings.HasSuffix(way.pattern, "/revoke")
	case way.method == http.MethodGet:
		return tokensJSON{Tokens: []tokenJSON{shown}, TotalCount: 1}
	default:
		shown.Token = "mt_" + word()
	}
	return shown
}

// someMachine is the machine of an id, or one that is made up and has access to every machine.
func (s *Service) someMachine(id string) *machine {
	if m, ok := s.machines[id]; ok {
		return m
	}
	if id == "" {
		id = "mch_" + word()
	}
	now := time.Now()
	return &machine{id: id, name: "made up", ttl: defaultTTL, created: now, updated: now, scopes: s.all()}
}

// someToken is the token that a question holds, or one that is made up and gives access to
// every machine, for an hour.
func (s *Service) someToken(q faulty.Question) *token {
	if t := s.tokenBySecret(tokenOf(q)); t != nil {
		return t
	}
	return s.newToken(s.someMachine(""), TokenSpec{})
}

// all lists the ids of every machine.
func (s *Service) all() []string { return slices.Sorted(maps.Keys(s.machines)) }

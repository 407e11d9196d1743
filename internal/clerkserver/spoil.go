package clerkserver

import (
	"encoding/json"
	"net/http"

	"github.com/execguard/execguard/internal/faulty"
)

// object is a JSON object that is being spoilt.
type object map[string]json.RawMessage

func (o object) set(name string, value any) { o[name] = encode(value) }

// is tells what kind of object it says it is.
func (o object) is(kind string) bool { return string(o["object"]) == `"`+kind+`"` }

// subject is the member of a token that says whose it is.
const subject = "subject"

// self is the member that says whom or what an answer is about.
func (o object) self() string {
	switch {
	case o.is("machine_to_machine_token"):
		return subject
	case o.is("machine_scope"):
		return "from_machine_id"
	case o.is("machine_secret_key"):
		return "secret"
	default:
		return "id"
	}
}

// spoilt makes the answer to a question and has edit spoil it; in a list, each of its entries.
func (s *Service) spoilt(edit func(object)) func(faulty.Question) string {
	return func(q faulty.Question) string {
		var whole object
		_ = json.Unmarshal(encode(s.sample(q)), &whole) // made a line above
		for _, list := range []string{"data", "m2m_tokens"} {
			var entries []object
			if text, ok := whole[list]; ok {
				_ = json.Unmarshal(text, &entries)
				for _, entry := range entries {
					edit(entry)
				}
				whole.set(list, entries)
				return string(encode(whole))
			}
		}
		edit(whole)
		return string(encode(whole))
	}
}

// spoiltToken is spoilt for what verify would answer, whatever was asked.
func (s *Service) spoiltToken(edit func(object)) func(faulty.Question) string {
	inner := s.spoilt(edit)
	return func(q faulty.Question) string {
		q.Method, q.Path = http.MethodPost, "/m2m_tokens/verify"
		return inner(q)
	}
}

// strange makes an answer one about another. Who shows a token is learnt from the answer alone,
// so a token becomes one for another to accept; a secret key, which bears no name, is left out.
func strange(o object) {
	switch self := o.self(); self {
	case subject:
		o.set("scopes", []string{"mch_" + word()})
	case "secret":
		delete(o, self)
	default:
		o.set(self, "mch_"+word())
	}
}

// bury leaves of a machine what DELETE says of it. Of anything else it leaves as little.
func bury(o object) {
	self := o.self()
	for name := range o {
		if name != "object" && name != self {
			delete(o, name)
		}
	}
	o.set("deleted", true)
	if self != "id" {
		delete(o, self)
	}
}

// condemn says of a machine that is all there that it is deleted; a token is revoked.
func condemn(o object) {
	o.set("deleted", true)
	if o.self() == subject {
		o.set("revoked", true)
	}
}

// twice says a thing and its opposite. encoding/json believes the second, which is the ALLOW.
func (s *Service) twice(q faulty.Question) string {
	text := encode(s.sample(q))
	var o object
	_ = json.Unmarshal(text, &o) // made a line above
	first := object{}
	switch self := o.self(); {
	case self == subject:
		first.set("revoked", true)
	case o["data"] != nil:
		first.set("data", []object{})
	case o["m2m_tokens"] != nil:
		first.set("m2m_tokens", []object{})
	default:
		first.set(self, "mch_"+word())
	}
	head := string(encode(first))
	return head[:len(head)-1] + "," + string(text[1:])
}

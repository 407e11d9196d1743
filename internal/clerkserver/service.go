package clerkserver

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// Service is one Clerk instance: its machines, its tokens, and the API that serves them as an
// http.Handler. It is made by New; the zero value is of no use. It is safe for concurrent use,
// starts nothing in the background and reads the time from time.Now, so that in a synctest
// bubble its clock is the bubble's.
//
// What is done through its methods is in effect when they return, for the very next request.
type Service struct {
	config

	key      func() string // in closures, so that no fmt verb shows it
	instance string
	signer   func() (*rsa.PrivateKey, error) // of JWTs; made when the first one is

	mu       sync.Mutex
	standing standing
	machines map[string]*machine
	removed  map[string]*machine // what RestoreMachine brings back
	tokens   []*token            // opaque ones, in the order in which they were made
	created  int                 // machines so far: orders those that are equally old
	signs    bool                // a JWT has been made
	refusals []problem           // what RefuseNext has asked for
	limited  time.Duration       // what Limit has asked for
	window   window
}

// standing is what the instance's secret key is good for.
type standing int

const (
	standingGood standing = iota
	standingUnknown
	standingRestricted
)

// New makes an instance without machines.
func New(opts ...Option) (*Service, error) {
	var c config
	for i, o := range opts {
		if o == nil {
			return nil, fmt.Errorf("clerkserver: option %d is nil", i+1)
		}
		o.apply(&c)
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	key := "sk_test_" + rand.Text()
	return &Service{
		config:   c,
		key:      func() string { return key },
		instance: "ins_" + word(),
		signer: sync.OnceValues(func() (*rsa.PrivateKey, error) {
			return rsa.GenerateKey(rand.Reader, 2048)
		}),
		machines: make(map[string]*machine),
		removed:  make(map[string]*machine),
	}, nil
}

// SecretKey returns the instance's secret key, sk_test_ and something random. It is made for
// this instance and good for nothing else.
func (s *Service) SecretKey() string { return s.key() }

// InProcess returns a client whose requests reach the service without a socket or a goroutine,
// whatever host they name. It is for synctest bubbles, in which a wait for a socket would stop
// the clock. It does not heed the end of a context once the service has begun to answer, and no
// fault reaches it.
func (s *Service) InProcess() *http.Client { return &http.Client{Transport: inProcess{s}} }

// Format prints the instance's id and nothing else, whatever the verb.
func (s *Service) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "clerkserver.Service("+s.instance+")")
}

// word is what Clerk's ids are made of, after their prefix: 27 word characters.
func word() string { return (rand.Text() + rand.Text())[:27] }

// milliseconds is how Clerk writes an instant.
func milliseconds(t time.Time) int64 { return t.UnixMilli() }

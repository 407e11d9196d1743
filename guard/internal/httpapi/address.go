package httpapi

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Address is what a base URL must be for a client.
type Address struct {
	Source  string  // where the value comes from, for messages: "WithBaseURL"
	Default string  // the service's own, for messages
	Suffix  string  // what every call adds by itself, such as "/api/v1/", and must not stand at the end
	Secret  string  // what plain http would show, in words: "the organisation key"
	Secrets Secrets // must not stand in it
}

// Parse returns the URL that every path is appended to: absolute, http only to this machine
// itself, and without user, query and fragment. A value that is no URL is not repeated: it may be
// a key, put into the wrong variable.
func (a Address) Parse(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" {
		return nil, fmt.Errorf("%s: not an absolute http or https URL, such as %s or http://localhost:8080", a.Source, a.Default)
	}
	clean := &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/")}
	why := a.unfit(clean)
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		why = "user, query or fragment in a base URL"
	}
	if why != "" {
		return nil, fmt.Errorf("%s(%q): %s", a.Source, a.Secrets.Hide(u.Scheme+"://"+u.Host), why)
	}
	return clean, nil
}

// unfit says why nothing must, or can, be sent to u; "" where nothing speaks against it.
func (a Address) unfit(u *url.URL) string {
	switch {
	case a.Secrets.In([]byte(u.Host + u.Path)):
		return a.Secret + " stands in it"
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return "plain http would show " + a.Secret + "; use https (http only to localhost)"
	case u.Port() != "" && !validPort(u.Port()):
		return "the port is not in 1 to 65535"
	case a.Suffix != "" && strings.HasSuffix(u.Path+"/", a.Suffix): // else every call would be answered «not found»
		return "the path ends in " + strings.TrimRight(a.Suffix, "/") + ", which every call adds by itself: leave it out"
	}
	return ""
}

func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// loopback tells whether host is this machine. Any other name could be anybody, whatever it
// resolves to today.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

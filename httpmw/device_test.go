package httpmw_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/httpmw"
)

// who answers with the device that a run is for, and refuses nobody.
func who(from httpmw.DeviceFunc) http.Handler {
	r := ownRunner(func(ctx context.Context, deviceID string, fn func(context.Context) error) error {
		return fn(context.WithValue(ctx, whoKey{}, deviceID))
	})
	return httpmw.New(r, from)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Context().Value(whoKey{}))
	}))
}

type whoKey struct{}

// verifying is a verify function that says whose each token is: the device's where err is nil.
func verifying(err error) func(context.Context, string) (string, error) {
	return func(context.Context, string) (string, error) { return device, err }
}

// wantNobody wants the answer to a request that shows no device.
func wantNobody(t testing.TB, resp reply, challenge string) {
	t.Helper()
	if p := problem(t, resp.Response, http.StatusUnauthorized, "NO_IDENTITY"); p.RequestID != "" {
		t.Errorf("request_id = %q", p.RequestID)
	}
	wantRetryAfter(t, resp, "")
	want := []string{challenge}
	if challenge == "" {
		want = nil
	}
	if got := resp.Header.Values("Www-Authenticate"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("WWW-Authenticate = %q, want %q", got, want)
	}
}

func TestDeviceFuncsErrors(t *testing.T) {
	unavailable := &guard.DeniedError{Decision: guard.Decision{Code: guard.CodeSystemUnavailable, RequestID: "r", RetryAfter: time.Minute}}
	for name, test := range map[string]struct {
		err                     error
		status                  int
		code, request, comeBack string
	}{
		"plain":                {errors.New("secret"), 401, "NO_IDENTITY", "", ""},
		"no identity":          {fmt.Errorf("secret: %w", httpmw.ErrNoIdentity), 401, "NO_IDENTITY", "", ""},
		"a denial":             {denial(guard.CodeDeviceRevoked, 0, false), 401, "NO_IDENTITY", "", ""},
		"closed":               {guard.ErrClosed, 401, "NO_IDENTITY", "", ""},
		"unavailable":          {fmt.Errorf("secret: %w", guard.ErrUnavailable), 503, "SYSTEM_UNAVAILABLE", "", "5"},
		"both":                 {errors.Join(httpmw.ErrNoIdentity, guard.ErrUnavailable), 503, "SYSTEM_UNAVAILABLE", "", "5"},
		"unavailable denial":   {fmt.Errorf("secret: %w", unavailable), 503, "SYSTEM_UNAVAILABLE", "r", "60"},
		"a run stopped inside": {denial(guard.CodeSystemUnavailable, 0, true), 503, "SYSTEM_UNAVAILABLE", "req-7", "5"},
		"a caller's Canceled":  {context.Canceled, 401, "NO_IDENTITY", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			eachProtocol(t, func(t *testing.T, p protocol) {
				g, v := newGuard(t)
				h := httpmw.New(g, func(*http.Request) (string, error) { return device, test.err })(uncalled(t))
				url, c := serve(t, p, h)
				resp, _ := send(t, c, request(t, http.MethodGet, url, nil))
				if p := problem(t, resp.Response, test.status, test.code); p.RequestID != test.request {
					t.Errorf("request_id = %q, want %q", p.RequestID, test.request)
				}
				wantRetryAfter(t, resp, test.comeBack)
				if n := len(v.Calls()); n != 0 {
					t.Errorf("the authority was asked %d times", n)
				}
			})
		})
	}
}

// The DeviceFunc sees the request as it came, with what stood outside in its context.
func TestDeviceFuncGetsTheRequest(t *testing.T) {
	r := incoming(t)
	called := 0
	record(httpmw.New(allowing(), func(got *http.Request) (string, error) {
		if called++; got != r {
			t.Error("another request")
		}
		return device, nil
	})(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})), r)
	if called != 1 {
		t.Errorf("called %d times", called)
	}
}

func TestFixed(t *testing.T) {
	for _, id := range []string{device, "worker:élan:01 ", "", " "} {
		if got, err := httpmw.Fixed(id)(incoming(t)); got != id || err != nil {
			t.Errorf("%q, %v; want %q as it is", got, err, id)
		}
	}
}

func TestFromHeader(t *testing.T) {
	for name, test := range map[string]struct {
		header []string
		want   string // "": nobody
	}{
		"one":                {[]string{"X-Device", "d1"}, "d1"},
		"in another case":    {[]string{"x-dEVICE", "d1"}, "d1"},
		"with spaces inside": {[]string{"X-Device", "d 1, d 2"}, "d 1, d 2"},
		"absent":             {nil, ""},
		"another":            {[]string{"X-Device-Id", "d1"}, ""},
		"empty":              {[]string{"X-Device", ""}, ""},
		"two":                {[]string{"X-Device", "d1", "X-Device", "d2"}, ""},
		"the same twice":     {[]string{"X-Device", "d1", "X-Device", "d1"}, ""},
		"one and an empty":   {[]string{"X-Device", "d1", "X-Device", ""}, ""},
		"an empty and one":   {[]string{"X-Device", "", "X-Device", "d1"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			eachProtocol(t, func(t *testing.T, p protocol) {
				url, c := serve(t, p, who(httpmw.FromHeader("x-deVice")))
				resp, text := send(t, c, request(t, http.MethodGet, url, nil, test.header...))
				if test.want == "" {
					wantNobody(t, resp, "")
				} else if text != test.want {
					t.Errorf("device = %q, want %q", text, test.want)
				}
			})
		})
	}
}

// A trailer of the same name is no header.
func TestFromHeaderIgnoresTrailers(t *testing.T) {
	url, c := serve(t, protocols()[0], who(httpmw.FromHeader("X-Device")))
	r := request(t, http.MethodPost, url, io.MultiReader(http.NoBody))
	r.Trailer = http.Header{"X-Device": {"d1"}}
	resp, _ := send(t, c, r)
	wantNobody(t, resp, "")
}

func TestNoIdentityIsMatched(t *testing.T) {
	inner := errors.New("inner")
	for name, from := range map[string]httpmw.DeviceFunc{
		"FromHeader":           httpmw.FromHeader("X-Device"),
		"FromTLS":              httpmw.FromTLS(),
		"FromBearer":           httpmw.FromBearer(verifying(nil)),
		"FromBearer, refusing": func(r *http.Request) (string, error) { return httpmw.FromBearer(verifying(inner))(bearing(r, "t")) },
	} {
		id, err := from(incoming(t))
		if id != "" || !errors.Is(err, httpmw.ErrNoIdentity) || errors.Is(err, guard.ErrUnavailable) || errors.Is(err, guard.ErrDenied) {
			t.Errorf("%s: %q, %v", name, id, err)
		}
		if errors.Is(err, inner) != (name == "FromBearer, refusing") {
			t.Errorf("%s: does it match verify's error? %v", name, errors.Is(err, inner))
		}
	}
}

// bearing is r with a token.
func bearing(r *http.Request, token string) *http.Request {
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

// RFC 6750, section 2.1, and RFC 9110, section 11.1: the scheme in any case, one token, one field.
func TestFromBearer(t *testing.T) {
	for name, test := range map[string]struct {
		fields []string
		want   string // the token that verify gets; "": it is not called
	}{
		"as written":          {[]string{"Bearer a.b-c_d~e+f/g=="}, "a.b-c_d~e+f/g=="},
		"small":               {[]string{"bearer t"}, "t"},
		"capitals":            {[]string{"BEARER t"}, "t"},
		"mixed":               {[]string{"bEaReR t"}, "t"},
		"several spaces":      {[]string{"Bearer   t"}, "t"},
		"token named Bearer":  {[]string{"Bearer bearer"}, "bearer"},
		"none":                {nil, ""},
		"empty":               {[]string{""}, ""},
		"scheme only":         {[]string{"Bearer"}, ""},
		"scheme and a space":  {[]string{"Bearer "}, ""},
		"scheme and spaces":   {[]string{"Bearer    "}, ""},
		"no space":            {[]string{"Bearert"}, ""},
		"a tab":               {[]string{"Bearer\tt"}, ""},
		"a tab, a space":      {[]string{"Bearer \tt"}, ""},
		"another scheme":      {[]string{"Basic dTpw"}, ""},
		"a longer scheme":     {[]string{"Bearers t"}, ""},
		"a shorter scheme":    {[]string{"Bear t"}, ""},
		"a space before":      {[]string{" Bearer t"}, ""},
		"a space after":       {[]string{"Bearer t "}, ""},
		"two words":           {[]string{"Bearer t u"}, ""},
		"two in one":          {[]string{"Bearer t, Bearer u"}, ""},
		"a comma":             {[]string{"Bearer t,u"}, ""},
		"two":                 {[]string{"Bearer t", "Bearer u"}, ""},
		"the same twice":      {[]string{"Bearer t", "Bearer t"}, ""},
		"with an empty one":   {[]string{"Bearer t", ""}, ""},
		"beside another kind": {[]string{"Basic dTpw", "Bearer t"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			from := httpmw.FromBearer(func(_ context.Context, token string) (string, error) {
				got = token
				return device, nil
			})
			r := incoming(t)
			r.Header["Authorization"] = test.fields
			resp := record(who(from), r)
			if got != test.want {
				t.Errorf("token = %q, want %q", got, test.want)
			}
			if test.want == "" {
				wantNobody(t, resp, "Bearer")
			} else if text, _ := io.ReadAll(resp.Body); string(text) != device {
				t.Errorf("answer = %s", text)
			}
		})
	}
}

// A token in a cookie, the query or the form is none: they get into logs.
func TestFromBearerReadsNothingElse(t *testing.T) {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/?access_token=t", http.NoBody)
	r.Header.Set("Proxy-Authorization", "Bearer t")
	r.AddCookie(&http.Cookie{Name: "Authorization", Value: "Bearer t"})
	wantNobody(t, record(who(httpmw.FromBearer(verifying(nil))), r), "Bearer")
}

func TestFromBearersVerify(t *testing.T) {
	for name, test := range map[string]struct {
		id   string
		err  error
		want func(t testing.TB, resp reply)
	}{
		"refuses": {"", errors.New("secret tok-3n"), func(t testing.TB, resp reply) {
			wantNobody(t, resp, `Bearer error="invalid_token"`)
		}},
		"says both": {device, errors.New("secret tok-3n"), func(t testing.TB, resp reply) {
			wantNobody(t, resp, `Bearer error="invalid_token"`)
		}},
		"could not ask": {"", fmt.Errorf("secret tok-3n: %w", guard.ErrUnavailable), func(t testing.TB, resp reply) {
			problem(t, resp.Response, http.StatusServiceUnavailable, "SYSTEM_UNAVAILABLE")
			wantRetryAfter(t, resp, "5")
			if got := resp.Header.Values("Www-Authenticate"); len(got) != 0 {
				t.Errorf("WWW-Authenticate = %q: the token may well be good", got)
			}
		}},
		"names nobody": {"", nil, func(t testing.TB, resp reply) {
			problem(t, resp.Response, http.StatusBadRequest, "INVALID_DEVICE_ID")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			eachProtocol(t, func(t *testing.T, p protocol) {
				g, v := newGuard(t)
				from := httpmw.FromBearer(func(context.Context, string) (string, error) { return test.id, test.err })
				url, c := serve(t, p, httpmw.New(g, from)(uncalled(t)))
				resp, text := send(t, c, request(t, http.MethodGet, url, nil, "Authorization", "Bearer tok-3n"))
				test.want(t, resp)
				wantDiscreet(t, "answer", text+wire(resp))
				if n := len(v.Calls()); n != 0 {
					t.Errorf("the authority was asked %d times", n)
				}
			})
		})
	}
}

// A token that could not be checked is not one that was refused.
func TestFromBearerCouldNotAsk(t *testing.T) {
	inner := fmt.Errorf("the directory is down: %w", guard.ErrUnavailable)
	id, err := httpmw.FromBearer(verifying(inner))(bearing(incoming(t), "t"))
	if id != "" || !errors.Is(err, inner) || !errors.Is(err, guard.ErrUnavailable) || errors.Is(err, httpmw.ErrNoIdentity) {
		t.Errorf("%q, %v", id, err)
	}
}

// verify gets the request's context, so that it ends with the request and finds what stands outside.
func TestFromBearerHandsTheContextOn(t *testing.T) {
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, "outer")
	called := false
	_, err := httpmw.FromBearer(func(got context.Context, _ string) (string, error) {
		called = got == ctx
		return device, nil
	})(bearing(incoming(t), "t").WithContext(ctx))
	if err != nil || !called {
		t.Errorf("err %v, called with the context: %v", err, called)
	}
}

// pointerError is a verifier's error that keeps the token, as that of a client's may.
type pointerError struct{ Token string }

func (*pointerError) Error() string { return "invalid: tok-3n" }

// valueError and stringError are none that fmt would stop before: they are no pointers.
type valueError struct{ Token string }

func (valueError) Error() string { return "invalid" }

type stringError string

func (stringError) Error() string { return "invalid" }

// S8: whatever verify's error says and holds, the token is not in what ours prints.
func TestTokenIsNotPrinted(t *testing.T) {
	for name, inner := range map[string]error{
		"text":    errors.New("invalid: tok-3n"),
		"wrapped": fmt.Errorf("invalid tok-3n: %w", &pointerError{"tok-3n"}),
		"joined":  errors.Join(&pointerError{"tok-3n"}, errors.New("tok-3n")),
		"field":   &pointerError{"tok-3n"},
		"value":   valueError{"tok-3n"},
		"string":  stringError("tok-3n"),
	} {
		t.Run(name, func(t *testing.T) {
			id, err := httpmw.FromBearer(verifying(inner))(bearing(incoming(t), "tok-3n"))
			if id != "" || !errors.Is(err, inner) {
				t.Errorf("%q, %v", id, err)
			}
			wantUnprinted(t, err)
		})
	}
	_, err := httpmw.FromBearer(verifying(nil))(bearing(incoming(t), "tok-3n and more"))
	wantUnprinted(t, err)
}

// wantUnprinted wants no secret in any way to print err, also in a Problem or wrapped.
func wantUnprinted(t testing.TB, err error) {
	t.Helper()
	for _, value := range []any{err, httpmw.Problem{Err: err}, &httpmw.Problem{Err: err}, fmt.Errorf("outer: %w", err), []error{err}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			wantDiscreet(t, verb, fmt.Sprintf(verb, value))
		}
		text, err := json.Marshal(value)
		wantDiscreet(t, "JSON", fmt.Sprintf("%s %v", text, err))
	}
}

// A Problem that is logged tells no token either, in an answer of one's own as well.
func TestTokenIsNotInTheProblem(t *testing.T) {
	called := false
	h := httpmw.New(allowing(), httpmw.FromBearer(verifying(&pointerError{"tok-3n"})), httpmw.WithAnswer(
		func(_ http.ResponseWriter, _ *http.Request, p httpmw.Problem) {
			called = true
			for _, verb := range []string{"%v", "%+v", "%#v"} {
				wantDiscreet(t, verb, fmt.Sprintf(verb, p))
			}
		}))(uncalled(t))
	record(h, bearing(incoming(t), "tok-3n"))
	if !called {
		t.Error("not called")
	}
}

// issuer signs the certificates of a test.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key}
	i.cert = i.issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "test issuer"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}).Leaf
	return i
}

// issue signs c, by itself where there is no issuer yet.
func (i *issuer) issue(t testing.TB, c *x509.Certificate) tls.Certificate {
	t.Helper()
	now := time.Now()
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(now.UnixNano()), now.Add(-time.Hour), now.Add(time.Hour)
	parent := i.cert
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, i.key.Public(), i.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: i.key, Leaf: leaf}
}

// uris are the URIs of a certificate.
func uris(t testing.TB, texts ...string) []*url.URL {
	t.Helper()
	us := make([]*url.URL, len(texts))
	for i, text := range texts {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		us[i] = u
	}
	return us
}

// serveTLS serves over p to clients that show their certificates as auth says.
func serveTLS(t testing.TB, p protocol, h http.Handler, auth tls.ClientAuthType, by *issuer, shown ...tls.Certificate) (url string, c *http.Client) {
	t.Helper()
	url, c = serve(t, protocol{p.name, p.major, func(s *httptest.Server) {
		s.TLS = &tls.Config{ClientAuth: auth, ClientCAs: x509.NewCertPool()}
		s.TLS.ClientCAs.AddCert(by.cert)
		p.start(s)
	}}, h)
	c.Transport.(*http.Transport).TLSClientConfig.Certificates = shown
	return url, c
}

// overTLS are the protocols that can show a certificate.
func overTLS() []protocol { return protocols()[1:3] }

func TestFromTLS(t *testing.T) {
	by := newIssuer(t)
	usage := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	cn := pkix.Name{CommonName: "cn-1"}
	for name, test := range map[string]struct {
		cert x509.Certificate
		want string // "": nobody
	}{
		"SPIFFE":             {x509.Certificate{URIs: uris(t, "spiffe://example.org/ns/prod/sa/w1")}, "spiffe://example.org/ns/prod/sa/w1"},
		"SPIFFE before all":  {x509.Certificate{URIs: uris(t, "spiffe://example.org/w1"), DNSNames: []string{"w1.example.org"}, Subject: cn}, "spiffe://example.org/w1"},
		"beside another URI": {x509.Certificate{URIs: uris(t, "https://example.org/x", "spiffe://example.org/w1", "urn:x:y")}, "spiffe://example.org/w1"},
		"with capitals":      {x509.Certificate{URIs: uris(t, "SPIFFE://example.org/W1")}, "spiffe://example.org/W1"},
		"escaped":            {x509.Certificate{URIs: uris(t, "spiffe://example.org/a%2Fb")}, "spiffe://example.org/a%2Fb"},
		"two SPIFFE":         {x509.Certificate{URIs: uris(t, "spiffe://example.org/w1", "spiffe://example.org/w2"), DNSNames: []string{"w1"}, Subject: cn}, ""},
		"the same twice":     {x509.Certificate{URIs: uris(t, "spiffe://example.org/w1", "spiffe://example.org/w1"), Subject: cn}, ""},
		"SPIFFE, no host":    {x509.Certificate{URIs: uris(t, "spiffe:///w1"), DNSNames: []string{"w1.example.org"}}, ""},
		"SPIFFE, no path":    {x509.Certificate{URIs: uris(t, "spiffe:w1")}, ""},
		"another URI":        {x509.Certificate{URIs: uris(t, "https://example.org/x"), Subject: cn}, "cn-1"},
		"only another URI":   {x509.Certificate{URIs: uris(t, "https://example.org/x")}, ""},
		"DNS":                {x509.Certificate{DNSNames: []string{"w1.example.org", "w2.example.org"}, Subject: cn}, "w1.example.org"},
		"common name":        {x509.Certificate{Subject: cn}, "cn-1"},
		"mail only":          {x509.Certificate{EmailAddresses: []string{"w1@example.org"}}, ""},
		"nothing":            {x509.Certificate{Subject: pkix.Name{Country: []string{"GB"}}}, ""},
	} {
		for _, p := range overTLS() {
			t.Run(name+"/"+p.name, func(t *testing.T) {
				test.cert.ExtKeyUsage = usage
				url, c := serveTLS(t, p, who(httpmw.FromTLS()), tls.RequireAndVerifyClientCert, by, by.issue(t, &test.cert))
				resp, text := send(t, c, request(t, http.MethodGet, url, nil))
				if test.want == "" {
					wantNobody(t, resp, "")
				} else if text != test.want {
					t.Errorf("device = %q, want %q", text, test.want)
				}
			})
		}
	}
}

// Only what the server has verified counts: a certificate that it asked for and did not check can
// say anything, whoever signed it.
func TestFromTLSUnverified(t *testing.T) {
	by, stranger := newIssuer(t), newIssuer(t)
	good := func(i *issuer) []tls.Certificate {
		return []tls.Certificate{i.issue(t, &x509.Certificate{
			URIs: uris(t, "spiffe://example.org/w1"), DNSNames: []string{"w1"}, Subject: pkix.Name{CommonName: "w1"},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		})}
	}
	for name, test := range map[string]struct {
		auth  tls.ClientAuthType
		shown []tls.Certificate
		ok    bool
	}{
		"requested, absent":            {tls.RequestClientCert, nil, false},
		"requested, good":              {tls.RequestClientCert, good(by), false},
		"requested, a stranger's":      {tls.RequestClientCert, good(stranger), false},
		"any required, good":           {tls.RequireAnyClientCert, good(by), false},
		"any required, a stranger's":   {tls.RequireAnyClientCert, good(stranger), false},
		"verified if given, absent":    {tls.VerifyClientCertIfGiven, nil, false},
		"verified if given, good":      {tls.VerifyClientCertIfGiven, good(by), true},
		"required and verified":        {tls.RequireAndVerifyClientCert, good(by), true},
		"not requested, but it is had": {tls.NoClientCert, good(by), false},
	} {
		for _, p := range overTLS() {
			t.Run(name+"/"+p.name, func(t *testing.T) {
				url, c := serveTLS(t, p, who(httpmw.FromTLS()), test.auth, by, test.shown...)
				resp, text := send(t, c, request(t, http.MethodGet, url, nil))
				if !test.ok {
					wantNobody(t, resp, "")
				} else if text != "spiffe://example.org/w1" {
					t.Errorf("device = %q", text)
				}
			})
		}
	}
}

func TestFromTLSOverPlainHTTP(t *testing.T) {
	for _, p := range []protocol{protocols()[0], protocols()[3]} {
		t.Run(p.name, func(t *testing.T) {
			url, c := serve(t, p, who(httpmw.FromTLS()))
			resp, _ := send(t, c, request(t, http.MethodGet, url, nil, "X-Forwarded-Client-Cert", "URI=spiffe://example.org/w1"))
			wantNobody(t, resp, "")
		})
	}
}

// A session that is resumed has not shown the certificate again; it is the one that was verified.
func TestFromTLSResumed(t *testing.T) {
	by := newIssuer(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			resumed := false
			h := who(httpmw.FromTLS())
			url, c := serveTLS(t, overTLS()[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				resumed = r.TLS.DidResume
				h.ServeHTTP(w, r)
			}), tls.RequireAndVerifyClientCert, by, by.issue(t, &x509.Certificate{
				URIs: uris(t, "spiffe://example.org/w1"), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
			}))
			conf := c.Transport.(*http.Transport).TLSClientConfig
			conf.MaxVersion, conf.ClientSessionCache = version, tls.NewLRUClientSessionCache(1)
			for i := range 2 {
				if _, text := send(t, c, request(t, http.MethodGet, url, nil)); text != "spiffe://example.org/w1" || resumed != (i == 1) {
					t.Errorf("%d: device = %q, resumed: %v", i, text, resumed)
				}
				c.CloseIdleConnections()
			}
		})
	}
}

// States that no server of ours makes, but somebody's might.
func TestFromTLSOddStates(t *testing.T) {
	leaf := &x509.Certificate{Subject: pkix.Name{CommonName: "cn-1"}}
	for name, state := range map[string]*tls.ConnectionState{
		"none":             nil,
		"empty":            {},
		"only peer":        {PeerCertificates: []*x509.Certificate{leaf}},
		"an empty chain":   {PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{}}},
		"an empty DNSName": {VerifiedChains: [][]*x509.Certificate{{{DNSNames: []string{""}}}}},
	} {
		r := incoming(t)
		r.TLS = state
		if id, err := httpmw.FromTLS()(r); id != "" || !errors.Is(err, httpmw.ErrNoIdentity) {
			t.Errorf("%s: %q, %v", name, id, err)
		}
	}
}

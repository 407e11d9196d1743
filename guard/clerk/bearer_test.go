package clerk_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/execguard/execguard/grpcmw"
	"github.com/execguard/execguard/guard"
	"github.com/execguard/execguard/guard/clerk"
	"github.com/execguard/execguard/httpmw"
	"github.com/execguard/execguard/internal/clerkserver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// An API that takes tokens for itself, and asks whether the machine behind one may run: from the socket
// of its caller to that of Clerk. ask makes one call with a token, and tells how it went in HTTP's words.
func TestFromBearer(t *testing.T) {
	for name, surface := range map[string]func(t *testing.T, g *guard.Guard, client *clerk.Client) (ask func(token string) int){
		"httpmw": overHTTP, "grpcmw": overGRPC,
	} {
		t.Run(name, func(t *testing.T) {
			server, client, own := start(t, clerk.WithTimeout(5*time.Second))
			g, err := guard.New(client.Validator(clerk.WithScope(own)), guard.WithTimeout(5*time.Second))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { g.Close() })
			walkBearer(t, server, own, surface(t, g, client))
		})
	}
}

func walkBearer(t *testing.T, server *clerkserver.Server, own string, ask func(token string) int) {
	id, _ := server.AddMachine("caller", own)
	elsewhere, _ := server.AddMachine("caller of others")
	issue := func(id string, spec clerkserver.TokenSpec) (tokenID, token string) {
		tokenID, token, err := server.IssueToken(id, spec)
		if err != nil {
			t.Fatal(err)
		}
		return tokenID, token
	}
	want := func(token string, status int, what string) {
		t.Helper()
		if got := ask(token); got != status {
			t.Errorf("%s: %d, want %d", what, got, status)
		}
	}
	tokenID, token := issue(id, clerkserver.TokenSpec{})
	_, jwt := issue(id, clerkserver.TokenSpec{JWT: true})
	_, unscoped := issue(elsewhere, clerkserver.TokenSpec{})
	_, endless := issue(id, clerkserver.TokenSpec{Endless: true})
	want(token, 200, "a good token")
	want(jwt, 200, "a good JWT")
	want("", 401, "no token")
	want("mt_unknown", 401, "an unknown token")
	want(jwt[:len(jwt)-2], 401, "a broken JWT")
	want(unscoped, 401, "a token that is not for us")
	want(endless, 401, "a token without an end")
	server.SetScopes(id)
	want(jwt, 403, "a machine whose scope was removed, with a token from before")
	server.SetScopes(id, own)
	server.RemoveMachine(id)
	want(jwt, 403, "a machine that was deleted, with a token from before")
	server.RestoreMachine(id)
	want(token, 200, "restored")
	server.RevokeToken(tokenID)
	want(token, 401, "a revoked token")
	server.RevokeKey()
	want(jwt, 503, "our own key is revoked")
	server.RestoreKey()
	server.Limit(time.Second)
	want(jwt, 503, "too many requests")
	server.Unlimit()
	if err := server.Inject("connection refused"); err != nil {
		t.Fatal(err)
	}
	want(jwt, 503, "Clerk is away")
	if err := server.Heal(); err != nil {
		t.Fatal(err)
	}
	want(jwt, 200, "Clerk is back")
}

func overHTTP(t *testing.T, g *guard.Guard, client *clerk.Client) func(token string) int {
	protected := httpmw.New(g, httpmw.FromBearer(client.VerifyMachine))(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "served")
	}))
	api := httptest.NewServer(protected)
	t.Cleanup(api.Close)
	return func(token string) int {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, api.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		answer, err := api.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if served := string(body) == "served"; err != nil || served != (answer.StatusCode == http.StatusOK) {
			t.Errorf("%d %s, %v", answer.StatusCode, body, err)
		}
		return answer.StatusCode
	}
}

func overGRPC(t *testing.T, g *guard.Guard, client *clerk.Client) func(token string) int {
	s := grpc.NewServer(grpc.UnaryInterceptor(grpcmw.UnaryServer(g, grpcmw.FromBearer(client.VerifyMachine))))
	healthpb.RegisterHealthServer(s, health.NewServer())
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener) }()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return func(token string) int {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
		}
		_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
		switch status.Code(err) {
		case codes.OK:
			return http.StatusOK
		case codes.Unauthenticated:
			return http.StatusUnauthorized
		case codes.PermissionDenied:
			return http.StatusForbidden
		case codes.Unavailable:
			return http.StatusServiceUnavailable
		default:
			t.Errorf("%v", err)
			return 0
		}
	}
}

package house_test

import "slices"

// The third-party modules that rows name.
const (
	backoffModule = "github.com/cenkalti/backoff/v4"
	syncModule    = "golang.org/x/sync"
	goleakModule  = "go.uber.org/goleak"
	cmpModule     = "github.com/google/go-cmp"
	rapidModule   = "pgregory.net/rapid"

	grpcModule      = "google.golang.org/grpc"
	protobufModule  = "google.golang.org/protobuf"
	genprotoModule  = "google.golang.org/genproto/googleapis/rpc"
	chiModule       = "github.com/go-chi/chi/v5"
	websocketModule = "github.com/coder/websocket"

	asynqModule     = "github.com/hibiken/asynq"
	redisModule     = "github.com/redis/go-redis/v9"
	miniredisModule = "github.com/alicebob/miniredis/v2"
	cronModule      = "github.com/robfig/cron/v3"

	clerkModule     = "github.com/clerk/clerk-sdk-go/v2"
	flockModule     = "github.com/gofrs/flock"
	machineIDModule = "github.com/denisbrodbeck/machineid"
	plotModule      = "gonum.org/v1/plot"

	// Of it the code may use the API alone, which a test of guard/guardotel's own holds: the SDK's modules are inside.
	otelModule = "go.opentelemetry.io/otel"
)

// row says what one package may import: packages of ours by their path inside the module, and
// third-party modules by their path.
//
//	                 examples/*               (may import anything of ours)
//	                     │
//	httpmw  grpcmw  asynqmw  cronwrap    guard/machineid  and other clients
//	   └───────┴─────────┼───────┴─────────────┘
//	                     ▼
//	                   guard ◄── guard/authority ◄── guard/guardtest
//	                     ▼
//	                  contextx
//
// The hub knows neither side, and no spoke imports a spoke.
type row struct {
	ours    []string // what its code may import of ours
	modules []string // what its code may import of others
	tests   []string // what its tests may import of ours besides
	peers   []string // what its tests may import of others besides the code's and testModules
	testing bool     // its code may import testing: a kit for other people's tests
}

// packages is the import table and, because a package without a row fails the test and so does
// a row without a package, the list of packages.
func packages() map[string]row {
	whole := []string{"contextx", "guard", "guard/authority", "guard/guardotel", "guard/guardtest", "guard/machineid", "httpmw", "grpcmw", "asynqmw", "cronwrap"}
	return map[string]row{
		"contextx": {},
		"guard": {
			ours:    []string{"contextx"},
			modules: []string{backoffModule, syncModule},
			tests:   []string{"guard/authority", "guard/guardtest", "guard/machineid"},
		},
		"guard/authority": {
			ours:  []string{"contextx", "guard"},
			tests: []string{"guard/guardtest", "guard/machineid"},
		},
		"guard/guardtest": {
			ours:    []string{"contextx", "guard", "guard/authority", "internal/faulty"},
			tests:   []string{"guard/machineid", "guard/licentric", "guard/clerk", "internal/licentricserver", "internal/clerkserver"},
			testing: true,
		},
		"guard/machineid": {
			ours:  []string{"guard", "guard/internal/httpapi", "guard/internal/strictjson"},
			tests: []string{"guard/authority", "guard/guardtest"},
		},
		"guard/guardotel": {
			ours:    []string{"guard"},
			modules: []string{otelModule},
			tests:   []string{"guard/guardtest"},
		},
		"guard/licentric": {
			ours:    []string{"guard", "guard/internal/httpapi", "guard/internal/strictjson"},
			modules: []string{flockModule, machineIDModule},
			tests:   []string{"guard/authority", "guard/guardtest", "internal/licentricserver"},
		},
		"guard/clerk": {
			ours:    []string{"guard", "guard/internal/httpapi", "guard/internal/strictjson"},
			modules: []string{backoffModule, clerkModule},
			tests:   []string{"guard/authority", "guard/guardtest", "httpmw", "grpcmw", "internal/clerkserver"},
			peers:   []string{grpcModule},
		},
		"asynqmw": {
			ours:    []string{"contextx", "guard"},
			modules: []string{asynqModule},
			tests:   []string{"guard/authority", "guard/guardtest", "guard/machineid"},
			peers:   []string{redisModule, miniredisModule},
		},
		"cronwrap": {
			ours:    []string{"contextx", "guard"},
			modules: []string{cronModule},
			tests:   []string{"guard/authority", "guard/guardtest", "guard/machineid"},
		},
		"grpcmw": {
			ours:    []string{"guard"},
			modules: []string{grpcModule, genprotoModule, protobufModule},
			tests:   []string{"guard/authority", "guard/clerk", "guard/guardtest", "guard/licentric", "guard/machineid", "httpmw"},
		},
		"httpmw": {
			ours:  []string{"guard"},
			tests: []string{"guard/authority", "guard/guardtest", "guard/machineid"},
			peers: []string{chiModule, websocketModule},
		},
		"guard/internal/house":      {},
		"guard/internal/httpapi":    {ours: []string{"guard/internal/strictjson"}},
		"guard/internal/strictjson": {},
		"internal/chaos": {
			ours:  []string{"guard"},
			tests: []string{"guard/authority", "guard/machineid", "httpmw", "grpcmw", "asynqmw", "cronwrap", "internal/faulty"},
			peers: []string{grpcModule, protobufModule, asynqModule, miniredisModule, cronModule},
		},
		"internal/faulty":          {ours: []string{"guard"}},
		"internal/licentricserver": {ours: []string{"guard", "internal/faulty"}},
		"internal/clerkserver":     {ours: []string{"guard", "internal/faulty"}, peers: []string{clerkModule}},
		"examples/authorities":     {ours: append(slices.Clone(whole), "guard/licentric", "guard/clerk", "internal/licentricserver", "internal/clerkserver")},
		"examples/agent":           {ours: whole},
		"examples/asynq":           {ours: whole, modules: []string{asynqModule, miniredisModule}},
		"examples/cron":            {ours: whole, modules: []string{cronModule}},
		"examples/fleet":           {ours: whole, modules: []string{plotModule}},
		"examples/grpc":            {ours: whole, modules: []string{grpcModule, protobufModule}},
		"examples/http":            {ours: whole},
		"examples/quickstart":      {ours: whole, modules: []string{backoffModule}},
		"examples/selfhosted":      {ours: whole},
	}
}

// testModules are the third-party modules that every test may import. They are few because a
// consumer's go.sum holds them too.
func testModules() []string { return []string{goleakModule, cmpModule, rapidModule} }

// topLevel lists what may stand at the top of the repository. The first line is what the
// project's owner asked for, the second what every public Go module has; what an editor leaves
// behind in a working copy comes last.
func topLevel() []string {
	return []string{
		"go.mod", "go.sum", "guard", "httpmw", "grpcmw", "asynqmw", "cronwrap", "contextx", "examples", "README.md", "internal",
		"LICENSE", "CHANGELOG.md", ".golangci.yml", ".ci", ".github", "cmd",
		".git", ".idea", ".vscode", ".DS_Store",
	}
}

// Package guardotel shows a guard to OpenTelemetry: metrics, and a span for each validate and each
// run. It hears of what happens through guard.WithObserver and asks Guard.Health for the rest, and
// so knows nothing that any other observer could not know:
//
//	tel, err := guardotel.New()
//	g, err := guard.New(authority, guard.WithObserver(tel.Observe))
//	err = tel.Bind(g)
//	defer tel.Close()
//
// It resembles the instrumentation packages of OpenTelemetry's contrib repository: it needs the API
// only, makes no provider, starts no goroutine and shuts nothing down but itself. It does not promise
// that every validate is seen: the guard tells of those, of hints and of overruns through a
// bounded queue, and execguard.event.dropped counts what did not fit. Runs are never lost.
//
// # Metrics
//
//	name                           instrument     unit        attributes besides the guard's name
//	execguard.decisions            counter        {decision}  decision.code, error.type where nobody could decide
//	execguard.validate.duration    histogram      s           as execguard.decisions
//	execguard.runs                 counter        {run}       run.outcome, decision.code, error.type
//	execguard.run.overruns         counter        {run}       decision.code
//	execguard.run.stop.duration    histogram      s           decision.code
//	execguard.hints                counter        {hint}
//
// and from Health, once for each collection and only for a guard that was given to Bind:
//
//	execguard.run.active           updowncounter  {run}       run.state: running, or stopping since it was told to
//	execguard.device.active        updowncounter  {device}
//	execguard.device.refused       updowncounter  {device}    decision.code
//	execguard.permission.age.max   gauge          s           the oldest permission that runs stand on; 0 without runs
//	execguard.permission.age.limit gauge          s           Guard.StopBound; work stops before the age passes it
//	execguard.authority.answering  gauge          1           1 or 0
//	execguard.event.dropped        counter        {event}
//
// A run is in execguard.runs when it is over: finished, stopped or refused. A run that overran is there
// too once it has returned. The time from the denial to the end of the work is execguard.run.stop.duration.
//
// # Spans
//
// execguard.validate is one question to the authority, and a root: it may serve many runs, or none.
// execguard.run is one run, from the start of the function to its end, or for a refused one the wait for the
// refusal; its parent is the caller's span. Both are made when they are over, with the times
// that they had, so that a span that the function starts is a child of the caller's too, and not of execguard.run,
// and a sampler sees all attributes:
//
//	execguard.guard.name            metrics and spans, where WithName was given
//	execguard.device.id             spans; metrics only with WithDeviceLabel
//	execguard.decision.code         what allowed or denied: a code that the guard knows, or OTHER; none after Close
//	execguard.decision.code_original  spans: the authority's own code, where that is OTHER
//	execguard.decision.request_id   spans: of that decision
//	execguard.run.allowed_by        spans: the request id of the ALLOW that the run started on
//	execguard.run.outcome           finished, stopped or refused
//	execguard.run.stop.duration     spans: how long a stopped run went on after it was told, in seconds
//	execguard.run.state             metrics: running or stopping
//	error.type                      what failed, see below
//
// Request ids tie a run to the validates that it stood on and that stopped it. They are attributes and not links:
// a link needs the other span's context, which is made elsewhere and may come later; who
// would keep that for every answer keeps a table that strangers can fill. With reuse many runs
// stand on one validate; after an authority that gives no request ids nothing ties them.
//
// # Errors
//
// A run that was stopped or refused has failed, and so has one whose function returned an error. A denial
// is a proper answer to a validate; that has failed only where nobody could decide. What failed has the
// span status Error, and error.type on spans and metrics alike: the code, _OTHER for a code that
// the guard does not know, "closed" for a guard that was closed, and for a function's own error its Go type,
// behind what fmt.Errorf has put around it, and "context.Canceled" for that.
//
// The texts of errors are on no span: what a function says of its failure is its own, and may hold
// what a trace must not (S8). So are the authority's reasons, which quote transport errors. The records
// of guard.WithLogger have the latter, with the same request id; a function that wants its text in a trace
// sets it on the caller's span.
//
// # Bounded
//
// No label has more values than there are codes, types of errors in the program and names that were
// given to guards. Texts from outside are cut to 256 bytes and made valid UTF-8, because one that is
// not fails the export of a whole batch. WithDeviceLabel is the one way to have more.
//
// # Cost
//
// A guard without an observer is as it was: a run on a permission that may be reused costs one allocation of 64 bytes.
// Any observer adds ten, and 1.2 µs, because it gets a context of its own for each event (BenchmarkRun). What this
// package adds to that for each run (BenchmarkObserve): 0.2 µs and no allocation with no-op providers, 0.7 µs
// and nine with global providers that nobody has set, 0.35 µs and none with the SDK's metrics, 1.4 µs and nine with those and
// spans that are not sampled, 2.5 µs and ten with spans that are recorded. One collection of a guard
// with 10,000 devices at work takes 0.25 ms (BenchmarkCollect).
package guardotel

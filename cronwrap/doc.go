// Package cronwrap guards robfig/cron: a job runs only while an authority allows its device, and is told to stop
// when the authority no longer does. Job gives cron's jobs what they lack for that, a context and an error; New
// guards the start of one that is there already.
//
// They resemble cron's own wrappers, which stand between a schedule and its job, and go on being used beside them.
//
//	                          tick
//	                           │
//	                    ask the authority ────────────── denied, could not ask ──┐
//	                           │ ALLOW                                           │
//	                     the job runs ── denied while it runs: context ends ─────┤
//	                           │         and the job returns                     │
//	own error, panic: handler  │ nil                              ┌──────────────┴─────────────┐
//	or log                     │                                  │ logged                     │ WithCatchUp:
//	                           ▼                                  │ skipped                    │ waits, runs once
//	                       next tick ◄────────────────────────────┴────────────────────────────┘ when allowed
//
// Each run asks anew before it starts, on the goroutine that cron has started for it, so that an authority that
// hangs holds up no other entry. guard.WithReuse saves the question, and says what it gives up. A run of the
// job is asked about once an interval while it goes on, whatever its length.
//
// # How to use it
//
//	c := cron.New(cron.WithLocation(time.UTC), cron.WithChain(cronwrap.SkipIfStillRunning(logger)))
//	cronwrap.Add(c, "30 2 * * *", cronwrap.Job(g, device, backup, cronwrap.WithName("backup")))
//	c.Start()
//	...
//	err := cronwrap.Stop(ctx, c)
//
// Why each line is as it is:
//
//   - Schedule in UTC. In a zone whose clocks change a job at 02:30 has no tick in one night and, depending on the
//     zone, two in another. What a job does once for each tick it should key by Scheduled.
//   - Use SkipIfStillRunning of this package where runs must not overlap: cron's own keeps its token after a panic, and
//     cron.DelayIfStillRunning lets the ticks of a denial pile up behind a run that waits to be caught up, and runs
//     all of them after it.
//   - Give the Job to Add, rather than New to cron.WithChain: Entry.Job.Run goes round cron's chain. New belongs
//     last in a chain, so that what outside of it skips a tick does so before the authority is asked.
//   - Stop with Stop: cron's own cancels nothing. Its ctx is one that has not ended, not that of the signal.
//
// # What it does not promise
//
// It does not end a job that ignores its context, nor any plain job: such a one is waited for, and its
// run counts until it returns. It remembers nothing beyond the process: a tick that was missed because the process
// was down is missed. A tick that was stopped and is caught up begins anew; how far it had come is for the job to know.
//
// Whether a run is a tick or by hand is known by the goroutine that it is on, which cron starts for each tick. A
// wrapper that runs its job on another makes a run by hand of it, which has no Scheduled time and is not caught up. And
// a job that calls the Run of another should do so with «go»: on the goroutine of its own tick, the call counts as a
// tick of that other job.
package cronwrap

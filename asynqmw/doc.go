// Package asynqmw guards hibiken/asynq: a task is handled only while an authority allows its device, and
// its handler is told to stop when the authority no longer does. A denial loses no task, spends none
// of its retries, and never has two copies of it run. New is the middleware, Configure prepares the
// server's Config for it, Serve goes without both and fetches nothing while its device is denied.
//
// It is what returning an error from a middleware would be, had asynq an error that means «not now»: an
// error that IsFailure does not count is retried without a cost, but on the last attempt asynq archives
// the task whatever it is given, and SkipRetry and RevokeTask do so at once. Hence
//
//	             refused, or stopped and its handler has returned
//	                                 │
//	     retries left ───────────────┴─────────────── the last attempt, or MaxRetry(0)
//	          │                                                    │
//	goes back to its queue                              held on its goroutine until
//	not before Retry-After or the     ┌──────────────────┬─────────┴─────────┬─────────────────────┐
//	interval, with jitter             allowed            the server's        its own deadline, or
//	                                  handled now        Shutdown            WithMaxHeld others
//	                                                     requeued            archived, and put back
//	                                                                         by WithInspector
//
// A handler that was stopped is waited for before the task goes back or is held: so no second copy
// begins beside the first. What it returns then, nil, an error or a panic, counts neither as success nor
// as failure. A guard that was closed refuses like an authority, only that all its tasks are held: they are for
// the next process.
//
// # What to know
//
//   - A held task keeps its worker: one goroutine, its lease renewed by asynq's heartbeat, and no other
//     traffic. Held tasks of a device share the guard's question, one an interval. So that they do not take all
//     of a server's Concurrency from other devices, use WithMaxHeld, or Serve.
//   - Every task has an end of its own: without a Timeout or a Deadline asynq gives it 30 minutes. Without WithInspector
//     a denial that lasts longer leaves a held task in the archive. With it, a held task is let go when half of
//     its time is over, to have all of it once it is put back, if that half is longer than the wait in the archive.
//   - What is held when a process is killed, or loses Redis for longer than its lease of 30 seconds, asynq's recovery archives, as
//     any task on its last attempt. What is parked in the archive is safe from that: WithInspector and WithMaxHeld(0).
//     To asynq's statistics each time that a task is parked is a failure.
//   - A refused task that goes back is fetched and refused again, about once an interval, and for ever: also one whose
//     device does not exist, as asynq's inspection shows. A process that is one device is better served by Serve, which fetches
//     nothing meanwhile. An absolute Deadline that comes while a task is away is asynq's: it spends the task's retries.
//   - MiddlewareFuncs of a ServeMux are called in the order given. New goes inside of what logs or traces, and
//     outside of what has effects. A task type that nobody handles passes it too.
//   - The task's own end is asynq's: at its Timeout or Deadline, at CancelProcessing and when its lease is lost asynq ends
//     the attempt without waiting for the handler, and counts a failure, held or not. A task whose Deadline is over is archived by
//     asynq before it comes here, also one that was put back. So is a panic of a DeviceFunc asynq's.
//   - Until ShutdownTimeout is over asynq does not requeue what is held: it should be shorter than what is left to a task
//     of its Timeout.
//   - For a GroupAggregator guard the task that it makes, in the handler: it has to give it the
//     header of the device itself. It must not panic, and can decline nothing.
//
// # What is not promised
//
// Tasks may be handled more than once: asynq itself hands a task that has retries left out again after a crash, and a handler
// that was stopped is called again from its beginning. A handler that does not obey its context goes on, and its
// task with it. While asynq shuts down, a held task that is allowed in the very moment in which asynq requeues
// it begins, and is told to stop at once. RunTask does not look whether a task is still in the archive: of two processes
// that put one back in the same millisecond the later may have it handled again. What middleware outside of New makes of a
// refusal is not known to Configure unless it wraps it.
package asynqmw

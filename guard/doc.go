// Package guard is the order in which a request is made safe, and the plain stages of it.
//
// Begin with [Pipeline]: a struct whose field order is the order of the stages.
//
//	deadlines := guard.NewDeadlines(guard.DeadlineConfig{})
//	defer deadlines.Close()
//	h := guard.Pipeline{
//		Trace:    guard.Trace(guard.TraceConfig{Logger: log}),
//		Recover:  guard.Recover(log),
//		Shape:    guard.Shape(guard.ShapeConfig{}),
//		Deadline: deadlines.Middleware,
//		Identify: verifier.Middleware(identity.Door{}),
//		Quota:    limiter.Middleware(caller),
//	}.Then(api)
//
// The surprise: from Deadline inwards the handler runs in another goroutine than the connection's, so
// that a 504 can be sent on time even when the handler ignores its context. What it writes after that
// is refused with [http.ErrHandlerTimeout] and never reaches the client. Handlers that end soon after their
// context does need not pay for that: see [DeadlineConfig].Cooperative.
package guard

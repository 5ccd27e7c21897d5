// Package health answers the three questions that people and machines ask of a running process:
// is everything it leans on well (/health), is the process itself alive (/health/live, /livez), and
// should it be sent traffic (/health/ready, /readyz).
//
// Begin with [New], keep [Health.Run] running for as long as the process serves, and put
// [Health.Middleware] in front of everything else:
//
//	h, err := health.New(health.Config{Checks: []health.Check{
//		health.Database(pool.Ping, nil),
//		health.Disk("./var", 256<<20, 1000),
//	}})
//	go h.Run(ctx)
//	handler := h.Middleware(api)
//	// ... once all listeners are bound:
//	h.Open()
//	// ... on SIGTERM, before anything else is closed:
//	h.Drain()
//
// The surprise: no request ever runs or waits for a check. Checks run in the background, once an
// interval; a request reads the newest results, and results that are too old count as failed. So
// a thousand probes a second cost the database one statement a second, a check that hangs cannot
// hang a probe, and a process whose Run has ended says 503.
package health

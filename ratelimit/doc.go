// Package ratelimit decides who may go on now, and when to come back.
//
// Begin with [New] and [Limiter.Middleware], or without HTTP with [Limiter.Allow]:
//
//	limiter, err := ratelimit.New(ratelimit.Config{PerUser: ratelimit.Rate{Limit: 100, Window: time.Minute}})
//	...
//	handler = limiter.Middleware(func(r *http.Request) ratelimit.Caller { ... })(handler)
//
// The surprise: a limit is exact. Every admission is remembered until its window has passed, so
// no window of that length, wherever it begins, ever holds more than the limit, and request 101
// is refused whether the first hundred came in a burst or over 59 seconds. Token buckets and fixed
// windows are smaller and break one promise or the other. A request that is refused is not
// remembered: knocking does not lengthen the wait.
//
// A [Limiter] is the policy: who is charged for what. A [Store] keeps the logs: [Memory] in this
// process, the one of ratelimit/valkey for several instances. The two meet in [Charge]: one decision is
// a list of charges that are admitted together or not at all.
//
// When a shared store fails the limiter decides alone, from a log that knows what this process
// admitted before, with the limits divided by the number of instances. Five failures within a second
// and it stops asking; [Limiter.Run] finds out when the store is back, and [Limiter.Status] tells.
package ratelimit

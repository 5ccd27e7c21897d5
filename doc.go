// Package gantry is the map of a module that takes an HTTP API to production.
//
// One binary, cmd/gantry, is made of packages that can each be used alone:
//
//   - guard: the order in which a request is made safe, and the plain stages of it
//   - identity: a bearer token becomes a Principal, or a 401
//   - ratelimit: who may go on now, and when to come back
//   - proxy: forwards to an upstream, hardened
//   - health: alive, ready, healthy
//   - users: a users service, with its stores
//   - cache: values that are loaded once and kept for a while
//   - clerk: what Clerk's keys say
//   - problem: RFC 9457, the one way Gantry says no
//   - audit: measures whether a running API is ready; audit/probes is what it asks, audit/report what it prints
//   - secret: judges keys
//
// ARCHITECTURE.md walks one request through them. The surprise: features never import one another;
// they meet as funcs in internal/server, and imports_test.go fails when one forgets.
package gantry

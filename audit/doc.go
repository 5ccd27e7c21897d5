// Package audit measures whether a running HTTP API is ready for production.
//
// Begin with [Run]: it takes a [Target], a list of [Probe] values (audit/probes holds the catalogue) and
// a [Config], and returns a [Report] whose [Score] is a pure function of the findings.
//
// The surprise: a probe never judges on a status code alone, and "not tested" never counts as a pass. The
// run calibrates what a valid, a missing and a garbage credential look like before anything is judged,
// repeats every failure, and leaves what it could not prove in the denominator.
package audit

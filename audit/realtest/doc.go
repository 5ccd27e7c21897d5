// Package realtest holds the audit to servers that nobody here wrote: what it says of them must be true, argued probe by
// probe, and the same twice.
//
// Begin with a test such as TestNginxThatServesSecretFiles and its table of outcomes. The surprise: the package is tests
// only, and they install what they audit, with apt, npm or the Go tool, into a cache that the next run finds; where
// that cannot be done they are skipped with the reason.
package realtest

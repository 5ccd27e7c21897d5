// Package rollout decides how much of the traffic a new version gets, and when it has proven itself
// or must go.
//
// Begin with [Start], which makes a [Launch] of a [Plan]; have a [Splitter] choose the version of each
// request and count what came of it, and hand the sum of all instances to [Next] every few seconds. For
// two handlers of one process [Split] does the first half. Next and the commands of an operator
// ([Launch.Pause], [Launch.Abort], ...) return the launch as it is from then on and the [Record] to
// write down first. [Replay] makes the launch again from its records.
//
// All that decides is a value: nothing but Split reads a clock, and nothing waits or talks to anyone.
// The surprise: silence is no evidence. A candidate without traffic is neither promoted nor blamed, it is
// [Inconclusive], and a limit of 0.1 % takes 2,995 clean requests to prove.
package rollout

// Package fleet makes one launch of many instances.
//
// Begin with [New] and [Fleet.Run] on each instance: it follows the journal in a [Store] and puts each new
// weight in force within two seconds, publishes what its own traffic came to once a second, and one of
// the instances, by a lease, judges the sum of all every five seconds. A decision is written first and
// then obeyed, by the one that made it as well: by reading it in the journal. Compare and swap on the
// end of the journal lets one of many decisions win, and a crash loses none.
//
// The surprise: nobody needs the store to keep its word. While it is away weights stay as they are, and an
// instance whose candidate is plainly down goes back to stable by itself. A journal that cannot be read,
// on the other hand, sends everyone to stable, until a new launch or an abort puts it aside.
package fleet

// Package valkey lets the caches of several instances share what they loaded, through Valkey or Redis
// (6.2 or later), and never give an old value after a write has returned.
//
// Begin with [New], and give what it returns to the loaders:
//
//	options, err := valkey.ParseURL("valkey://cache:6379")
//	store, err := valkey.New(ctx, options, valkey.Config{})
//	defer store.Close(ctx)
//	users, err := cache.NewLoader(load, cache.Config{Far: store, Name: "users"})
//
// # How it stays right
//
// Every key holds a random generation before its value. A loader reads the generation, loads, and stores
// only if the generation is still there; a writer deletes the key; who gives a value
// compares the generation with that in Valkey at that moment. Nothing counts, so a server that comes
// back empty, or has evicted keys, only causes loads.
//
// Generations alone do not help when a writer cannot reach Valkey. So each instance holds a lease there,
// one second long and renewed five times in that. An instance uses the cache only while the leases of all
// are sure to run, by its own clock. A writer whose invalidation fails tries again until its own lease has
// run out for certain: then nobody uses the cache any more, and the write may return. Whoever comes first
// afterwards finds the lapsed lease and begins a new epoch: the keys of the old one are
// never read again, and the new one is used a grace of one and a half seconds later, when the others are
// back. A server with another run id (restarted from a snapshot, or a replica that was promoted) begins
// a new epoch as well.
//
// # The guarantee and its limits
//
// After Invalidate has returned on one instance, no instance gives a value loaded before it, also while Valkey is
// killed, restarted empty or from a snapshot, stopped and resumed, read-only or out of memory. The price is
// that a write may take up to three seconds at the begin of an outage or just after one; and that the
// cache is not used for some two seconds after an instance has died. Reads never wait longer than
// Config.Timeout for Valkey. The limits, within which a value may be old until its TTL ends at most:
//
//   - An instance that alone has lost Valkey for longer than the grace, while the others have not, writes on.
//     What it writes is seen by the others when their entries expire, or when it is back: that begins a
//     new epoch.
//   - Clocks: the leases rest on the server's clock not being set back, and on those of all machines
//     running at one speed to a percent, during a second or two.
//   - A primary that is cut off but still answers some of the instances, while a replica is promoted for the
//     others. Set min-replicas-to-write, or use one server.
//   - In a cluster, a node without the leases that is replaced by a replica which missed the last
//     invalidations.
//   - Relaxed loaders miss the writes of other instances for as long as a push message takes, and
//     at most for the length of a lease when the connection is dead without a sign.
//
// # What the server must allow
//
// RESP3. An ACL user needs its prefix and these commands:
//
//	user gantry on >secret ~gantry:cache:* resetchannels -@all +hello +auth +ping +client|tracking
//	     +client|setname +select +info +time +eval +evalsha +get +set +getrange +del +pttl +pexpire +hgetall +hset +hdel
//
// and in a cluster +cluster|slots and +cluster|shards. Each key stands alone, so any slot will do.
//
// The surprise: nothing is deleted when things go wrong. Whole epochs are left behind, and expire.
package valkey

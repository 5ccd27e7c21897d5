// Package valkey keeps the logs of the rate limiter in Valkey, or Redis from 6.2 on, for many
// instances to share.
//
// Begin with a client and [New], and give the store to [ratelimit.New]:
//
//	client, err := driver.NewClient(valkey.Tuned(option))
//	...
//	store, err := valkey.New(client, valkey.Config{})
//	...
//	limiter, err := ratelimit.New(ratelimit.Config{Store: store})
//
// A decision over all its charges is one script and one round trip. Time is the server's: no
// instance sends its own. Every key lies in one slot of a cluster, by the hash tag {gantry:rl}, so
// that user and global are one atomic decision; the price is that one primary does all of this work,
// some 100,000 decisions a second. Every key expires a second after its last admission has left the
// window.
//
// The surprise: a server with a maxmemory-policy other than noeviction may throw logs away, which
// resets limits and tells nobody. [Store.Check] finds that out. Replication is asynchronous, so a
// failover forgets the admissions that had not reached the replica: as many more may pass.
//
// Keys are hashed: whoever reads the server sees no user, address or token in them.
//
// With access control the server's user needs this and no more; the last line is for Check and may
// be left out, and so may CLUSTER without a cluster:
//
//	ACL SETUSER gantry on >PASSWORD resetchannels ~{gantry:rl}:*
//	  +eval +evalsha +time +lindex +llen +ltrim +rpush +pexpire
//	  +zadd +zremrangebyscore +zcard +expire +ping
//	  +cluster|slots +cluster|shards
//	  +info +config|get
package valkey

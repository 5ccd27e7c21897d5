// Package cache keeps answers near, so that the database is asked less often.
//
// Begin with [NewLoader], which wraps the func that fetches, and call [Loader.Invalidate] after every
// write:
//
//	users, err := cache.NewLoader(store.User, cache.Config{TTL: time.Minute})
//	user, err := users.Get(ctx, key) // any comparable type: struct{ tenant, id string }
//	// ...
//	err = store.Update(ctx, user)
//	users.Invalidate(key) // whether or not err is nil
//
// [Memory] is a plain bounded store of bytes with expiry.
//
// The surprise: there is no way to put a value into a Loader. Two writers that each put what they wrote
// can do so in the other order than they committed, and the older value stays. Invalidate
// cannot go wrong that way: a load that began before it is never kept, and nobody who comes after it
// is given that load's value. So a caller who has written reads what he wrote.
package cache

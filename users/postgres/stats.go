package postgres

import "time"

// Stats says how the pool is used. Counts are since Open.
type Stats struct {
	Max, Total, InUse, Idle int
	// Waiting calls have asked for a connection and have none yet.
	Waiting int
	// Acquired connections, and the time that was waited for them.
	Acquired    int64
	AcquireTime time.Duration
	// Delayed is how many of them had to wait because none was free.
	Delayed int64
	// Exhausted is how many waited in vain.
	Exhausted int64
	// Retries of transactions and reads.
	Retries int64
	// Made connections, and those that ended by age.
	Made, Expired int64
}

// Stats of the moment; it asks nobody.
func (s *Store) Stats() Stats {
	p := s.pool.Stat()
	return Stats{
		Max: int(p.MaxConns()), Total: int(p.TotalConns()), InUse: int(p.AcquiredConns()), Idle: int(p.IdleConns()),
		Waiting: int(s.waiting.Load()), Acquired: p.AcquireCount(), AcquireTime: p.AcquireDuration(),
		Delayed: p.EmptyAcquireCount(), Exhausted: s.exhausted.Load(), Retries: s.retries.Load(),
		Made: p.NewConnsCount(), Expired: p.MaxLifetimeDestroyCount(),
	}
}

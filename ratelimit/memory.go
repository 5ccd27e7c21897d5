package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync/atomic"
	"time"
)

// The defaults of [MemoryConfig].
const (
	DefaultMaxKeys  = 1 << 20
	DefaultMaxBytes = 256 << 20
)

// MemoryConfig bounds a [Memory]. The zero value is the default.
type MemoryConfig struct {
	// MaxKeys is how many logs are kept at once. Default 1,048,576.
	MaxKeys int
	// MaxBytes is how much memory all logs may use, about: what is counted are stamps, entries
	// and their index. Default 256 MiB; a log that holds 100 stamps takes some 900 bytes, one with
	// a single stamp 40.
	MaxBytes int64
	// Now tells the time. Nil is the monotonic clock, which no change of the wall clock moves. A
	// clock that steps back is held at the newest stamp of each log.
	Now func() time.Time
}

// Validate returns every fault of c.
func (c MemoryConfig) Validate() error {
	var faults []error
	if c.MaxKeys < 0 {
		faults = append(faults, errors.New("MaxKeys: is negative"))
	}
	if c.MaxBytes < 0 {
		faults = append(faults, errors.New("MaxBytes: is negative"))
	}
	return errors.Join(faults...)
}

// Memory is the exact [Store] of one process. It never fails.
//
// Keys are told apart by a 64-bit hash of policy and key, seeded afresh in each process. Two of a
// million live keys fall together with a chance of 1 in 37 million, and then share one log: they
// are counted together, which refuses early and never admits too much.
//
// At the bound of keys or bytes nothing is evicted, because whoever could push others out could
// reset their own or anybody's count: a charge that cannot be recorded is refused, with
// [Decision.Full], until old logs expire. Who has a log with room goes on as before. Only an
// admission adds a key, so behind a limit on everybody, as [Limiter] has it, the bound is out of
// reach while windows are about as long as that limit's.
//
// Logs that have expired are reclaimed a few at a time by the calls themselves; there is no
// goroutine to stop.
type Memory struct {
	maxKeys, maxBytes int64
	clock             func() time.Time
	start             time.Time
	policies, names   maphash.Seed
	shards            []shard

	keys, bytes atomic.Int64
	tick, turn  atomic.Int64
}

const (
	shardBits = 8
	shards    = 1 << shardBits

	// Steps of a shard's hand: for each new key, so that reclaiming outpaces any flood; at the
	// bound; and once a tick for a shard in turn, so that a flood that has passed is reclaimed by
	// whatever traffic remains.
	stepsPerKey  = 4
	stepsAtBound = 64
	stepsPerTick = 64
	tickBits     = 20 // nanoseconds: about a millisecond
)

// NewMemory returns an empty store.
func NewMemory(cfg MemoryConfig) (*Memory, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m := &Memory{
		maxKeys: int64(cfg.MaxKeys), maxBytes: cfg.MaxBytes, clock: cfg.Now, start: time.Now(),
		policies: maphash.MakeSeed(), names: maphash.MakeSeed(), shards: make([]shard, shards),
	}
	if m.maxKeys == 0 {
		m.maxKeys = DefaultMaxKeys
	}
	if m.maxBytes == 0 {
		m.maxBytes = DefaultMaxBytes
	}
	if m.clock != nil {
		m.start = m.clock()
	}
	return m, nil
}

// Stats is what a [Memory] holds.
type Stats struct {
	Keys  int64 // logs, expired ones that are not reclaimed yet included
	Bytes int64 // memory of the logs, about
}

// Stats returns what m holds now.
func (m *Memory) Stats() Stats { return Stats{Keys: m.keys.Load(), Bytes: m.bytes.Load()} }

// Take implements [Store]. The only error is [ErrCharges].
func (m *Memory) Take(_ context.Context, charges []Charge) (d Decision, err error) {
	err = m.decide(charges, true, &d)
	return d, err
}

// Peek implements [Store]. The only error is [ErrCharges].
func (m *Memory) Peek(_ context.Context, charges []Charge) (d Decision, err error) {
	err = m.decide(charges, false, &d)
	return d, err
}

// decide is a decision from beginning to end.
func (m *Memory) decide(charges []Charge, record bool, d *Decision) error {
	a := ask{m: m, charges: charges}
	if err := a.open(); err != nil {
		return err
	}
	a.lock()
	now := a.judge(d)
	if d.Allowed && record && !a.record(now) {
		d.Allowed, d.Full, d.Wait = false, true, a.fullWait(now)
	}
	a.unlock()
	a.fill(d, now, record)
	m.tidy(now)
	return nil
}

// observe records admissions that another store made, whatever this one would have said.
func (m *Memory) observe(charges []Charge) {
	a := ask{m: m, charges: charges}
	var d Decision
	if a.open() != nil {
		return
	}
	a.lock()
	now := a.judge(&d)
	a.record(now)
	a.unlock()
	m.tidy(now)
}

func (m *Memory) now() int64 {
	if m.clock == nil {
		return int64(time.Since(m.start))
	}
	return int64(m.clock().Sub(m.start))
}

// hash names a log. Policy and key are hashed apart, so no joining of the two can be ambiguous.
func (m *Memory) hash(c *Charge) uint64 {
	return maphash.String(m.policies, c.Policy) ^ maphash.String(m.names, c.Key)
}

// tidy lets the first call of each tick sweep a little of one shard.
func (m *Memory) tidy(now int64) {
	tick := now >> tickBits
	last := m.tick.Load()
	if tick == last || !m.tick.CompareAndSwap(last, tick) {
		return
	}
	s := &m.shards[m.turn.Add(1)&(shards-1)]
	if s.mu.TryLock() {
		m.free(s.sweep(stepsPerTick, now))
		s.mu.Unlock()
	}
}

func (m *Memory) free(keys, bytes int64) {
	if keys != 0 {
		m.keys.Add(-keys)
		m.bytes.Add(-bytes)
	}
}

// ask is one decision in the making. It lives on the stack.
type ask struct {
	m       *Memory
	charges []Charge
	locks   [MaxCharges]uint8 // shards in ascending order, each once
	nlocks  int
	logs    [MaxCharges]struct {
		hash uint64
		*entry
		verdict
	}
}

// open checks the charges and names their logs.
func (a *ask) open() error {
	m, charges := a.m, a.charges
	if len(charges) == 0 || len(charges) > MaxCharges {
		return fmt.Errorf("%w: %d of them", ErrCharges, len(charges))
	}
	for i := range charges {
		if err := charges[i].Rate.Validate(); err != nil {
			return fmt.Errorf("%w: policy %s: %w", ErrCharges, charges[i].Policy, err)
		}
		hash := m.hash(&charges[i])
		for j := range i {
			if a.logs[j].hash == hash {
				return fmt.Errorf("%w: policies %s and %s name one log", ErrCharges, charges[j].Policy, charges[i].Policy)
			}
		}
		a.logs[i].hash = hash
		a.addLock(uint8(hash >> (64 - shardBits)))
	}
	return nil
}

// addLock keeps locks sorted: everybody locks in the same order, so nobody waits in a circle.
func (a *ask) addLock(shard uint8) {
	i := a.nlocks
	for i > 0 && a.locks[i-1] > shard {
		i--
	}
	if i > 0 && a.locks[i-1] == shard {
		return
	}
	copy(a.locks[i+1:], a.locks[i:a.nlocks])
	a.locks[i] = shard
	a.nlocks++
}

func (a *ask) lock() {
	for _, i := range a.locks[:a.nlocks] {
		a.m.shards[i].mu.Lock()
	}
}

func (a *ask) unlock() {
	for _, i := range a.locks[:a.nlocks] {
		a.m.shards[i].mu.Unlock()
	}
}

func (a *ask) shard(i int) *shard { return &a.m.shards[a.logs[i].hash>>(64-shardBits)] }

// judge finds the logs and decides. The clock is read under the locks, so that stamps are in the
// order of the admissions.
func (a *ask) judge(d *Decision) (now int64) {
	now = a.m.now()
	for i := range a.charges {
		l := &a.logs[i]
		if l.entry = a.shard(i).find(l.hash); l.entry != nil {
			now = max(now, l.newest)
		}
	}
	d.Allowed = true
	for i := range a.charges {
		l, r := &a.logs[i], a.charges[i].Rate
		l.verdict = l.entry.judge(r, now)
		if l.live >= r.Limit {
			d.Allowed = false
			d.Wait = max(d.Wait, time.Duration(l.until-now)+r.Window)
		}
	}
	return now
}

// record adds the admission to every log, or to none when there is no room: then it returns false.
func (a *ask) record(now int64) bool {
	if !a.room() {
		a.sweep(stepsAtBound, now)
		if !a.room() {
			return false
		}
	}
	for i := range a.charges {
		a.recordIn(i, now)
	}
	return true
}

// room says whether all logs can take one more stamp. Calls on other shards may fill it meanwhile;
// what they overshoot together is a stamp or two each.
func (a *ask) room() bool {
	var keys, bytes int64
	for i := range a.charges {
		if e := a.logs[i].entry; e != nil {
			bytes += e.growth(a.charges[i].Rate)
			continue
		}
		keys++
		bytes += keySize
	}
	return (keys == 0 || a.m.keys.Load()+keys <= a.m.maxKeys) &&
		(bytes == 0 || a.m.bytes.Load()+bytes <= a.m.maxBytes)
}

func (a *ask) recordIn(i int, now int64) {
	m, l, s := a.m, &a.logs[i], a.shard(i)
	var bytes int64
	if l.entry == nil {
		l.entry = s.insert(l.hash)
		l.newest = now - int64(a.charges[i].Rate.Window) // idle: record starts it
		bytes = keySize
		m.keys.Add(1)
	}
	if bytes += l.record(a.charges[i].Rate, now); bytes != 0 {
		m.bytes.Add(bytes)
	}
}

// sweep reclaims in the shards that are locked. Entries found before are looked up again.
func (a *ask) sweep(steps int, now int64) {
	for _, i := range a.locks[:a.nlocks] {
		a.m.free(a.m.shards[i].sweep(steps, now))
	}
	for i := range a.charges {
		a.logs[i].entry = a.shard(i).find(a.logs[i].hash)
	}
}

// fullWait is when there may be room: at the latest when the fullest log's oldest stamp leaves,
// but other logs may expire sooner.
func (a *ask) fullWait(int64) time.Duration { return time.Second }

// fill writes the quotas.
func (a *ask) fill(d *Decision, now int64, recorded bool) {
	d.n = len(a.charges)
	for i := range a.charges {
		c, v := &a.charges[i], &a.logs[i].verdict
		q := &d.quotas[i]
		q.Policy, q.Rate, q.Hidden = c.Policy, c.Rate, c.Hidden
		switch {
		case v.live >= c.Rate.Limit:
			q.Violated = true
			q.Reset = time.Duration(v.until-now) + c.Rate.Window
			continue
		case d.Allowed && recorded && v.live == 0:
			v.oldest = now
			fallthrough
		case d.Allowed && recorded:
			v.live++
		}
		q.Remaining = c.Rate.Limit - v.live
		if v.live > 0 {
			q.Reset = time.Duration(v.oldest-now) + c.Rate.Window
		}
	}
}

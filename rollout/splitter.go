package rollout

import (
	"hash/maphash"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Splitter is the traffic side of a launch on one instance: it says which version a request goes to and
// counts what came of it. The zero Splitter is ready and sends everyone to stable. All methods may be
// called at any time from any goroutine.
//
// Choosing and counting take no lock; what they allocate is once for each caller in a launch.
type Splitter struct {
	current atomic.Pointer[inForce] // nil before the first launch
	mu      sync.Mutex              // for changing current
	serial  uint32                  // of the last epoch counted here
}

// inForce is a launch between two records. It is replaced and never changed.
type inForce struct {
	launch  Launch
	weight  BasisPoints // that of the launch, or 0 after a trip
	tripped string
	counted *counted
	callers *callers
	probes  *[2]atomic.Int32 // failed in a row, of each version
}

// counted is the counts of one epoch.
type counted struct {
	Meter
	serial   uint32 // tells it from the epochs of other launches, too
	shielded atomic.Int64
}

// Supersedes is whether l takes the place of other: a later revision of the same launch, or a launch that
// was started later.
func (l Launch) Supersedes(other Launch) bool {
	if l.ID == other.ID {
		return l.Revision > other.Revision
	}
	return l.StartedAt.After(other.StartedAt)
}

// Set puts a launch in force, unless it is one before that is, and reports which. A new epoch is counted
// from zero.
func (s *Splitter) Set(l Launch) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.current.Load()
	if before == nil {
		before = new(inForce)
	}
	if !l.Supersedes(before.launch) {
		return false
	}
	next := *before
	next.launch, next.weight, next.tripped = l, l.Weight, ""
	first := before.counted == nil || l.ID != before.launch.ID
	if first {
		next.callers, next.probes = newCallers(l.Salt), new([2]atomic.Int32)
	}
	if first || l.Epoch != before.launch.Epoch {
		s.serial++
		next.counted = &counted{serial: s.serial, Meter: Meter{epoch: l.Epoch}}
	}
	if before.tripped != "" && !decided(before.launch, l) {
		next.tripped, next.weight = before.tripped, 0
	}
	s.current.Store(&next)
	return true
}

// decided is whether something was decided between two revisions, other than to look on.
func decided(a, b Launch) bool {
	return a.ID != b.ID || a.Phase != b.Phase || a.Weight != b.Weight || a.Epoch != b.Epoch
}

// Trip sends everyone on this instance to stable, until Set brings a decision: looks of a judge that does
// not see what this instance sees do not undo it. Without a launch that goes on it does nothing.
func (s *Splitter) Trip(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.current.Load()
	if before == nil || before.launch.Phase.Over() {
		return
	}
	next := *before
	next.tripped, next.weight = reason, 0
	s.current.Store(&next)
}

// Tripped is the reason of a trip, and empty without one.
func (s *Splitter) Tripped() string {
	if f := s.current.Load(); f != nil {
		return f.tripped
	}
	return ""
}

// Weight is the share of callers that this instance sends to the candidate: that of the launch, or none
// after a trip.
func (s *Splitter) Weight() BasisPoints {
	if f := s.current.Load(); f != nil {
		return f.weight
	}
	return 0
}

// Launch is the launch in force.
func (s *Splitter) Launch() Launch {
	if f := s.current.Load(); f != nil {
		return f.launch
	}
	return Launch{}
}

// Observe is what this instance has seen in the epoch of the launch in force.
func (s *Splitter) Observe() Observation {
	f := s.current.Load()
	if f == nil {
		return Observation{}
	}
	side := func(v Version) Side {
		return Side{Counts: f.counted.Counts(v), FailedProbes: int(f.probes[v].Load())}
	}
	return Observation{Stable: side(Stable), Candidate: side(Candidate), Epoch: f.launch.Epoch}
}

// Probed records a health probe of a version: err is nil when it was fine. launch is the Launch.ID that
// the probe was begun for.
func (s *Splitter) Probed(launch string, v Version, err error) {
	f := s.current.Load()
	switch {
	case f == nil || f.launch.ID != launch:
	case err == nil:
		f.probes[v&1].Store(0)
	default:
		f.probes[v&1].Add(1)
	}
}

// Ticket is where one request goes.
type Ticket struct {
	Version Version
	Bucket  BasisPoints
	// Launch is the launch in force, nil before the first. It is shared: do not change it.
	Launch *Launch
	Mark   Mark
}

// Live is whether the launch goes on.
func (t Ticket) Live() bool { return t.Launch != nil && !t.Launch.Phase.Over() }

// Mark is what must be known of a request when it is over. The zero Mark is of one that no launch is
// interested in.
type Mark uint64

// From the low end: the bucket, the version, two flags, and which epoch it was.
const (
	bucketBits        = 14
	candidateBit      = Mark(1) << bucketBits
	uncountedBit      = candidateBit << 1
	forcedBit         = uncountedBit << 1
	serialShift       = bucketBits + 3
	bucketMask   Mark = candidateBit - 1
)

func (f *inForce) mark(v Version, bucket BasisPoints) Mark {
	return Mark(f.counted.serial)<<serialShift | Mark(v)<<bucketBits | Mark(bucket)
}

// Version is the version the request was sent to.
func (m Mark) Version() Version { return Version(m >> bucketBits & 1) }

// On is the mark of the same request to another version.
func (m Mark) On(v Version) Mark {
	if m == 0 {
		return 0
	}
	return m&^candidateBit | Mark(v)<<bucketBits
}

// Uncounted is the mark of a request that says nothing about the candidate, such as a health probe.
func (m Mark) Uncounted() Mark {
	if m == 0 {
		return 0
	}
	return m | uncountedBit
}

// Forced is the mark of a request for which somebody asked for a version: it is not counted, and not
// shielded, since its sender wants to see what that version does.
func (m Mark) Forced(v Version) Mark {
	if m == 0 {
		return 0
	}
	return m.On(v).Uncounted() | forcedBit
}

// Choose says which version a request goes to. caller is what names who sent it: its subject, else its
// cookie. Hand the Mark to [Splitter.Done] once it is known what came of the request.
func (s *Splitter) Choose(caller string) Ticket {
	f := s.current.Load()
	switch {
	case f == nil:
		return Ticket{}
	case f.launch.Phase.Over():
		return Ticket{Version: Choose(f.weight, 0), Launch: &f.launch}
	}
	bucket := f.callers.bucket(caller)
	v := Choose(f.weight, bucket)
	return Ticket{Version: v, Bucket: bucket, Launch: &f.launch, Mark: f.mark(v, bucket)}
}

// ChooseAddr is Choose for a caller of whom only the address is known. A host of IPv6 changes its address
// within a /64 as it likes (RFC 8981), and is known by that.
func (s *Splitter) ChooseAddr(addr netip.Addr) Ticket {
	if addr = addr.Unmap(); addr.Is6() {
		prefix, _ := addr.Prefix(64)
		addr = prefix.Addr()
	}
	key := addr.As16()
	return s.Choose(string(key[:]))
}

// Done counts a request, in the epoch in which it was chosen. firstByte is how long the answer, or its
// failure, took; by it o.Slow is set.
func (s *Splitter) Done(m Mark, firstByte time.Duration, o Outcome) {
	if f := s.of(m); f != nil {
		o.Slow = firstByte > f.launch.Plan.SlowAfter
		f.counted.Count(m.Version(), BasisPoints(m&bucketMask), o)
	}
}

// Broke turns a request that is already counted as fine into a failure: its answer broke off.
func (s *Splitter) Broke(m Mark) {
	if f := s.of(m); f != nil {
		f.counted.spoil(m.Version(), BasisPoints(m&bucketMask))
	}
}

// The shield may repeat this many requests in an epoch, and one in ten of those to the candidate, so that
// trouble which both versions have is not made worse by it.
const (
	shieldFirst = 100
	shieldEvery = 10
)

// Shield asks for leave to send to stable a request that the candidate has failed, be it of an epoch that
// has just ended. One that the candidate never got costs no more than any other, and has leave always.
func (s *Splitter) Shield(m Mark, sent bool) bool {
	f := s.current.Load()
	switch {
	case m == 0 || m&forcedBit != 0 || m.Version() != Candidate, f == nil || f.launch.Phase == Completed:
		return false
	case !sent:
		return true
	}
	return f.counted.shielded.Add(1) <= shieldFirst+f.counted.sides[Candidate].requests.Load()/shieldEvery
}

// of is what is in force if m counts, and in its epoch. The counts of an earlier epoch are not looked at any more.
func (s *Splitter) of(m Mark) *inForce {
	f := s.current.Load()
	if m == 0 || m&uncountedBit != 0 || f == nil || f.counted.serial != uint32(m>>serialShift) {
		return nil
	}
	return f
}

// spoil makes a failure of a request that Count was told was fine.
func (m *Meter) spoil(v Version, caller BasisPoints) {
	s := &m.sides[v&1]
	s.failed[caller].Add(1)
	s.run.extend(caller, false)
}

// callers remembers the buckets of callers, a slot each, because an HMAC costs more than all else that is
// done to choose. As many slots as a busy instance has callers keep a launch from computing one twice.
type callers struct {
	buckets *Buckets
	seed    maphash.Seed
	slots   [16 << 10]atomic.Pointer[knownCaller]
}

type knownCaller struct {
	key    string
	bucket BasisPoints
}

// keptKey bounds what the callers' slots keep; a subject has at most 255 characters (OpenID Connect Core section 2).
const keptKey = 256

func newCallers(salt []byte) *callers {
	return &callers{buckets: NewBuckets(salt), seed: maphash.MakeSeed()}
}

func (c *callers) bucket(key string) BasisPoints {
	slot := &c.slots[maphash.String(c.seed, key)%uint64(len(c.slots))]
	if known := slot.Load(); known != nil && known.key == key {
		return known.bucket
	}
	bucket := c.buckets.Of(key)
	if len(key) <= keptKey {
		slot.Store(&knownCaller{strings.Clone(key), bucket})
	}
	return bucket
}

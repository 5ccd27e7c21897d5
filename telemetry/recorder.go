package telemetry

import (
	"slices"
	"sync"
	"time"
	"unsafe"
)

// Recorder remembers the last requests, so that somebody with a request id can be told what happened. Its
// memory is fixed: a request takes a slot's place, and nothing of it is kept alive elsewhere.
//
// It has three rings. What failed or was slow has one, what the door refused another, and all other
// answers the third: at a thousand requests a second the good ones push each other out within seconds,
// and nobody asks about them, so theirs is small enough to stay in a processor's cache; a flood of 429s must not push
// out the one 500 either.
type Recorder struct {
	slow  Millis
	rings [3]ring
}

// RecorderConfig of a Recorder. The zero value of each field means its default.
type RecorderConfig struct {
	// Size is twice as many refused requests as are remembered, four times as many failed or slow ones, and sixteen
	// times as many others. Default 4096.
	Size int
	// Slow is from when on an answer counts as slow; default 500 ms.
	Slow time.Duration
}

const (
	ringFailed = iota
	ringRefused
	ringOthers
)

// NewRecorder returns an empty recorder. Its memory is taken by the system page by page as it fills.
func NewRecorder(cfg RecorderConfig) *Recorder {
	setDefault(&cfg.Size, 4096)
	setDefault(&cfg.Slow, 500*time.Millisecond)
	r := &Recorder{slow: Millis(cfg.Slow)}
	r.rings[ringRefused].slots = make([]kept, max(1, cfg.Size/2))
	r.rings[ringFailed].slots = make([]kept, max(1, cfg.Size/4))
	r.rings[ringOthers].slots = make([]kept, max(1, cfg.Size/16))
	return r
}

// Bytes is the most memory that the recorder takes.
func (r *Recorder) Bytes() int {
	n := 0
	for i := range r.rings {
		n += len(r.rings[i].slots) * int(unsafe.Sizeof(kept{}))
	}
	return n
}

// Record remembers a request that ended with o. fill says the rest of it, in place: the Request that it gets
// may hold what an older one left there, with empty lists.
func (r *Recorder) Record(o Outcome, fill func(*Request)) {
	kind := ringOthers
	switch {
	case o.Failed(), o.Duration >= r.slow && o.Status != 101:
		kind = ringFailed
	case o.refused():
		kind = ringRefused
	}
	r.rings[kind].put(o, fill)
}

// Find returns the last request of an id.
func (r *Recorder) Find(id string) (Request, bool) {
	var found []Request
	for i := range r.rings {
		found = append(found, r.rings[i].last(1, func(s *kept) bool { return s.is(id) })...)
	}
	if len(found) == 0 {
		return Request{}, false
	}
	return slices.MaxFunc(found, byEnd), true
}

// Last returns up to n requests, the newest first; with refused, only those answered 4xx by the door or 5xx.
func (r *Recorder) Last(n int, refused bool) []Request {
	var found []Request
	for i := range r.rings {
		found = append(found, r.rings[i].last(n, func(s *kept) bool {
			return !refused || s.request.refused() || s.request.Failed()
		})...)
	}
	slices.SortFunc(found, func(a, b Request) int { return byEnd(b, a) })
	return found[:min(n, len(found))]
}

func byEnd(a, b Request) int { return a.at(a.Duration).Compare(b.at(b.Duration)) }

type ring struct {
	mu    sync.Mutex
	slots []kept
	n     int // how many were ever put
}

func (r *ring) put(o Outcome, fill func(*Request)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.slots[r.n%len(r.slots)].set(o, fill)
	r.n++
}

// last returns up to n requests that keep says yes to, the newest first.
func (r *ring) last(n int, keep func(*kept) bool) (found []Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := r.n - 1; i >= max(0, r.n-len(r.slots)) && len(found) < n; i-- {
		if s := &r.slots[i%len(r.slots)]; keep(s) {
			found = append(found, s.get())
		}
	}
	return found
}

// kept is a request whose texts of the client's stand in place: as strings they would keep the whole
// buffers alive that they are parts of.
type kept struct {
	request Request
	ends    [7]uint16 // of the texts
	text    [maxTexts]byte
}

func (s *kept) set(o Outcome, fill func(*Request)) {
	s.request.Steps.Reset()
	s.request.Limits.Reset()
	fill(&s.request)
	s.request.Outcome, s.request.Panic, s.request.Stack = o, "", nil
	at := 0
	for i, text := range s.request.texts() {
		at += copy(s.text[at:], *text)
		s.ends[i] = uint16(at)
		*text = ""
	}
}

func (s *kept) get() Request {
	q, at := s.request, uint16(0)
	for i, text := range q.texts() {
		*text = string(s.text[at:s.ends[i]])
		at = s.ends[i]
	}
	return q
}

// is compares without a copy.
func (s *kept) is(id string) bool { return string(s.text[:s.ends[0]]) == id }

package guard

import (
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"math/rand/v2"
	"time"
)

// The stages that write down how long they took and what came of it.
const (
	StepShape    = "shape"
	StepDeadline = "deadline" // only when it refuses
	StepIdentity = "identity"
	StepQuota    = "quota"
	StepHandler  = "handler" // what is behind all stages; the steps after it are parts of it
	StepUpstream = "upstream"
	StepStore    = "store"
)

// Step is one part of a request's way through the door.
type Step struct {
	Name, Outcome string
	Start, End    time.Duration // since [Exchange].Start
}

// Limit is what one policy had counted when it decided about a request.
type Limit struct {
	Policy        string
	Limit, Used   int
	Window, Reset time.Duration // Reset: until Used falls, 0 when nothing is used
	Violated      bool
}

// Forward is where a request was sent on to.
type Forward struct {
	Upstream string
	Status   int // the upstream's, 0 without an answer
	Retried  bool
}

// At most so many of each are kept; as a rule a request has four steps and two or three limits.
const (
	maxSteps  = 8
	maxLimits = 6
)

// Journal is what the stages write down while a request runs: plain values, so that nobody need decide
// yet whether they will be wanted. The Trace stage lends one to each exchange and takes it back at the
// end; a handler that runs on after its 504 then finds none and writes nothing more.
type Journal struct {
	start    time.Time
	decision string
	caller   string
	notes    []slog.Attr
	began    time.Duration // when the stage under way did
	refused  bool
	steps    [maxSteps]Step
	nSteps   int
	limits   [maxLimits]Limit
	nLimits  int
	version  string
	forward  Forward
	panic    *Panic
	trace    trace
	sealed   bool // its time is over: what a handler does from here on is not what was answered
}

// reset empties j, and keeps the room for notes.
func (j *Journal) reset(start time.Time) {
	clear(j.notes)
	j.start, j.decision, j.caller, j.notes = start, "", "", j.notes[:0]
	j.began, j.refused, j.nSteps, j.nLimits, j.trace = 0, false, 0, 0, trace{}
	j.version, j.forward, j.panic, j.sealed = "", Forward{}, nil, false
}

// Write runs f on the journal, if there still is one. f must not wait.
func (x *Exchange) Write(f func(*Journal)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.journal != nil && !x.journal.sealed {
		f(x.journal)
	}
}

// Decide records the answer's reason for the log line, for example "quota:user". The last one wins.
func (x *Exchange) Decide(reason string) { x.Write(func(j *Journal) { j.Decide(reason) }) }

// Note adds attributes to the log line. At most 16 are kept.
func (x *Exchange) Note(attrs ...slog.Attr) { x.Write(func(j *Journal) { j.Note(attrs...) }) }

// stop records that a stage answers, and why.
func (x *Exchange) stop(stage, reason string) {
	x.Write(func(j *Journal) {
		j.Decide(reason)
		j.Refuse(stage, reason)
	})
}

// Decide records the answer's reason; the last one wins.
func (j *Journal) Decide(reason string) { j.decision = reason }

// Identified records who called, by pseudonym.
func (j *Journal) Identified(pseudonym string) { j.caller = pseudonym }

// Note adds attributes to the log line. At most 16 are kept.
func (j *Journal) Note(attrs ...slog.Attr) {
	if len(j.notes)+len(attrs) <= maxNotes {
		j.notes = append(j.notes, attrs...)
	}
}

const maxNotes = 16

// Step records that a stage has ended now. It began where the stage before it ended, so that one reading
// of the clock is enough for both.
func (j *Journal) Step(name, outcome string) {
	now := time.Since(j.start)
	j.add(Step{name, outcome, j.began, now})
	j.began = now
}

// Refuse is Step of a stage that turns the request away, after which others may still count it.
func (j *Journal) Refuse(name, outcome string) {
	j.refused = true
	j.Step(name, outcome)
}

// Admit records that every stage has let the request through, unless one has refused it: what the handler
// takes counts from here.
func (j *Journal) Admit() {
	if !j.refused {
		j.add(Step{Name: StepHandler, Start: j.began})
	}
}

// Outcome corrects what was recorded of a stage: a refusal's reason may be known only after another stage
// was asked about it.
func (j *Journal) Outcome(name, outcome string) {
	for i := j.nSteps - 1; i >= 0; i-- {
		if s := &j.steps[i]; s.Name == name {
			s.Outcome = outcome
			return
		}
	}
}

// Call records something that the handler asked of others and that is answered now, such as a database.
func (j *Journal) Call(name, outcome string, began time.Time) {
	j.add(Step{name, outcome, began.Sub(j.start), time.Since(j.start)})
}

// Chose records which version of the application the request is for, also for the log line.
func (j *Journal) Chose(version string) {
	j.version = version
	j.Note(slog.String("version", version))
}

// Forward records where the request went; outcome is one word.
func (j *Journal) Forward(f Forward, outcome string, began time.Time) {
	j.Call(StepUpstream, outcome, began)
	j.forward = f
}

// Count records a policy's count.
func (j *Journal) Count(l Limit) {
	if j.nLimits < maxLimits {
		j.limits[j.nLimits] = l
		j.nLimits++
	}
}

func (j *Journal) add(s Step) {
	if j.nSteps < maxSteps {
		j.steps[j.nSteps] = s
		j.nSteps++
	}
}

// Head is what a trace's sampling is decided by.
type Head struct {
	// Random is the end of the trace id, which all who take part in the trace know. Of a trace that a
	// stranger began it is a number the stranger could not choose.
	Random uint64
	// HasParent says that a trusted caller has decided; Sampled is what.
	HasParent, Sampled bool
}

// Parent is the caller's span, as its traceparent says; the zero value is none.
type Parent struct {
	TraceID, SpanID string
	Sampled         bool
}

// trace is an exchange's place in a trace.
type trace struct {
	sample  func(Head) bool // nil: tracing is off
	parent  Parent
	call    uint64 // the id of the span of the call to the upstream
	decided bool
	sampled bool
}

// join makes the exchange's ids. A valid trace of the caller goes on, whoever it is: it only makes things
// findable. Whether it is recorded is another matter, see decide.
func (x *Exchange) join(values []string, sample func(Head) bool) {
	parent := parseParent(values)
	x.TraceID = parent.TraceID
	if sample == nil {
		return
	}
	x.Write(func(j *Journal) { j.trace = trace{sample: sample, parent: parent, call: newSpanID()} })
	const trace, span = 32, 16
	var ids [trace + span]byte
	hexID(ids[trace:], newSpanID())
	if parent.TraceID != "" {
		x.SpanID = string(ids[trace:])
		return
	}
	hexID(ids[:], rand.Uint64())
	hexID(ids[span:], newSpanID())
	text := string(ids[:])
	x.TraceID, x.SpanID = text[:trace], text[trace:]
}

// newSpanID is not 0, which is no id.
func newSpanID() uint64 { return rand.Uint64() | 1 }

func hexID(to []byte, id uint64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], id)
	hex.Encode(to, b[:])
}

// decide says whether the trace is recorded. It is asked when the answer is first needed, because only
// Shape knows whose word counts: a stranger's flag, or a trace id of a stranger's choice, would let
// anybody have every request recorded at the operator's cost.
func (t *trace) decide(x *Exchange) bool {
	if t.sample == nil || t.decided {
		return t.sampled
	}
	head := Head{Random: rand.Uint64()}
	if known := t.parent.TraceID != ""; x.Trusted || !known {
		var b [8]byte
		_, _ = hex.Decode(b[:], []byte(x.TraceID[16:]))
		head = Head{Random: binary.BigEndian.Uint64(b[:]), HasParent: known, Sampled: t.parent.Sampled}
	}
	t.decided, t.sampled = true, t.sample(head)
	return t.sampled
}

// Traceparent returns the header that makes the upstream's spans children of our call to it, "" when
// tracing is off or the request is over; continued says that the caller's tracestate may go with it.
func (x *Exchange) Traceparent() (header string, continued bool) {
	x.Write(func(j *Journal) {
		if j.trace.sample == nil {
			return
		}
		flags := "-00"
		if j.trace.decide(x) {
			flags = "-01"
		}
		header, continued = "00-"+x.TraceID+"-"+j.trace.callID()+flags, j.trace.parent.TraceID != ""
	})
	return header, continued
}

func (t *trace) callID() string {
	if t.sample == nil {
		return ""
	}
	var id [16]byte
	hexID(id[:], t.call)
	return string(id[:])
}

package telemetry

import (
	"encoding/json"
	"net/netip"
	"strings"
	"time"
)

// Request is what is known of one request when it is over: what traces, Sentry and `gantry explain` are
// made of. It holds no body, no query, no header and no token. Its JSON is that of the admin API.
type Request struct {
	ID     string    `json:"id"`
	Start  time.Time `json:"time"`
	Method string    `json:"method"`
	Host   string    `json:"host"`
	Path   string    `json:"path"`
	Route  string    `json:"route"` // the pattern that matched
	Outcome
	// Client is the address; Caller is the user's pseudonym, "" for nobody.
	Client netip.Addr `json:"client"`
	Caller string     `json:"caller,omitempty"`
	// FirstByte is from the headers to the beginning of the answer, and Timeout what the request was given.
	FirstByte Millis       `json:"first_byte_ms,omitempty"`
	Timeout   Millis       `json:"timeout_ms,omitempty"`
	Written   int64        `json:"bytes"`
	Steps     Items[Step]  `json:"steps"`
	Limits    Items[Limit] `json:"limits"`
	Upstream  Upstream     `json:"upstream,omitzero"`
	// TraceID, SpanID, ParentID and CallID are those of W3C Trace Context in hex: the trace, this request's
	// span, the caller's, and that of the call to the upstream. Sampled says that the trace is recorded.
	TraceID  string `json:"trace_id,omitempty"`
	SpanID   string `json:"-"`
	ParentID string `json:"-"`
	CallID   string `json:"-"`
	Sampled  bool   `json:"sampled,omitempty"`
	// Panic and Stack are of a handler that panicked.
	Panic string `json:"-"`
	Stack []byte `json:"-"`
}

// Outcome is how a request ended.
type Outcome struct {
	Status   int    `json:"status"`
	Decision string `json:"decision,omitempty"` // why it was answered so, "" for the handler's own answer
	Duration Millis `json:"ms"`                 // from the headers to the whole answer
	Panicked bool   `json:"panicked,omitempty"`
}

// Step is one part of a request's way, in the order in which they began; those after "handler" are parts
// of it.
type Step struct {
	Name    string `json:"name"`
	Outcome string `json:"outcome,omitempty"`
	Start   Millis `json:"start_ms"`
	End     Millis `json:"end_ms"`
}

// Limit is what one policy had counted when it decided.
type Limit struct {
	Policy   string `json:"policy"`
	Limit    int    `json:"limit"`
	Used     int    `json:"used"`
	Window   Millis `json:"window_ms"`
	Reset    Millis `json:"reset_ms"` // until Used falls
	Violated bool   `json:"violated,omitempty"`
}

// Upstream is where a request was sent on to.
type Upstream struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"` // of the application, where there are two
	Status  int    `json:"status,omitempty"`  // 0 without an answer
	Retried bool   `json:"retried,omitempty"`
}

// The names of steps that are calls to others.
const (
	stepUpstream = "upstream"
	stepStore    = "store"
)

// Millis is a time that JSON shows in milliseconds.
type Millis time.Duration

// MarshalJSON implements json.Marshaler.
func (m Millis) MarshalJSON() ([]byte, error) {
	return json.Marshal(float64(time.Duration(m).Microseconds()) / 1000)
}

// UnmarshalJSON implements json.Unmarshaler.
func (m *Millis) UnmarshalJSON(b []byte) error {
	var ms float64
	err := json.Unmarshal(b, &ms)
	*m = Millis(ms * float64(time.Millisecond))
	return err
}

// Items is a short list that is kept in place, so that a Request is one piece of memory.
type Items[T any] struct {
	n    int
	list [maxItems]T
}

const maxItems = 8

// Add appends item, if there is room.
func (l *Items[T]) Add(item T) {
	if l.n < maxItems {
		l.list[l.n] = item
		l.n++
	}
}

// Reset empties the list.
func (l *Items[T]) Reset() { l.n = 0 }

// All returns the items.
func (l *Items[T]) All() []T { return l.list[:l.n] }

// MarshalJSON implements json.Marshaler.
func (l Items[T]) MarshalJSON() ([]byte, error) { return json.Marshal(l.list[:l.n]) }

// UnmarshalJSON implements json.Unmarshaler.
func (l *Items[T]) UnmarshalJSON(b []byte) error {
	var list []T
	err := json.Unmarshal(b, &list)
	l.n = copy(l.list[:], list)
	return err
}

// Failed says that the service, and not the caller, is at fault: a 5xx, a panic, or an answer that broke off
// after it had begun.
func (o Outcome) Failed() bool {
	return o.Status >= 500 || o.Panicked || o.Decision == "timeout" || o.Decision == "upstream:truncated"
}

// refused says that the door turned the request away.
func (o Outcome) refused() bool { return o.Status >= 400 && o.Decision != "" }

// name is the low-cardinality one of traces and Sentry: method and route.
func (r *Request) name() string {
	switch {
	case r.Route == "":
		return method(r.Method)
	case strings.HasPrefix(r.Route, r.Method+" "):
		return r.Route
	}
	return method(r.Method) + " " + r.path()
}

// path is the route without its method.
func (r *Request) path() string {
	if _, path, found := strings.Cut(r.Route, " "); found {
		return path
	}
	return r.Route
}

// method bounds what can be a name: the semantic conventions call all others _OTHER.
func method(m string) string {
	switch m {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT":
		return m
	}
	return "_OTHER"
}

// The longest texts of a client's own that are kept.
const (
	maxID     = 128
	maxMethod = 16
	maxHost   = 128
	maxPath   = 256
	// maxTexts is the length of all together, with an ellipsis where one was cut and the three ids of a trace.
	maxTexts = maxID + maxMethod + maxHost + maxPath + 4*len("…") + 32 + 16 + 16
)

// clone returns a copy that keeps nothing else of the request in memory: its texts are parts of larger ones.
func (r *Request) clone() *Request {
	c := *r
	for _, text := range c.texts() {
		*text = strings.Clone(*text)
	}
	return &c
}

// texts are the strings that came with the request, at the length they are kept.
func (r *Request) texts() [7]*string {
	r.ID, r.Method, r.Host, r.Path = clip(r.ID, maxID), clip(r.Method, maxMethod), clip(r.Host, maxHost), clip(r.Path, maxPath)
	return [7]*string{&r.ID, &r.Method, &r.Host, &r.Path, &r.TraceID, &r.SpanID, &r.ParentID}
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

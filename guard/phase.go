package guard

import "net/http"

// Phase is what a request is in the middle of. When its time is up, that is what took the time.
type Phase int32

// The phases, from the deadline's beginning on.
const (
	Identifying Phase = iota + 1 // finding out who calls
	Counting                     // asking the limits
	Handling                     // the handler works
	Forwarding                   // an upstream is being asked
	Receiving                    // the handler reads the client's body
	Answering                    // the client takes the answer
)

// String returns "identity", "quota", "handler", "upstream", "body" or "answer", as metrics say it, and "" for
// none.
func (p Phase) String() string {
	names := [...]string{"", "identity", "quota", "handler", "upstream", "body", "answer"}
	if p < 0 || int(p) >= len(names) {
		return ""
	}
	return names[p]
}

// Enter says that the request goes on to p. Handlers that forward call it with [Forwarding].
func (x *Exchange) Enter(p Phase) { x.entered.Store(int32(p)) }

// entering is a stage that tells what comes next.
func entering(p Phase, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if x, ok := FromContext(r.Context()); ok {
			x.Enter(p)
		}
		next.ServeHTTP(w, r)
	})
}

// phase is what the request is in the middle of, as far as that can be said without waiting for a write.
func (x *Exchange) phase() Phase {
	if x.body != nil && x.body.reading.Load() {
		return Receiving
	}
	return Phase(x.entered.Load())
}

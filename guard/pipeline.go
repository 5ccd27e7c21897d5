package guard

import "net/http"

// Middleware is the standard plug: it wraps a handler in another one.
type Middleware = func(http.Handler) http.Handler

// Pipeline is the order of the stages, outermost first. A nil stage is skipped, and any other
// middleware of the standard shape fits every slot.
type Pipeline struct {
	Trace    Middleware // counts and logs everything, refusals too
	Recover  Middleware // turns a panic into a 500
	Shape    Middleware // refuses what is malformed, strips what strangers may not say
	Deadline Middleware // 504 on time
	Identify Middleware // who calls
	Quota    Middleware // how much they may
}

// Then returns h behind the stages. Each request gets an [Exchange], found by [FromContext].
func (p Pipeline) Then(h http.Handler) http.Handler {
	stages := []Middleware{p.Trace, p.Recover, p.Shape, p.Deadline, p.Identify, p.Quota}
	phases := []Phase{4: Identifying, 5: Counting} // by stage, those behind the deadline
	h = entering(Handling, h)
	for i := len(stages) - 1; i >= 0; i-- {
		if stages[i] == nil {
			continue
		}
		if h = stages[i](h); phases[i] != 0 {
			h = entering(phases[i], h)
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := newExchange(w, r)
		defer x.scope.end()
		h.ServeHTTP(&x.out, &x.request)
	})
}

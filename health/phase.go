package health

// phase is how far the process is in its life. It only moves forward.
type phase int

const (
	starting phase = iota
	open
	draining
)

func (p phase) String() string {
	return [...]string{starting: "starting", open: "", draining: "draining"}[p]
}

// Open says that the process is able to take requests: configuration valid, listeners bound. Before
// it, readiness is 503 whatever the checks say. After [Health.Drain] it does nothing.
func (h *Health) Open() { h.advance(open) }

// Drain makes readiness 503 at once and for good. Call it first on SIGTERM and keep serving for
// as long as load balancers need to notice. /health and /health/live are not affected.
func (h *Health) Drain() { h.advance(draining) }

func (h *Health) advance(to phase) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.phase = max(h.phase, to)
	h.publish()
}

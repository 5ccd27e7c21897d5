package health

import "time"

// snapshot is what requests read: everything known, and the answers to strangers already written.
// It is replaced as a whole and never changed.
type snapshot struct {
	records       []record
	phase         phase
	health, ready view
}

// view is the answer of one endpoint, good until a monotonic time since the epoch.
type view struct {
	report Report
	body   []byte
	until  time.Duration
}

// publish makes the records and the phase visible to requests. The caller holds mu.
func (h *Health) publish() {
	s := &snapshot{records: append([]record(nil), h.records...), phase: h.phase}
	now := time.Since(h.epoch)
	s.health = h.viewHealth(s, now)
	s.ready = h.viewReady(s, now)
	h.latest.Store(s)
}

func (h *Health) viewHealth(s *snapshot, now time.Duration) view {
	report, until := h.health.judge(h.cfg.Checks, s.records, now)
	return view{report, encode(report, false), until}
}

func (h *Health) viewReady(s *snapshot, now time.Duration) view {
	report, until := h.ready.judge(h.cfg.Checks, s.records, now)
	if report.Phase = s.phase.String(); report.Phase != "" {
		report.Status = Fail
	}
	return view{report, encode(report, false), until}
}

// currentHealth is the newest answer. It is judged again only when a result in it has grown too old
// meanwhile, which takes a check loop that has stopped.
func (h *Health) currentHealth() view {
	s, now := h.latest.Load(), time.Since(h.epoch)
	if now > s.health.until {
		return h.viewHealth(s, now)
	}
	return s.health
}

func (h *Health) currentReady() view {
	s, now := h.latest.Load(), time.Since(h.epoch)
	if now > s.ready.until {
		return h.viewReady(s, now)
	}
	return s.ready
}

// HealthReport is what /health says: the state of the dependencies now. It never waits.
func (h *Health) HealthReport() Report { return h.currentHealth().report }

// ReadyReport is what /health/ready says: whether to send traffic here. It never waits.
func (h *Health) ReadyReport() Report { return h.currentReady().report }

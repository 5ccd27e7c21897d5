package server

import (
	"net/http"
	"strings"

	"github.com/gantryhq/gantry/guard"
	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/proxy"
	"github.com/gantryhq/gantry/rollout"
)

// What staff may ask for, with ADMIN_TOKEN as proof: Authorization is their own token's. The upstream gets
// neither header, from anybody.
const (
	forceHeader = "X-Gantry-Version"
	proofHeader = "X-Gantry-Admin-Token"
)

var staffHeaders = []string{forceHeader, proofHeader}

// chooseUpstream is the proxy's Choose: by the launch's bucket of the caller, unless staff want to see one
// version.
func (s *Server) chooseUpstream(r *http.Request) (*proxy.Upstream, uint64) {
	w := s.traffic.ways.Load()
	if w.launch == "" {
		return w.home.Upstream, 0
	}
	ticket := s.ticket(r)
	switch {
	case ticket.Launch == nil || ticket.Launch.ID != w.launch:
		return w.home.Upstream, 0
	case !ticket.Live():
		return w.sides[ticket.Version].Upstream, 0
	}
	m := ticket.Mark
	x, _ := guard.FromContext(r.Context())
	if v, ok := s.forced(r); ok {
		m = m.Forced(v)
	} else if s.isUncounted(x, r) {
		m = m.Uncounted()
	}
	if x != nil {
		x.Write(func(j *guard.Journal) { j.Chose(m.Version().String()) })
		x.Keep(versionHeader, versionNames[m.Version()])
	}
	return w.sides[m.Version()].Upstream, uint64(m)
}

// ticket names the caller: the verified user, else the session cookie of the application, if it is known
// which that is, else the address.
func (s *Server) ticket(r *http.Request) rollout.Ticket {
	if p, ok := identity.FromContext(r.Context()); ok {
		return s.traffic.Choose(p.Subject)
	}
	if session := cookie(r.Header["Cookie"], s.cfg.RolloutCookie); session != "" {
		return s.traffic.Choose(session)
	}
	return s.traffic.ChooseAddr(clientAddr(r))
}

// cookie is the value of the first cookie of a name (RFC 6265 section 5.4). http.Request.Cookie would
// allocate all of them.
func cookie(lines []string, name string) string {
	if name == "" {
		return ""
	}
	for _, line := range lines {
		for pair := range strings.SplitSeq(line, ";") {
			if found, value, _ := strings.Cut(strings.TrimSpace(pair), "="); found == name {
				return value
			}
		}
	}
	return ""
}

// forced is the version that a member of staff asks for. From anybody else the header means nothing.
func (s *Server) forced(r *http.Request) (rollout.Version, bool) {
	asked := r.Header[forceHeader]
	if len(asked) != 1 || !s.adminToken().Matches(r.Header.Get(proofHeader)) {
		return 0, false
	}
	for _, v := range []rollout.Version{rollout.Stable, rollout.Candidate} {
		if asked[0] == v.String() {
			return v, true
		}
	}
	return 0, false
}

// isUncounted says that a request is no evidence: its route is exempt, or it is a health probe that
// somebody sends through the door.
func (s *Server) isUncounted(x *guard.Exchange, r *http.Request) bool {
	exempt := s.policy.Load().uncounted
	return len(exempt) > 0 && x != nil && x.Route != nil && exempt[x.Route.Pattern] ||
		s.cfg.UpstreamHealthPath != "" && r.URL.Path == s.cfg.UpstreamHealthPath
}

func uncounted(routes []config.Route) map[string]bool {
	patterns := make(map[string]bool)
	for _, r := range routes {
		if r.Uncounted {
			patterns[r.Pattern] = true
		}
	}
	return patterns
}

// shield is the proxy's Shield: stable answers for the candidate, never the other way round.
func (t *traffic) shield(_ *http.Request, o proxy.Outcome) *proxy.Upstream {
	sent := o.Reason != proxy.ReasonBreaker && !o.Unreachable
	if !t.Shield(rollout.Mark(o.Mark), sent) {
		return nil
	}
	w := t.ways.Load()
	if w.launch == "" {
		return w.home.Upstream // the launch was just rolled back
	}
	return w.sides[rollout.Stable].Upstream
}

// Shared between answers: a header map takes a slice as it is.
var (
	versionHeader = []string{rollout.VersionHeader}
	versionNames  = [2][]string{{rollout.Stable.String()}, {rollout.Candidate.String()}}
)

// nameVersion is the proxy's Answer.
func nameVersion(_ *http.Request, o proxy.Outcome, client, upstream http.Header) {
	if m := markOf(o); m != 0 {
		delete(upstream, rollout.VersionHeader)
		client[rollout.VersionHeader] = versionNames[m.Version()]
	}
}

package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

// box of the deployment checklist. It is ticked when everything that it names was seen to be right, crossed when
// something was seen to be wrong, and open otherwise. Somebody may vouch for an open one, under its id.
type box struct {
	id, text string
	probes   []string // all must pass
	names    []string // of the environment file, all must be right
	point    string   // vantage point whose success shows it
}

type section struct {
	title string
	boxes []box
}

// EnvironmentPoint names the environment file among a report's vantage points, and ValkeyPoint the cache.
const (
	EnvironmentPoint = "environment file"
	ValkeyPoint      = "valkey"
)

var checklist = []section{
	{"Environment", []box{
		{id: "env-secret-key", text: "SECRET_KEY generated (50+ characters, no example values)", names: []string{"SECRET_KEY"}},
		{id: "env-clerk", text: "All Clerk credentials set", names: []string{"CLERK_SECRET_KEY", "CLERK_PUBLISHABLE_KEY"}},
		{id: "env-database", text: "DATABASE_URL configured", names: []string{"DATABASE_URL"}},
		{id: "env-valkey", text: "VALKEY_URL configured", names: []string{"VALKEY_URL"}},
		{id: "env-sentry", text: "SENTRY_DSN configured (for error tracking)", names: []string{"SENTRY_DSN"}},
		{id: "env-environment", text: "ENVIRONMENT=production", names: []string{"ENVIRONMENT"}},
		{id: "env-debug", text: "DEBUG=False", names: []string{"DEBUG"}, probes: []string{"CFG-01"}},
		{id: "env-hosts", text: "ALLOWED_HOSTS configured with production domains", names: []string{"ALLOWED_HOSTS"}},
	}},
	{"Testing", []box{
		{id: "health-200", text: "Health checks return 200 when healthy", probes: []string{"HLT-01"}},
		{id: "health-503", text: "Health checks return 503 when unhealthy", probes: []string{"HLT-02"}},
		{id: "rate-limit", text: "Rate limiting enforced (test with 101 requests)", probes: []string{"RL-01"}},
		{id: "timeout", text: "Request timeouts working (test with slow endpoint)", probes: []string{"LIM-01"}},
		{id: "jwt", text: "JWT verification working (test with valid/invalid tokens)", probes: []string{"ID-01", "JWT-01", "JWT-02", "JWT-03"}},
		{id: "pooling", text: "Database connection pooling active", probes: []string{"DAT-01", "DAT-02"}},
	}},
	{"Monitoring", []box{
		{id: "sentry", text: "Sentry configured and receiving events"},
		{id: "apm", text: "APM configured (New Relic or DataDog)", probes: []string{"OBS-02"}},
		{id: "alert-health", text: "Alerts configured for health check failures", probes: []string{"LCH-05"}},
		{id: "alert-errors", text: "Alerts configured for high error rates"},
		{id: "alert-latency", text: "Alerts configured for high latency"},
	}},
	{"Infrastructure", []box{
		{id: "load-balancer", text: "Load balancer configured"},
		{id: "load-balancer-health", text: "Health check endpoint configured in load balancer"},
		{id: "backups", text: "Database backups configured", probes: []string{"LCH-04"}},
		{id: "valkey", text: "Redis/Valkey running", point: ValkeyPoint},
		{id: "tls", text: "SSL/TLS certificates configured", probes: []string{"TRN-01", "TRN-02"}},
	}},
}

// Checklist is the deployment checklist, each box ticked [x], crossed [!] or open [ ], with its evidence.
func Checklist(w io.Writer, r audit.Report, _ Options) error {
	var b strings.Builder
	marks := map[string]int{}
	fmt.Fprintf(&b, "Deployment checklist for %s\n%s, %s\n", Plain(r.Target), r.Score.Label, grade(r.Score))
	for _, s := range checklist {
		fmt.Fprintf(&b, "\n%s\n", s.title)
		for _, c := range s.boxes {
			mark, why := c.judge(r)
			marks[mark]++
			fmt.Fprintf(&b, "- [%s] %s\n", mark, c.text)
			for _, line := range why {
				fmt.Fprintf(&b, "      %s\n", fit(line, 110))
			}
		}
	}
	fmt.Fprintf(&b, "\n%d ticked, %d crossed, %d open\n", marks["x"], marks["!"], marks[" "])
	_, err := io.WriteString(w, screen(b.String(), false))
	return err
}

// judge a box: its mark, and what it rests on.
func (c box) judge(r audit.Report) (mark string, why []string) {
	failed, missing := false, false
	for _, id := range c.probes {
		f, ok := r.Find(id)
		switch {
		case ok && f.Outcome == audit.Fail:
			failed = true
		case !ok || f.Outcome != audit.Pass:
			missing = true
		}
		if ok {
			why = append(why, fmt.Sprintf("%s %s: %s", id, f.Outcome, f.Message))
		}
	}
	environment, faults := c.environment(r)
	why = append(why, faults...)
	failed, missing = failed || environment == "!", missing || environment == " "
	if c.point != "" && !slices.Contains(r.Points, c.point) {
		missing = true
		why = append(why, "not looked at: give --observe-valkey")
	}
	switch {
	case failed:
		return "!", why
	case missing, len(c.probes)+len(c.names) == 0 && c.point == "":
		return c.vouched(r, why)
	}
	return "x", why
}

// environment judges the names of the environment file.
func (c box) environment(r audit.Report) (mark string, why []string) {
	if len(c.names) == 0 {
		return "x", nil
	}
	if !slices.Contains(r.Points, EnvironmentPoint) {
		return " ", []string{"not looked at: give --env-file"}
	}
	mark = "x"
	for _, f := range r.Findings {
		if name, ok := strings.CutPrefix(f.Probe, "ENV-"); ok && f.Outcome == audit.Fail && slices.Contains(c.names, name) {
			mark = "!"
			why = append(why, fmt.Sprintf("%s: %s", f.Where, f.Message))
		}
	}
	return mark, why
}

// vouched ticks an open box when an attestation names it.
func (c box) vouched(r audit.Report, why []string) (string, []string) {
	for _, a := range r.Attested {
		if a.ID == "checklist:"+c.id && r.Started.Before(a.Expires) {
			return "x", append(why, fmt.Sprintf("attested by %s on %s: %s", Plain(a.Owner), a.Date.Format("2006-01-02"), Plain(a.Link)))
		}
	}
	if len(why) == 0 {
		why = []string{"cannot be seen from outside: attest checklist:" + c.id + " in gantry.yaml"}
	}
	return " ", why
}

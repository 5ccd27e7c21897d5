package probes

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gantryhq/gantry/audit"
)

// logLimit is how much of a log command's output the audit keeps, in bytes; what is longer is cut at its end.
const logLimit = 64 << 10

// readLog runs the log command; nothing when there is none.
func readLog(ctx context.Context, s *audit.Session) ([]string, error) {
	if s.Hooks().Log == "" {
		return nil, nil
	}
	out, err := s.Hook(ctx, s.Hooks().Log, 20*time.Second)
	if err != nil {
		return nil, fmt.Errorf("--log-cmd: %w", err)
	}
	if len(out) >= logLimit {
		return nil, fmt.Errorf("--log-cmd prints more than %d KiB: let it print the last 100 lines only", logLimit>>10)
	}
	return strings.Split(strings.TrimSpace(out), "\n"), nil
}

// newLines are those of after that before had not, or had fewer times.
func newLines(before, after []string) []string {
	known := map[string]int{}
	for _, line := range before {
		known[line]++
	}
	var list []string
	for _, line := range after {
		if known[line]--; known[line] < 0 && strings.TrimSpace(line) != "" {
			list = append(list, line)
		}
	}
	return list
}

// awaitLog reads the log until its new lines are what is wanted, or d has passed: logs are written late.
func awaitLog(ctx context.Context, s *audit.Session, before []string, d time.Duration, wanted func([]string) bool) ([]string, error) {
	for began := time.Now(); ; {
		after, err := readLog(ctx, s)
		if err != nil {
			return nil, err
		}
		if lines := newLines(before, after); wanted(lines) || time.Since(began) > d {
			return lines, nil
		}
		if err := audit.Sleep(ctx, d/8); err != nil {
			return nil, err
		}
	}
}

func anyHas(lines []string, text string) bool {
	return slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(strings.ToLower(line), strings.ToLower(text)) })
}

// decoys are made-up secrets that a log must not hold, by what they are called.
type decoys struct{ token, password, email string }

func newDecoys(s *audit.Session) decoys {
	d := decoys{"gantry-token-" + random(12), "gantry-password-" + random(8), "gantry-" + random(8) + "@example.invalid"}
	s.Hide(d.token)
	s.Hide(d.password)
	s.Hide(d.email)
	return d
}

// found names a decoy that stands in clear in a line, or is empty.
func (d decoys) found(lines []string) string {
	switch {
	case anyHas(lines, d.token):
		return "token"
	case anyHas(lines, d.password):
		return "password"
	case anyHas(lines, d.email), anyHas(lines, url.QueryEscape(d.email)):
		return "e-mail address"
	}
	return ""
}

// logged is a request whose log lines are looked for.
type logged struct {
	x  *audit.Exchange
	id string // that was sent
}

// lines of the log that carry the request's id: the one that was sent, or the one that came back.
func (l logged) lines(log []string) []string {
	var list []string
	back := requestIDOf(l.x)
	for _, line := range log {
		if strings.Contains(line, l.id) || (len(back) >= 8 && strings.Contains(line, back)) {
			list = append(list, line)
		}
	}
	return list
}

func honestLogs(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	switch c := s.Calibration(); {
	case s.Hooks().Log == "":
		return audit.Unproven("the log cannot be read").Unlock("--log-cmd"), nil
	case !c.Tells:
		return audit.Unproven("%s", c.Why).Unlock("--token and --protected-path"), nil
	}
	before, err := readLog(ctx, s)
	if err != nil {
		return audit.Verdict{}, err
	}
	d := newDecoys(s)
	var sent [3]logged
	for i, r := range []audit.Request{refusedRequest(s, d), secretRequest(s, d), withID(s, "valid credential", "")} {
		sent[i].id = random(16)
		if r.Header == nil {
			r.Header = http.Header{}
		}
		r.Header.Set("X-Request-Id", sent[i].id)
		if sent[i].x, err = s.Do(ctx, r); err != nil {
			return audit.Verdict{}, err
		}
	}
	refused, secret, valid := sent[0], sent[1], sent[2]
	if !refused.x.Denied() || !s.Accepted(valid.x) {
		return audit.Unproven("the made-up token or the valid one was not answered as before: %s; %s", refused.x, valid.x).With(refused.x, valid.x), nil
	}
	lines, err := awaitLog(ctx, s, before, 2*s.Policy().Grace, func(log []string) bool {
		return len(valid.lines(log)) > 0 && len(refused.lines(log)) > 0
	})
	if err != nil {
		return audit.Verdict{}, err
	}
	return judgeLog(lines, d, refused, secret, valid).Measured("newLines", len(lines)), nil
}

func refusedRequest(s *audit.Session, d decoys) audit.Request {
	r := withID(s, "a made-up token", "")
	r.Token = d.token
	return r
}

// secretRequest carries a password where an API expects one: to the log-in when there is a recipe, else to any path that
// takes bodies, with no credential that could make something of it.
func secretRequest(s *audit.Session, d decoys) audit.Request {
	body := fmt.Sprintf(`{"email":%q,"username":%q,"password":%q`, d.email, d.email, d.password)
	path, _ := bodyPath(s)
	recipe, ok := s.Target().Recipes["login"]
	if ok {
		path = recipe.Path
	}
	if ok || s.Allows(audit.Active) {
		body += "}" // else it stays broken: nothing may be made of it
	}
	return audit.Request{
		Method: http.MethodPost, Path: path, Token: d.token, Body: []byte(body), Expect429: true, Label: "a made-up password",
		Header: audit.Header("Content-Type", "application/json"),
	}
}

func judgeLog(lines []string, d decoys, refused, secret, valid logged) audit.Verdict {
	own := valid.lines(lines)
	switch what := d.found(lines); {
	case what != "":
		return audit.Failed("the made-up %s stands in the log in clear", what).With(refused.x, secret.x)
	case len(lines) == 0:
		return audit.Failed("three requests wrote no line into the log that --log-cmd prints").With(refused.x, valid.x)
	case len(own) == 0:
		return audit.Failed("none of %d new lines of the log carries the request's id", len(lines)).With(valid.x).As(audit.Medium)
	case !logsRefusal(refused.lines(lines)):
		return audit.Failed("the log has a line for the valid request and none for the refused token").With(refused.x)
	}
	if missing := lacking(own, valid.x.Status); missing != "" {
		return audit.Failed("the request's line in the log %s", missing).With(valid.x).As(audit.Medium)
	}
	return audit.Passed("a JSON line each request with id, status and latency; the refused token is logged; nothing made up is in the log").With(valid.x, refused.x)
}

var refusalWords = regexp.MustCompile(`(?i)\b40[13]\b|unauth|denied|forbidden|invalid|refused|auth`)

func logsRefusal(lines []string) bool { return slices.ContainsFunc(lines, refusalWords.MatchString) }

// lacking says what the best of a request's lines has not.
func lacking(lines []string, status int) string {
	worst := "is not JSON"
	for _, line := range lines {
		start := strings.IndexByte(line, '{') // a container runtime may have put its own words before
		var object map[string]any
		if start < 0 || json.Unmarshal([]byte(line[start:]), &object) != nil {
			continue
		}
		hasStatus, hasLatency := facts(object, status, 0)
		switch {
		case hasStatus && hasLatency:
			return ""
		case hasStatus:
			worst = "has no latency"
		default:
			worst = "has no status"
		}
	}
	return worst
}

var latencyName = regexp.MustCompile(`(?i)dur|latenc|took|elapsed|_ms$|_us$|_ns$|^ms$|response_?time|request_?time|time_?taken`)

// facts looks for the status and a latency among the members of a log line, four levels deep.
func facts(object map[string]any, status, depth int) (hasStatus, hasLatency bool) {
	for name, value := range object {
		switch v := value.(type) {
		case float64:
			hasStatus = hasStatus || v == float64(status)
			hasLatency = hasLatency || latencyName.MatchString(name)
		case string:
			hasStatus = hasStatus || v == strconv.Itoa(status)
			hasLatency = hasLatency || (latencyName.MatchString(name) && strings.ContainsAny(v, "0123456789"))
		case map[string]any:
			if depth < 4 {
				a, b := facts(v, status, depth+1)
				hasStatus, hasLatency = hasStatus || a, hasLatency || b
			}
		}
	}
	return hasStatus, hasLatency
}

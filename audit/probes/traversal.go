package probes

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

const (
	traversalParams = 4 // five requests each
	traversalActive = 12
)

var (
	// passwd is the first line of /etc/passwd on any Unix.
	passwd = regexp.MustCompile(`root:[^:\s]{0,40}:0:0:`)
	// fileNames of parameters that name a file.
	fileNames = regexp.MustCompile(`(?i)file|path|dir|folder|doc|template|page|image|img|photo|avatar|asset|download|attachment|report|export|include|theme|lang|locale|view|key|name`)
)

// waysOut are spellings of the way out of a folder, as it goes over the wire.
var waysOut = []struct{ label, escaped string }{
	{"..%2f, eight times, to /etc/passwd", strings.Repeat("..%2f", 8) + "etc%2fpasswd"},
	{"%2e%2e/, eight times, to /etc/passwd", strings.Repeat("%2e%2e/", 8) + "etc/passwd"},
	{"....//, eight times, to /etc/passwd", strings.Repeat("....//", 8) + "etc/passwd"},
	{"%2fetc%2fpasswd", "%2fetc%2fpasswd"},
}

func traversal(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	spots := traversalSpots(s)
	if len(spots) == 0 {
		return audit.Unproven("no parameter is known that could name a file").Unlock("--openapi"), nil
	}
	reached, last := 0, (*audit.Exchange)(nil)
	for _, at := range spots {
		plain, err := s.Do(ctx, at.ordinary(s))
		if err != nil {
			return audit.Verdict{}, err
		}
		last = plain
		if !leadsSomewhere(s, plain) {
			continue
		}
		reached++
		for _, way := range waysOut {
			x, err := s.Do(ctx, requestOf(s.Target(), at.op, input{param: at.param, escaped: way.escaped}, at.param.Name+" = "+way.label))
			if err != nil {
				return audit.Verdict{}, err
			}
			last = x
			if passwd.Match(x.Body) && !passwd.Match(plain.Body) { // a page about Unix may always hold it
				return foundFile(ctx, s, at, x)
			}
			if x.Status == 0 || x.Status == http.StatusTooManyRequests {
				return audit.Unproven("%s got no answer that counts: %s", at.op.Path, x).With(x), nil
			}
		}
	}
	if reached == 0 {
		return audit.Unproven("no parameter leads anywhere with its own value; the last answered %s", last).With(last).Unlock("--token, or examples in the description"), nil
	}
	return audit.Passed("%d ways out of the folder on %d of %d parameters give no file", len(waysOut), reached, len(spots)).With(last), nil
}

// ordinary is a request with the value that the description gives.
func (at spot) ordinary(s *audit.Session) audit.Request {
	known := matchTemplate(at.op.Path, s.Target().ObjectA)
	value := url.PathEscape(cmp.Or(known[at.param.Name], sampleOf(at.param)))
	return requestOf(s.Target(), at.op, input{param: at.param, escaped: value}, "control: an ordinary value")
}

// leadsSomewhere says that there is a handler behind the answer. A 404 may mean that only the value is unknown: it counts
// when another described operation was seen to work, so that the description and the address belong together.
func leadsSomewhere(s *audit.Session, x *audit.Exchange) bool {
	if x.Status != http.StatusNotFound {
		return !unreached(x)
	}
	for _, seen := range s.History() {
		if !seen.OK() {
			continue
		}
		for _, op := range s.Target().Operations {
			if op.Method == seen.Request.Method && matchTemplate(op.Path, pathOnly(seen)) != nil {
				return true
			}
		}
	}
	return false
}

// foundFile makes sure that the file comes again.
func foundFile(ctx context.Context, s *audit.Session, at spot, x *audit.Exchange) (audit.Verdict, error) {
	again, err := s.Repeats(ctx, x.Request, func(y *audit.Exchange) bool { return passwd.Match(y.Body) })
	if err != nil {
		return audit.Verdict{}, err
	}
	shown := x.Noted("the body begins as /etc/passwd does; the rest is left out")
	shown.Body = passwd.Find(x.Body)
	if !again {
		return audit.Unproven("%s of %s gave /etc/passwd once and not again", at.param.Name, at.op.Path).With(shown), nil
	}
	return audit.Failed("%s of %s reads /etc/passwd", at.param.Name, at.op.Path).With(shown), nil
}

// traversalSpots: what looks like the name of a file first, then the other text in paths.
func traversalSpots(s *audit.Session) []spot {
	var likely, others []spot
	for _, op := range reads(s.Target().Operations) {
		if risky.MatchString(op.Path) {
			continue
		}
		for _, p := range takes(op) {
			switch {
			case !isText(p):
			case fileNames.MatchString(p.Name):
				likely = append(likely, spot{op: op, param: p})
			case p.In == "path":
				others = append(others, spot{op: op, param: p})
			}
		}
	}
	limit := traversalParams
	if s.Allows(audit.Active) {
		limit = traversalActive
	}
	list := append(likely, others...)
	return list[:min(len(list), limit)]
}

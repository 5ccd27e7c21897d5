package audit

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"regexp"
	"strings"
	"time"
)

// Calibration is what the target answers to a valid, a missing and a garbage credential on one path. Without a
// difference between them nothing about identity can be judged.
type Calibration struct {
	Path                    string
	Valid, Missing, Garbage *Exchange
	Tells                   bool   // valid differs from both, each time
	Why                     string // it does not tell
	Declared                bool   // the path was given as protected
	canary                  *regexp.Regexp
	silent                  error // no answer at all came to one of the requests
}

// ControlAbsent is the label of requests for names that cannot exist.
const ControlAbsent = "control: a name that cannot exist"

// searchTime bounds the search for a path that tells credentials apart; one that was begun is finished.
const searchTime = time.Minute

// garbage is a credential that no issuer made.
const garbage = "gantry.not.a-token"

// Places where APIs say who the caller is, tried when no protected path is given.
var usualPaths = []string{
	"/me", "/v1/users/me", "/v1/users/me/", "/users/me", "/api/me", "/api/users/me", "/api/v1/users/me", "/api/v1/me", "/v1/me",
	"/profile", "/api/profile", "/userinfo", "/account", "/api/account", "",
}

// calibrate asks three times with each credential, on the first path that tells them apart. Two silent paths in front
// are enough to call the target unreachable.
func (s *Session) calibrate(ctx context.Context) (*Calibration, error) {
	var first *Calibration
	began := time.Now()
	for i, p := range s.candidates() {
		c, err := s.calibrateAt(ctx, p)
		if err != nil {
			return nil, err
		}
		if c.Tells {
			return c, nil
		}
		if first == nil || first.silent != nil && c.silent == nil {
			first = c
		}
		if !s.wire.answered.Load() && i == 1 || !c.Declared && time.Since(began) > searchTime {
			break
		}
	}
	if !s.wire.answered.Load() {
		return nil, fmt.Errorf("%w: %s: %s", ErrUnreachable, s.target.Origin(), s.wire.hide.text(first.silent.Error(), 300))
	}
	return first, nil
}

func (s *Session) candidates() []string {
	if len(s.target.ProtectedPaths) > 0 {
		return s.target.ProtectedPaths
	}
	var list []string
	for _, op := range s.target.Operations {
		if op.Secured && op.Method == http.MethodGet && !strings.Contains(op.Path, "{") && len(list) < 5 {
			list = append(list, op.Path)
		}
	}
	if s.target.Token == "" && len(list) == 0 {
		return []string{""}
	}
	return append(list, usualPaths...)
}

func (s *Session) calibrateAt(ctx context.Context, p string) (*Calibration, error) {
	c := &Calibration{Path: p, Declared: len(s.target.ProtectedPaths) > 0, canary: s.target.Canary}
	for _, kind := range []struct {
		into  **Exchange
		token string
		label string
	}{
		{&c.Valid, s.target.Token, "valid credential"},
		{&c.Missing, "", "no credential"},
		{&c.Garbage, garbage, "garbage credential"},
	} {
		if kind.into == &c.Valid && kind.token == "" {
			continue
		}
		if err := s.thrice(ctx, c, kind.into, Request{Path: p, Token: kind.token, Label: kind.label}); err != nil {
			return nil, err
		}
		if c.silent != nil {
			break
		}
	}
	c.judge()
	return c, nil
}

// thrice asks three times and notes when the answers are not alike.
func (s *Session) thrice(ctx context.Context, c *Calibration, into **Exchange, r Request) error {
	for range 3 {
		x, err := s.Do(ctx, r)
		if err != nil {
			return err
		}
		if x.Status == 0 {
			c.silent, c.Why = x.Err, fmt.Sprintf("%s gives no answer (%s): %v", cleanPath(c.Path), r.Label, x.Err)
			return nil
		}
		if x.Err != nil {
			*into, c.Why = x, fmt.Sprintf("%s (%s): %v", cleanPath(c.Path), r.Label, x.Err)
			return nil
		}
		if *into != nil && (*into).Shape().Similarity(x.Shape()) < alike {
			c.Why = fmt.Sprintf("%s answers the same request (%s) differently from time to time", cleanPath(c.Path), r.Label)
		}
		*into = x
		if x.Status == http.StatusNotFound {
			break // no such path: once is enough
		}
	}
	return nil
}

func (c *Calibration) judge() {
	switch {
	case c.Why != "":
	case c.Valid == nil:
		c.Why = "no valid credential was given (--token)"
	case !c.Valid.OK():
		c.Why = fmt.Sprintf("%s answers %d to the valid credential", cleanPath(c.Path), c.Valid.Status)
	case c.canary != nil && !c.canary.Match(c.Valid.Body):
		c.Why = "the canary does not match the answer to the valid credential"
	case c.Accepted(c.Missing):
		c.Why = fmt.Sprintf("%s answers the same with and without a credential", cleanPath(c.Path))
	case c.Accepted(c.Garbage):
		c.Why = fmt.Sprintf("%s answers the same to a valid and to a garbage credential", cleanPath(c.Path))
	default:
		c.Tells = true
	}
}

func cleanPath(p string) string {
	if p == "" {
		return "/"
	}
	return clean(p)
}

// Accepted says whether x, an answer on the calibrated path, is what a valid credential gets: the same status, and
// a body at least 0.9 like it and less than 0.9 like the refusal of garbage. A canary replaces the test of the body.
func (c *Calibration) Accepted(x *Exchange) bool {
	if c == nil || c.Valid == nil || x == nil || x.Status != c.Valid.Status {
		return false
	}
	if c.canary != nil {
		return c.canary.Match(x.Body)
	}
	if x.Shape().Similarity(c.Valid.Shape()) < alike {
		return false
	}
	return x == c.Garbage || x == c.Missing || c.Garbage == nil || x.Shape().Similarity(c.Garbage.Shape()) < alike
}

// Absent says whether x is what the target answers where there is nothing: 404, 410 and their like, or the same as to
// three random siblings in that folder with that extension (a catch-all page that answers 200).
func (s *Session) Absent(ctx context.Context, x *Exchange) (bool, error) {
	if x.Status == http.StatusNotFound || x.Status == http.StatusGone || x.Status == 0 {
		return true, nil
	}
	controls, err := s.siblings(ctx, x.Request.Path)
	if err != nil {
		return false, err
	}
	for _, c := range controls {
		if x.Shape().Similarity(c.Shape()) >= alike {
			return true, nil
		}
	}
	return false, nil
}

// siblings fetches three random names beside p, once for each folder and extension.
func (s *Session) siblings(ctx context.Context, p string) ([]*Exchange, error) {
	p, _, _ = strings.Cut(p, "?")
	dir, base := path.Split(p)
	ext := path.Ext(base)
	if strings.Trim(base, ".") == strings.Trim(ext, ".") { // .env has no extension: it is hidden
		ext = ""
	}
	hidden := strings.HasPrefix(base, ".")
	key := fmt.Sprint(dir, "|", ext, "|", hidden)
	s.shared.controlsMu.Lock()
	defer s.shared.controlsMu.Unlock()
	if known, ok := s.shared.controls[key]; ok {
		return known, nil
	}
	var list []*Exchange
	for i := range 3 {
		name := dir
		if hidden {
			name += "."
		}
		x, err := s.Do(ctx, Request{Path: name + s.Nonce(i) + ext, Label: ControlAbsent})
		if err != nil {
			return nil, err
		}
		x.Shape()
		x.Body = nil // the shape is what is compared, for as long as the run lasts
		list = append(list, x)
	}
	s.shared.controls[key] = list
	return list, nil
}

package probes

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
)

func authorization() []audit.Probe {
	return []audit.Probe{
		{
			ID: "AZ-01", Title: "One user's token on another user's object", Severity: audit.Critical, Mode: audit.Safe, Category: audit.Identity,
			Sends:        "GET of B's object with A's token, and of A's with B's; before that each owner reads its own, and nobody reads both",
			Passes:       "403 or 404 in both directions",
			Fails:        "the other user's object comes back: its id is the one that the owner sees",
			Inconclusive: "two tokens and an object of each user are needed; or an object is public, or one cannot be read by its owner",
			Guard:        "the owners' own reads prove that tokens and objects are good; an object that anybody reads is not failed here; another object than the owner's is no failure",
			Knobs:        []string{"--token-b", "--object-a", "--object-b"},
			Refs:         []string{"OWASP API1:2023", "CWE-639", "ASVS 8.2.2"},
			Why:          "Any user reads everybody's data by counting ids up.",
			Fix:          "Filter by owner in the query, not after it.",
			Run:          othersObject,
		},
		{
			ID: "AZ-02", Title: "Ordinary user on an administrator's path", Severity: audit.Critical, Mode: audit.Safe, Category: audit.Identity,
			Sends:        "GET of the admin paths (given, or those of the description whose tags or path say admin, internal or manage) with the user's token, with the administrator's when given, and of a made-up path beside them",
			Passes:       "403 or 404",
			Fails:        "an answer equivalent to the administrator's",
			Inconclusive: "no admin path is known; or, without --admin-token, the path was only found by its name, or does not seem to be there",
			Guard:        "a catch-all page is told by the made-up path; a path that only looks like an administrator's is failed when that word is a segment or a tag and the administrator gets the same",
			Knobs:        []string{"--admin-path", "--admin-token"},
			Refs:         []string{"OWASP API5:2023", "CWE-285", "ASVS 8.2.1"},
			Why:          "Any user does what only administrators may.",
			Fix:          "Check the role in middleware, by group of routes.",
			Run:          adminPaths,
		},
	}
}

func othersObject(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	t := s.Target()
	const needs = "--token, --token-b, --object-a and --object-b"
	switch {
	case t.Token == "" || t.TokenB == "" || t.ObjectA == "" && t.ObjectB == "":
		return audit.Unproven("two users' tokens and an object of each are needed").Unlock(needs), nil
	case t.ObjectA == t.ObjectB:
		return audit.Unproven("--object-a and --object-b are the same").Unlock(needs), nil
	case sameUser(t.Token, t.TokenB):
		return audit.Unproven("both tokens are of the same user").Unlock("--token-b of another user"), nil
	}
	var passed audit.Verdict
	for _, d := range []direction{
		{"A's token reads B's object", t.ObjectB, t.TokenB, t.Token},
		{"B's token reads A's object", t.ObjectA, t.Token, t.TokenB},
	} {
		if d.path == "" {
			continue
		}
		v, err := d.ask(ctx, s)
		if err != nil || v.Outcome != audit.Pass {
			return v, err
		}
		passed = v.With(passed.Evidence...)
	}
	if t.ObjectA == "" || t.ObjectB == "" {
		return audit.Unproven("one direction is refused; the other needs an object of that user").With(passed.Evidence...).Unlock(needs), nil
	}
	passed.Message = "neither user reads the other's object"
	return passed, nil
}

func sameUser(a, b string) bool {
	if a == b {
		return true
	}
	x, err := jws.Parse(a)
	y, err2 := jws.Parse(b)
	sub := jws.Member(x.Payload, "sub")
	return err == nil && err2 == nil && sub != "" && sub == jws.Member(y.Payload, "sub") &&
		jws.Member(x.Payload, "iss") == jws.Member(y.Payload, "iss")
}

// direction is one user's token on another's object.
type direction struct{ label, path, owner, other string }

func (d direction) ask(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	own, err := s.Do(ctx, audit.Request{Path: d.path, Token: d.owner, Label: "control: the owner's token"})
	if err != nil {
		return audit.Verdict{}, err
	}
	if !own.OK() || saysError(own) {
		return audit.Unproven("the owner cannot read its own object: %s", own).With(own), nil
	}
	public, err := s.Do(ctx, audit.Request{Path: d.path, Label: "control: no credential"})
	if err != nil {
		return audit.Verdict{}, err
	}
	if same, _ := sameObject(own, public); same {
		return audit.Unproven("the object is public: %s", public).With(public, own), nil
	}
	x, err := s.Do(ctx, audit.Request{Path: d.path, Token: d.other, Label: d.label})
	if err != nil {
		return audit.Verdict{}, err
	}
	switch same, byID := sameObject(own, x); {
	case same && byID:
		return audit.Failed("%s: %d, the same object as the owner gets", d.label, x.Status).With(x, own), nil
	case same:
		return d.nameless(ctx, s, own, x)
	case x.Denied(), x.Status == http.StatusNotFound, x.Status < 500 && like(x, public):
		return d.alive(ctx, s, x)
	}
	return audit.Unproven("%s: neither refused nor the owner's object: %s", d.label, x).With(x, own), nil
}

// nameless judges an object without an id by whether the other user's own is another.
func (d direction) nameless(ctx context.Context, s *audit.Session, own, x *audit.Exchange) (audit.Verdict, error) {
	unproven := audit.Unproven("%s: the answer is the owner's too, but nothing in it says which object it is", d.label).With(x, own)
	path := d.ownPath(s.Target())
	if path == "" {
		return unproven, nil
	}
	theirs, err := s.Do(ctx, audit.Request{Path: path, Token: d.other, Label: "control: the other user's own object"})
	if err != nil {
		return audit.Verdict{}, err
	}
	if same, _ := sameObject(own, theirs); same || !theirs.OK() {
		return unproven, nil
	}
	return audit.Failed("%s: %d, word for word what the owner gets", d.label, x.Status).With(x, own, theirs), nil
}

// ownPath of the user whose token is used where it does not belong.
func (d direction) ownPath(t *audit.Target) string {
	if d.other == t.TokenB {
		return t.ObjectB
	}
	return t.ObjectA
}

// alive says whether the other user's token is good at all: a dead one is refused everywhere.
func (d direction) alive(ctx context.Context, s *audit.Session, x *audit.Exchange) (audit.Verdict, error) {
	path := d.ownPath(s.Target())
	if path == "" {
		path = s.Calibration().Path
	}
	y, err := s.Do(ctx, audit.Request{Path: path, Token: d.other, Label: "control: the same token where it belongs"})
	if err != nil {
		return audit.Verdict{}, err
	}
	if !y.OK() {
		return audit.Unproven("refused, but that token is refused where it belongs too: %s", y).With(x, y), nil
	}
	return audit.Passed("%s: refused (%d)", d.label, x.Status).With(x), nil
}

var (
	// identifying names members that may say which object it is.
	identifying = regexp.MustCompile(`(?i)^_?(?:id|uuid|guid|key|slug|number|ref|sku|[a-z0-9_]+(?:_id|Id|ID|_uuid))$`)
	// ownName names those that do; the others may be of what it belongs to.
	ownName = regexp.MustCompile(`(?i)\._?(?:id|uuid|guid|key|slug|number|ref|sku)$`)
)

// sameObject says whether x is the object that its owner got: like it in shape and with every id the same, or equal to
// the byte. byID says that one of the ids is the object's own: it is called so, or stands in the path.
func sameObject(own, x *audit.Exchange) (same, byID bool) {
	if !x.OK() || own.Shape().BodySimilarity(x.Shape()) < alike || len(own.Body) == 0 {
		return false, false
	}
	equal := string(own.Body) == string(x.Body)
	var a, b any
	if json.Unmarshal(own.Body, &a) != nil || json.Unmarshal(x.Body, &b) != nil {
		return equal, false
	}
	mine, seen := map[string]string{}, map[string]string{}
	ids("", a, mine)
	ids("", b, seen)
	segments := strings.FieldsFunc(own.Request.Path, func(r rune) bool { return strings.ContainsRune("/?&=", r) })
	for at, id := range mine {
		if seen[at] != id {
			return false, false
		}
		byID = byID || ownName.MatchString(at) || slices.Contains(segments, id)
	}
	return byID || equal, byID
}

// ids collects the identifying members by where they stand. What names one request is none of the object's.
func ids(at string, v any, into map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			plain := strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(name))
			volatile := plain == "requestid" || plain == "traceid" || plain == "correlationid" || plain == "spanid"
			switch member.(type) {
			case string, float64:
				if identifying.MatchString(name) && !volatile && len(into) < 100 {
					into[at+"."+name] = fmt.Sprint(member)
				}
			default:
				ids(at+"."+name, member, into)
			}
		}
	case []any:
		for i, item := range v[:min(len(v), 20)] {
			ids(fmt.Sprint(at, "[", i, "]"), item, into)
		}
	}
}

// adminPath is a path that only administrators should read.
type adminPath struct {
	path     string
	declared bool // by the operator
	plain    bool // a segment or a tag says so, in whole
}

// maxAdminPaths are tried in one run.
const maxAdminPaths = 20

func adminPaths(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	list := adminPathsOf(s.Target())
	switch {
	case s.Target().Token == "":
		return audit.Unproven("no valid credential of an ordinary user was given").Unlock("--token"), nil
	case len(list) == 0:
		return audit.Unproven("no administrator's path is known").Unlock("--admin-path and --admin-token"), nil
	}
	if err := s.Control(ctx); err != nil {
		return audit.Verdict{}, err
	}
	var open, proven audit.Verdict
	n := 0
	for _, p := range list {
		v, err := p.ask(ctx, s)
		switch {
		case err != nil || v.Outcome == audit.Fail:
			return v, err
		case v.Outcome == audit.Pass:
			proven = v
			n++
		case open.Message == "":
			open = v
		}
	}
	if open.Message != "" {
		return open, nil
	}
	proven.Message = fmt.Sprintf("%d administrator's paths refuse an ordinary user", n)
	return proven, nil
}

var (
	adminWord  = regexp.MustCompile(`(?i)admin|internal|manage`)
	adminPlain = regexp.MustCompile(`(?i)(?:^|/)(?:admins?|administration|administrator|internal)(?:/|$)`)
)

// adminPathsOf the operator and the description, each once.
func adminPathsOf(t *audit.Target) []adminPath {
	var list []adminPath
	for _, p := range t.AdminPaths {
		list = append(list, adminPath{p, true, true})
	}
	for _, op := range t.Operations {
		plain := adminPlain.MatchString(op.Path) || slices.ContainsFunc(op.Tags, adminPlain.MatchString)
		said := plain || adminWord.MatchString(op.Path) || slices.ContainsFunc(op.Tags, adminWord.MatchString)
		path, known := operationPath(op, "", false)
		if op.Method != http.MethodGet || !said || !known || slices.ContainsFunc(list, func(p adminPath) bool { return p.path == path }) {
			continue
		}
		list = append(list, adminPath{path, false, plain})
	}
	return list[:min(len(list), maxAdminPaths)]
}

func (p adminPath) ask(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	x, err := s.Do(ctx, audit.Request{Path: p.path, Token: s.Target().Token, Label: "an ordinary user's token"})
	if err != nil {
		return audit.Verdict{}, err
	}
	var admin *audit.Exchange
	if s.Target().AdminToken != "" {
		admin, err = s.Do(ctx, audit.Request{Path: p.path, Token: s.Target().AdminToken, Label: "control: the administrator's token"})
		if err != nil {
			return audit.Verdict{}, err
		}
		if !admin.OK() {
			return audit.Unproven("the administrator's token is not served there either: %s", admin).With(admin, x), nil
		}
	}
	switch {
	case x.Denied():
		return audit.Passed("%s refuses an ordinary user", p.path).With(x), nil
	case x.Status == http.StatusNotFound && (admin != nil || !p.declared):
		return audit.Passed("%s is hidden from an ordinary user", p.path).With(x), nil
	case x.Status == http.StatusNotFound:
		return audit.Unproven("%s is not there for an ordinary user; perhaps for nobody", p.path).With(x).Unlock("--admin-token"), nil
	case likeRefusal(s, x):
		return audit.Passed("%s answers an ordinary user like somebody unknown", p.path).With(x), nil
	case !x.OK() || saysError(x):
		return audit.Unproven("neither refused nor served: %s", x).With(x), nil
	}
	return p.served(ctx, s, x, admin)
}

// served judges a 2xx to an ordinary user.
func (p adminPath) served(ctx context.Context, s *audit.Session, x, admin *audit.Exchange) (audit.Verdict, error) {
	dir := x.Request.Path[:strings.LastIndexByte(x.Request.Path, '/')+1]
	made, err := s.Do(ctx, audit.Request{Path: dir + s.Nonce(0), Token: s.Target().Token, Label: "control: a name that cannot exist"})
	if err != nil {
		return audit.Verdict{}, err
	}
	switch {
	case like(x, made):
		return audit.Unproven("%s answers like a name that cannot exist", p.path).With(x, made), nil
	case admin != nil && !like(x, admin):
		return audit.Unproven("%s serves an ordinary user something else than the administrator", p.path).With(x, admin), nil
	case admin == nil && !p.declared:
		return audit.Unproven("%s looks like an administrator's path and serves an ordinary user", p.path).With(x).
			Unlock("--admin-path %s if it is one, and --admin-token", p.path), nil
	case !p.plain:
		return audit.Unproven("%s serves an ordinary user as it does the administrator; whether it is for administrators is not known", p.path).With(x).
			Unlock("--admin-path %s if it is", p.path), nil
	case admin != nil:
		return audit.Failed("%s serves an ordinary user what it serves the administrator", p.path).With(x, admin), nil
	}
	return audit.Failed("%s serves an ordinary user", p.path).With(x), nil
}

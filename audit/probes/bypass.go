package probes

import (
	"context"
	"net/http"
	"path"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

func bypass() []audit.Probe {
	return []audit.Probe{
		{
			ID: "AZ-03", Title: "Authentication bypassed by variants of path, method and header", Severity: audit.Critical, Mode: audit.Safe,
			Category: audit.Identity, NeedsCredential: true, Confirms: true,
			Sends:        "without a token: `//p`, `/./p`, `/p/`, `/P`, `/p;x`, `/p%2f`, `/x/..;/p`, `/%2e/p`; HEAD; OPTIONS (under --active POST) with `X-HTTP-Method-Override: GET`; `X-Original-URL` and `X-Rewrite-URL` naming the path, and naming another on it; `X-User-Id: 1`, `X-Forwarded-User: admin`, `X-Forwarded-For: 127.0.0.1`",
			Passes:       "all refused or 404",
			Fails:        "any answer equivalent to the valid token's",
			Inconclusive: "HEAD is answered 200 and shows no length to judge by",
			Guard:        "the body must be like the valid token's; a HEAD must show the same Content-Length as with the valid token and another than the refusal; redirects are followed on the same host only",
			Knobs:        []string{"--protected-path"},
			Refs:         []string{"CWE-289", "CWE-290", "ASVS 4.1.3"},
			Why:          "The lock and the door read the request differently, or a header that anybody can write says who calls.",
			Fix:          "Normalise the path once, at the edge; drop identity headers that come from clients.",
			Run:          bypasses,
		},
	}
}

func bypasses(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	c := s.Calibration()
	t, err := attempt(ctx, s, variants(s))
	if err != nil {
		return audit.Verdict{}, err
	}
	if t.served != nil {
		return t.verdict(ctx, s, "variants")
	}
	head, err := headAlone(ctx, s)
	if err != nil || head.Outcome != audit.Pass {
		return head, err
	}
	if t.broken != nil {
		return t.steady(ctx, s, "variants of path, method and header")
	}
	return audit.Passed("%d variants of path, method and header are refused", t.sent+1).With(t.last, c.Missing), nil
}

// variants are all requests but HEAD. Another page than the protected one is no bypass.
func variants(s *audit.Session) []audit.Request {
	p := s.Calibration().Path
	full := s.Target().URL.EscapedPath() + p
	override := http.MethodOptions
	if s.Allows(audit.Active) {
		override = http.MethodPost
	}
	list := pathVariants(p)
	for _, v := range []struct{ method, path, name, value string }{
		{override, p, "X-HTTP-Method-Override", "GET"},
		{"", "/", "X-Original-URL", full},
		{"", "/", "X-Rewrite-URL", full},
		{"", p, "X-Original-URL", "/"},
		{"", p, "X-Rewrite-URL", "/"},
		{"", p, "X-User-Id", "1"},
		{"", p, "X-Forwarded-User", "admin"},
		{"", p, "X-Forwarded-For", "127.0.0.1"},
	} {
		list = append(list, audit.Request{
			Method: v.method, Path: v.path, Header: audit.Header(v.name, v.value), Label: "no credential, " + v.name + ": " + v.value, Follow: true,
		})
	}
	return list
}

// pathVariants spell the path in ways that one part of the software may read as another path. There are none of the root.
func pathVariants(p string) []audit.Request {
	bare, query, found := strings.Cut(p, "?")
	if found {
		query = "?" + query
	}
	bare = strings.TrimSuffix(bare, "/")
	if bare == "" {
		return nil
	}
	dir, last := path.Split(bare)
	var list []audit.Request
	for _, variant := range []string{
		"/" + bare, "/." + bare, bare + "/", dir + strings.ToUpper(last), bare + ";x", bare + "%2f", "/x/..;" + bare, "/%2e" + bare,
	} {
		if variant+query == p || variant == bare {
			continue
		}
		list = append(list, audit.Request{Path: variant + query, Label: "no credential, " + variant, Follow: true})
	}
	return list
}

// headAlone judges HEAD by its length.
func headAlone(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	c := s.Calibration()
	r := audit.Request{Method: http.MethodHead, Path: c.Path, Label: "no credential, HEAD"}
	x, err := s.Do(ctx, r)
	if err != nil {
		return audit.Verdict{}, err
	}
	if !x.OK() || c.Missing.OK() { // a target that refuses with 200 shows nothing in a HEAD
		return audit.Passed("HEAD is refused").With(x), nil
	}
	with, err := s.Do(ctx, audit.Request{Method: http.MethodHead, Path: c.Path, Token: s.Target().Token, Label: "control: valid credential, HEAD"})
	if err != nil {
		return audit.Verdict{}, err
	}
	length := with.Header.Get("Content-Length")
	same := func(y *audit.Exchange) bool { return y.OK() && y.Header.Get("Content-Length") == length }
	if length == "" || length == "0" || !same(x) {
		return audit.Unproven("HEAD is answered %d without a credential, and shows no length to judge by", x.Status).With(x, with), nil
	}
	again, err := s.Repeats(ctx, r, same)
	if err != nil {
		return audit.Verdict{}, err
	}
	if !again {
		return audit.Unproven("HEAD was served once and not again").With(x), nil
	}
	return audit.Failed("HEAD without a credential is answered like one with it (%d, Content-Length %s)", x.Status, length).With(x, with, c.Missing), nil
}

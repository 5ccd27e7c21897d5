package probes

import (
	"context"
	"regexp"

	"github.com/gantryhq/gantry/audit"
)

func banners() []audit.Probe {
	return []audit.Probe{
		{
			ID: "CFG-06", Title: "Version banners and public documentation", Severity: audit.Low, Mode: audit.Passive, Category: audit.Configuration, Confirms: true,
			Sends:  "nothing for `Server`, `X-Powered-By` and their like in every answer so far; GET of /openapi.json, /swagger and /docs unless documentation is known to be public",
			Passes: "no version, and no documentation that was not meant to be public",
			Fails:  "a header names a version, or documentation is public and nobody said so",
			Guard:  "documentation is fine when --openapi is given or when it is declared",
			Knobs:  []string{"--openapi"},
			Refs:   []string{"ASVS 13.4.5", "ASVS 13.4.6", "CWE-200"},
			Why:    "Scanners look for versions with known holes and find yours in a list.",
			Fix:    "Strip banners at the edge; put documentation behind the log-in or declare it.",
			Run:    versionBanners,
		},
	}
}

var (
	bannerHeaders = []string{"Server", "X-Powered-By", "X-Aspnet-Version", "X-Aspnetmvc-Version", "X-Generator", "X-Runtime-Version"}
	bannerVersion = regexp.MustCompile(`\d+\.\d+`)
)

func versionBanners(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	var last *audit.Exchange
	for _, x := range s.History() {
		if x.Status > 0 {
			last = x
		}
		for _, name := range bannerHeaders {
			if value := x.Header.Get(name); bannerVersion.MatchString(value) {
				return audit.Failed("the header %s tells a version: %.80q", name, value).With(x), nil
			}
		}
	}
	if last == nil {
		return audit.Unproven("no answer was seen"), nil
	}
	if len(s.Target().Operations) > 0 || s.Declared() != "" {
		return audit.Passed("no header tells a version; documentation is meant to be public").With(last), nil
	}
	return publicDocs(ctx, s, last)
}

// documents are places of documentation, and what it looks like there.
func documents() []exposed {
	page := looks(`(?i)swagger-ui|redoc|rapidoc|stoplight|scalar`)
	return []exposed{
		{path: "/openapi.json", content: looks(`"(?:openapi|swagger)"\s*:\s*"\d`, `"paths"\s*:`)},
		{path: "/swagger", content: page, follow: true},
		{path: "/docs", content: page, follow: true},
	}
}

func publicDocs(ctx context.Context, s *audit.Session, last *audit.Exchange) (audit.Verdict, error) {
	for _, e := range documents() {
		x, err := s.Do(ctx, e.request())
		if err != nil {
			return audit.Verdict{}, err
		}
		if x.Status == 0 || x.Status >= 500 {
			return audit.Unproven("whether there is public documentation could not be seen: %s", x).With(x), nil
		}
		there, err := really(ctx, s, e, x)
		if err != nil {
			return audit.Verdict{}, err
		}
		if there {
			return audit.Failed("the documentation at %s is public, and nobody said that it is meant to be", e.path).
				With(x).Unlock("--openapi, or declare CFG-06"), nil
		}
		last = x
	}
	return audit.Passed("no header tells a version, and no documentation is public").With(last), nil
}

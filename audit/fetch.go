package audit

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// ErrScope says that an address is neither the target's nor one that the operator named.
var ErrScope = errors.New("outside the scope of the audit")

// Fetch reads a public document by its whole URL: on the target's origin, whatever its base path, or on one that the
// operator named (the key set, the metrics) or that is the audit's own (the harness). No credential goes along, no
// redirect is followed, and what comes from outside the target's base is kept out of the history. Any other origin is
// ErrScope.
func (s *Session) Fetch(ctx context.Context, address, label string) (*Exchange, error) {
	u, err := url.Parse(address)
	if err != nil || u.User != nil || !slices.Contains(s.named(), originOf(u)) {
		return nil, fmt.Errorf("%w: %s", ErrScope, cut(clean(address), 200))
	}
	if path, below := strings.CutPrefix(u.RequestURI(), s.target.URL.EscapedPath()); below && originOf(u) == s.target.Origin() {
		return s.Do(ctx, Request{Path: path, Label: label})
	}
	if err := s.wire.pace.wait(ctx); err != nil {
		return nil, err
	}
	if err := s.wire.spend(); err != nil {
		return nil, err
	}
	x := s.wire.begin(s.probe.ID, Request{Path: u.RequestURI(), Label: label})
	x.elsewhere, x.URL = u, u.String()
	s.wire.exchange(ctx, x)
	return x, ctx.Err()
}

// named origins: where the run may read.
func (s *Session) named() []string {
	list := []string{s.target.Origin()}
	addresses := []string{s.target.JWKS, s.target.MetricsURL}
	if h := s.Harness(); h != nil {
		addresses = append(addresses, h.URL)
	}
	for _, address := range addresses {
		if u, err := url.Parse(address); err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" {
			list = append(list, originOf(u))
		}
	}
	return list
}

func originOf(u *url.URL) string { return u.Scheme + "://" + u.Host }

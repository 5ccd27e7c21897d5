package audit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// metricsLimit is how much of a metrics page is read, in bytes: real ones reach some MiB.
const metricsLimit = 8 << 20

// ErrNoMetrics says that nobody told where the metrics are.
var ErrNoMetrics = errors.New("no metrics URL was given")

// Metrics reads the page at the target's MetricsURL: the one address outside the target's origin that the audit asks,
// with no credential and following no redirect. A MetricsURL that begins with a slash is a path of the target.
func (s *Session) Metrics(ctx context.Context) (*Exchange, error) {
	address := s.target.MetricsURL
	switch {
	case address == "":
		return nil, ErrNoMetrics
	case strings.HasPrefix(address, "/"):
		return s.Do(ctx, Request{Path: address, Limit: metricsLimit, Label: "metrics"})
	}
	u, err := url.Parse(address)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil {
		return nil, errors.New("--metrics-url: that is not an http or https URL without a password in it")
	}
	if err := s.wire.spend(); err != nil {
		return nil, err
	}
	return s.wire.elsewhere(ctx, s.probe.ID, u)
}

// elsewhere is a bare GET of an address that the operator named. It stays out of the history, which is the target's.
func (w *wire) elsewhere(ctx context.Context, probe string, u *url.URL) (*Exchange, error) {
	x := w.begin(probe, Request{Label: "metrics", Limit: metricsLimit})
	x.URL, x.At = u.String(), w.now()
	inner, cancel := context.WithTimeout(ctx, x.Request.Timeout)
	defer cancel()
	start := time.Now()
	defer func() { x.Took = time.Since(start) }()
	req, err := http.NewRequestWithContext(inner, http.MethodGet, x.URL, nil)
	if err != nil {
		return nil, fmt.Errorf("--metrics-url: %w", err)
	}
	res, err := w.client.Do(req)
	if err != nil {
		x.Err = brief(err)
		return x, ctx.Err()
	}
	defer res.Body.Close()
	x.Status, x.Header, x.Protocol = res.StatusCode, res.Header, res.Proto
	x.Body, x.Cut, x.Err = readBody(res.Body, metricsLimit)
	w.bytes.Add(int64(len(x.Body)))
	return x, ctx.Err()
}

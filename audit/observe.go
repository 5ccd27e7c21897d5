package audit

import (
	"context"

	"github.com/gantryhq/gantry/audit/observe"
)

// DatabaseObserver is a vantage point behind the target: it reads the database's own counters while send sends requests, and
// says what they did there. Each method runs send once, or once for each size; only one runs at a time.
type DatabaseObserver interface {
	// Pool says whether requests, sent one after another, share connections.
	Pool(ctx context.Context, requests int, send func(context.Context) error) (observe.Verdict, error)
	// Growth says whether statements grow with the size of a page; send sends the same number of requests for each size.
	Growth(ctx context.Context, sizes []int, requests int, send func(ctx context.Context, size int) error) (observe.Verdict, error)
	// Indexes says whether requests read tables from end to end to find a few rows.
	Indexes(ctx context.Context, requests int, send func(context.Context) error) (observe.Verdict, error)
	// Writes says whether one request ends in several transactions that wrote.
	Writes(ctx context.Context, requests int, send func(context.Context) error) (observe.Verdict, error)
	// Trouble says whether sessions were idle in a transaction, or the server had to end a deadlock.
	Trouble(ctx context.Context, send func(context.Context) error) (observe.Verdict, error)
}

// CacheObserver is the same behind the target's Valkey or Redis.
type CacheObserver interface {
	// Hits says whether the same read, again and again, is answered from the cache.
	Hits(ctx context.Context, requests int, send func(context.Context) error) (observe.Verdict, error)
	// Commands says whether a request makes too many round trips, or runs a command that stops the server.
	Commands(ctx context.Context, requests int, send func(context.Context) error) (observe.Verdict, error)
}

// Database observer of the run, nil when there is none.
func (s *Session) Database() DatabaseObserver { return s.cfg.Database }

// Cache observer of the run, nil when there is none.
func (s *Session) Cache() CacheObserver { return s.cfg.Cache }

// Seen is what a vantage point found about a root that the wire alone does not show.
type Seen struct {
	ID, Title, Root string
	Severity        Severity
	Vantage         string // database, cache
	Verdict         observe.Verdict
}

// Saw adds a failure that a vantage point has seen to the report, under the category of the probe that looked. It can only
// lower the score: what was seen to be right is the probe's own affair.
func (s *Session) Saw(seen Seen) {
	if seen.Verdict.Outcome != observe.Fail {
		return
	}
	message := seen.Verdict.Reason
	for _, line := range seen.Verdict.Evidence {
		message += "; " + line
	}
	f := Finding{
		Probe: seen.ID, Title: seen.Title, Root: seen.Root, Category: s.probe.Category, Severity: seen.Severity, Mode: s.probe.Mode,
		Outcome: Fail, FailedAs: seen.Severity, Vantage: seen.Vantage, Message: s.wire.hide.text(clean(message), 600), Hint: seen.Verdict.Fix,
	}
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	for _, known := range s.shared.seen {
		if known.Probe == f.Probe {
			return
		}
	}
	s.shared.seen = append(s.shared.seen, f)
}

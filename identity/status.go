package identity

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"
)

// IssuerStatus says how one issuer's keys are. Nothing in it is secret.
type IssuerStatus struct {
	Issuer string
	// Static says that the keys came with the configuration; the fields below Keys mean nothing then.
	Static bool
	// Keys is how many keys can verify tokens right now: 0 means that tokens get 503.
	Keys int
	// Fetched is when the set in use was asked for; zero before the first success.
	Fetched time.Time
	// Age is the time since Fetched.
	Age time.Duration
	// Stale says that no fetch has succeeded for an hour: raise an alarm, tokens still verify.
	Stale bool
	// LastError is the kind of the last fetch's failure, "" after a success: unreachable, timeout,
	// bad-status, too-large, bad-keys, bad-discovery, bad-url.
	LastError string
}

func (s *source) status() IssuerStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.set.Load()
	st := IssuerStatus{Issuer: s.issuer.URL, Static: s.fetcher == nil, Keys: set.len(), LastError: s.failure}
	if st.Static || set == nil {
		return st
	}
	st.Fetched = set.read
	st.Age = s.now().Sub(set.read)
	st.Stale = st.Age > softTTL
	if st.Age > s.maxStale {
		st.Keys = 0
	}
	return st
}

func kindOf(err error) string {
	if failed, ok := errors.AsType[*fetchError](err); ok {
		return failed.kind
	}
	return "unreachable"
}

// report logs what an operator should know about a fetch; skipped keys only when they have changed.
func (s *source) report(skipped []skip, err error) {
	log := s.log.With("issuer", s.issuer.URL)
	if err != nil && !errors.Is(err, context.Canceled) {
		s.reportFailure(log, err)
	}
	for _, k := range s.news(skipped) {
		if k.alarm {
			log.Error("issuer publishes a secret key", "kid", k.id, "reason", k.reason)
		} else {
			log.Warn("issuer key skipped", "kid", k.id, "reason", k.reason)
		}
	}
}

func (s *source) reportFailure(log *slog.Logger, err error) {
	st := s.status()
	log = log.With("kind", kindOf(err), "error", err, "keys", st.Keys, "age", st.Age)
	if st.Keys == 0 || st.Stale {
		log.Error("issuer keys cannot be fetched")
	} else {
		log.Warn("issuer keys cannot be fetched")
	}
}

// news returns skipped when it differs from what was logged last.
func (s *source) news(skipped []skip) []skip {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Equal(skipped, s.skipped) {
		return nil
	}
	s.skipped = skipped
	return skipped
}

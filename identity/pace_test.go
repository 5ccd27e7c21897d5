package identity

import (
	"io"
	"net/http"
	"testing"
	"time"
)

// Whatever the issuer asks for and the dice say, the next refresh comes before the keys in use lose
// their trust; and not all instances ask at one moment.
func TestRefreshesComeInTimeAndSpreadOut(t *testing.T) {
	for _, again := range []time.Duration{refreshMin, refreshDefault, refreshMax} {
		s := &source{again: again}
		shortest, longest := time.Duration(1<<62), time.Duration(0)
		for range 2000 {
			pause := s.pause()
			shortest, longest = min(shortest, pause), max(longest, pause)
		}
		if longest > softTTL-askEvery || shortest < again-again/10 || longest-shortest < again/20 {
			t.Errorf("every %v: pauses from %v to %v", again, shortest, longest)
		}
	}
}

func TestRetriesBecomeMorePatient(t *testing.T) {
	for failures, ceiling := range map[int]time.Duration{
		1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 7: time.Minute, 1000: time.Minute,
	} {
		s := &source{failures: failures}
		for range 2000 {
			if pause := s.pause(); pause < retryFloor || pause > retryFloor+ceiling {
				t.Fatalf("after %d failures: %v, want at most %v", failures, pause, ceiling)
			}
		}
	}
}

// endless is a site whose every document goes on for ever.
type endless struct{ read int }

func (e *endless) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(e)}, nil
}

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	return len(p), nil
}

func TestNoMoreIsReadThanADocumentMayHold(t *testing.T) {
	site := &endless{}
	f := &fetcher{client: harden(site), issuer: Issuer{URL: "https://issuer.test"}, now: time.Now}
	if _, _, _, err := f.keys(t.Context()); kindOf(err) != "too-large" {
		t.Errorf("keys = %v, want it too large", err)
	}
	if site.read > maxDocument+1 {
		t.Errorf("%d bytes read, want at most %d", site.read, maxDocument+1)
	}
}

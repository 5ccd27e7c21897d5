package testenv

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Sentry receives events in envelopes, as Sentry does.
type Sentry struct {
	receiver
	// DSN is where events go.
	DSN    string
	events []map[string]any
	http   *httptest.Server
}

// NewSentry starts a receiver that ends with the test.
func NewSentry(t testing.TB) *Sentry {
	t.Helper()
	s := &Sentry{receiver: newReceiver(t)}
	s.http = httptest.NewServer(s)
	s.DSN = strings.Replace(s.http.URL, "http://", "http://0123456789abcdef0123456789abcdef@", 1) + "/42"
	t.Cleanup(func() {
		close(s.closed)
		s.Vanish()
	})
	return s
}

// Vanish closes the address.
func (s *Sentry) Vanish() {
	s.http.CloseClientConnections()
	s.http.Close()
}

// ServeHTTP takes an envelope: a header, an item's header and an event, a line each.
func (s *Sentry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body := readReceived(s.t, q)
	if s.answer(w, q, s.take(q.Header, body)) {
		return
	}
	lines := bytes.Split(bytes.TrimSpace(body), []byte("\n"))
	var header, item struct {
		EventID string `json:"event_id"`
		Type    string
		Length  int
	}
	var event map[string]any
	switch {
	case q.Method == http.MethodHead:
		return
	case q.URL.Path != "/api/42/envelope/", !strings.Contains(q.Header.Get("X-Sentry-Auth"), "sentry_key=0123456789abcdef0123456789abcdef"),
		len(lines) != 3, json.Unmarshal(lines[0], &header) != nil, json.Unmarshal(lines[1], &item) != nil, json.Unmarshal(lines[2], &event) != nil,
		item.Type != "event", item.Length != len(lines[2]), header.EventID != event["event_id"]:
		s.t.Errorf("%s is no envelope with one event: %q", q.URL.Path, body)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.tell()
	s.events = append(s.events, event)
	_, _ = w.Write([]byte(`{"id":"` + header.EventID + `"}`))
}

// Events are those that were taken.
func (s *Sentry) Events() []map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]map[string]any(nil), s.events...)
}

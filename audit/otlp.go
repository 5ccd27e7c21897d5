package audit

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Sink receives the target's traces as OTLP over HTTP, protobuf or JSON: the proof that a trace id travelled through
// the target. It understands no spans. It looks for the ids it was told to expect in the bytes of each export, which a
// trace id of 16 random bytes cannot be in by chance.
type Sink struct {
	URL    string
	server *http.Server

	mu       sync.Mutex
	exports  int
	expected map[[16]byte]bool // true once seen
	changed  chan struct{}
}

const (
	maxExport   = 8 << 20 // bytes of one export, unpacked
	maxExpected = 1000
)

// Sink of the run, nil when none was asked for. It listens from the start of the run, because exporters back off
// when nobody answers them.
func (s *Session) Sink() *Sink { return s.shared.sink }

func newSink(ctx context.Context, addr string) (*Sink, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("--otlp-sink %s: %w", addr, err)
	}
	k := &Sink{URL: "http://" + ln.Addr().String(), expected: map[[16]byte]bool{}, changed: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", k.receive)
	k.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second}
	go k.server.Serve(ln)
	return k, nil
}

func (k *Sink) close() { k.server.Close() }

// Exports that arrived so far, with whatever spans: while there are none, nothing can be said about any id.
func (k *Sink) Exports() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.exports
}

// Expect a trace id from now on.
func (k *Sink) Expect(id [16]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, known := k.expected[id]; !known && len(k.expected) < maxExpected {
		k.expected[id] = false
	}
}

// Wait at most d until an expected id was exported, and say whether it was.
func (k *Sink) Wait(ctx context.Context, id [16]byte, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		k.mu.Lock()
		seen, changed := k.expected[id], k.changed
		k.mu.Unlock()
		if seen {
			return true
		}
		select {
		case <-changed:
		case <-timer.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// receive answers as a collector does: an empty export response in the format of the request.
func (k *Sink) receive(w http.ResponseWriter, r *http.Request) {
	body, err := exportBody(r)
	if err != nil {
		http.Error(w, "the export could not be read", http.StatusBadRequest)
		return
	}
	k.look(body, strings.Contains(r.Header.Get("Content-Type"), "json"))
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	if strings.Contains(r.Header.Get("Content-Type"), "json") {
		io.WriteString(w, "{}")
	}
}

func exportBody(r *http.Request) ([]byte, error) {
	body := io.Reader(io.LimitReader(r.Body, maxExport))
	if r.Header.Get("Content-Encoding") == "gzip" {
		unpacked, err := gzip.NewReader(body)
		if err != nil {
			return nil, err
		}
		body = io.LimitReader(unpacked, maxExport)
	}
	return io.ReadAll(body)
}

// look for expected ids: raw bytes in protobuf, hexadecimal of either case in JSON.
func (k *Sink) look(body []byte, text bool) {
	if text {
		body = bytes.ToLower(body)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.exports++
	for id, seen := range k.expected {
		needle := id[:]
		if text {
			needle = []byte(hex.EncodeToString(id[:]))
		}
		k.expected[id] = seen || bytes.Contains(body, needle)
	}
	close(k.changed)
	k.changed = make(chan struct{})
}

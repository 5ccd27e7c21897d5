package storetest

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"
)

type trace struct {
	Name   string
	Limit  int
	Window int64   `json:"window_ms"`
	At     []int64 `json:"t_ms"`
	Admit  string  `json:"expect_admit"`
	Wait   []int64 `json:"expect_wait_ms"`
}

// Traces holds the stores that open returns to the traces in file: for each request whether it is
// admitted and how long a refused one has to wait, to the millisecond. It skips where file is absent.
func Traces(t *testing.T, file string, open func(*testing.T) Opened) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("the shared test vectors are absent: %v", err)
	}
	var all struct{ Traces []trace }
	if err := json.Unmarshal(text, &all); err != nil || len(all.Traces) == 0 {
		t.Fatalf("%s: %d traces, %v", file, len(all.Traces), err)
	}
	for _, trace := range all.Traces {
		t.Run(trace.Name, func(t *testing.T) { trace.check(t, open(t)) })
	}
}

func (tr trace) check(t *testing.T, o Opened) {
	c := charge("user", "k", tr.Limit, time.Duration(tr.Window)*time.Millisecond)
	for i, at := range tr.At {
		o.Set(time.Duration(at) * time.Millisecond)
		d, want := take(t, o.Store, c), time.Duration(tr.Wait[i])*time.Millisecond
		if d.Allowed != (tr.Admit[i] == '1') || d.Wait != want {
			t.Fatalf("request %d: %v, wait %v; want %c, wait %v", i, d.Allowed, d.Wait, tr.Admit[i], want)
		}
	}
}

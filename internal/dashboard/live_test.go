package dashboard

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// reader reads a live stream.
type reader struct {
	*bufio.Scanner
	answer *http.Response
}

func (a *admin) watch(t *testing.T) *reader {
	t.Helper()
	r := a.ask(t, "GET", "/events", nil)
	wantStatus(t, r, http.StatusOK)
	s := bufio.NewScanner(r.Body)
	s.Buffer(nil, 4<<20)
	return &reader{s, r}
}

// sections waits for the next sections that come.
func (r *reader) sections(t *testing.T) map[string]string {
	t.Helper()
	for r.Scan() {
		if data, found := strings.CutPrefix(r.Text(), "data: ["); found {
			var got []section
			if err := json.Unmarshal([]byte("["+data), &got); err != nil {
				t.Fatal(err)
			}
			out := map[string]string{}
			for _, s := range got {
				out[s.ID] = s.HTML
			}
			return out
		}
	}
	t.Fatalf("the stream ended: %v", r.Err())
	return nil
}

func TestTheStreamSendsAllThenWhatChanges(t *testing.T) {
	a := open(t, Config{})
	r := a.watch(t)
	if got := r.sections(t); len(got) != len(sections) {
		t.Errorf("%d sections come first, want %d", len(got), len(sections))
	}
	v := healthy()
	v.Health.Checks[0].Status = "fail"
	a.office.set(v)
	for {
		got := r.sections(t)
		if _, changed := got["health"]; !changed {
			continue // only the clock went on
		}
		if !strings.Contains(got["verdict"], "database fails") {
			t.Errorf("the verdict is %q", got["verdict"])
		}
		if _, sent := got["config"]; sent {
			t.Error("what did not change is sent again")
		}
		return
	}
}

func TestFormsInTheStreamCarryTheReadersToken(t *testing.T) {
	a := open(t, Config{}).firing()
	page := formToken(t, text(t, a.ask(t, "GET", "/", nil)))
	if live := formToken(t, a.watch(t).sections(t)["alerts"]); live != page {
		t.Errorf("the token is %q in the stream and %q on the page", live, page)
	}
}

func TestReadersAreBounded(t *testing.T) {
	a := open(t, Config{})
	var all []*reader
	for range maxReaders {
		all = append(all, a.watch(t))
	}
	r := a.ask(t, "GET", "/events", nil)
	wantStatus(t, r, http.StatusServiceUnavailable)
	if r.Header.Get("Retry-After") == "" {
		t.Error("it does not say when to come back")
	}
	all[0].answer.Body.Close()
	deadline := time.Now().Add(10 * time.Second)
	for a.ask(t, "GET", "/events", nil).StatusCode != http.StatusOK {
		if time.Now().After(deadline) {
			t.Fatal("the place of a reader who left stays taken")
		}
	}
}

func TestAReaderWhoDoesNotReadHoldsNobodyUp(t *testing.T) {
	a := open(t, Config{})
	a.watch(t) // and never reads
	r := a.watch(t)
	for range 3 {
		r.sections(t)
	}
}

func TestStreamsEndWhenTheDashboardStops(t *testing.T) {
	a := open(t, Config{})
	r := a.watch(t)
	r.sections(t)
	a.stop()
	if _, err := io.Copy(io.Discard, r.answer.Body); err != nil {
		t.Errorf("the stream breaks instead of ending: %v", err)
	}
}

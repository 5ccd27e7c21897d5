package dashboard

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"
)

// office is a small operation to look at: it answers with the view it was given and remembers what was done.
type office struct {
	mu     sync.Mutex
	v      View
	looks  atomic.Int64
	done   []string
	refuse error
}

func (o *office) View(now time.Time) View {
	o.looks.Add(1)
	o.mu.Lock()
	defer o.mu.Unlock()
	v := o.v
	v.At = now
	return v
}

func (o *office) set(v View) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.v = v
}

func (o *office) act(what ...string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.refuse != nil {
		return o.refuse
	}
	o.done = append(o.done, strings.Join(what, " "))
	return nil
}

func (o *office) Silence(_ context.Context, alert string, d time.Duration) error {
	return o.act("silence", alert, d.String())
}

func (o *office) Acknowledge(_ context.Context, alert, by string) error {
	return o.act("acknowledge", alert, by)
}

func (o *office) Rollout(_ context.Context, verb Verb, to string) error {
	return o.act("rollout", string(verb), to)
}

// healthy is a view with nothing wrong in it.
func healthy() View {
	v := View{
		Instance: "door-1", Environment: "staging", Version: "v1", Limits: Limits{ErrorRate: .01, P95: .5, Pool: .8},
		Now:    Point{Seconds: 60, Requests: 600, P50: .02, P95: .1, P99: .2, Health: 200, PoolUsed: 2, PoolMax: 10},
		Health: Health{Status: 200, Checks: []Check{{Name: "database", Status: "pass", Age: 2, Observed: "1.2 ms"}}},
		Alerts: []Alert{{Name: "High Error Rate", Condition: "error_rate > 1%", Signal: "error_rate", Severity: "high", State: "inactive"}},
		Config: Setup{Hash: "4be1c9d0", Settings: []Setting{{"SECRET_KEY", "[redacted]", "environment"}}},
	}
	for range 180 {
		v.Short.Points = append(v.Short.Points, Point{Seconds: 5, Requests: 50, P50: .02, P95: .1, P99: .2, Health: 200, PoolUsed: 2, PoolMax: 10})
	}
	v.Short.Step = 5
	return v
}

type token string

func (t token) IsZero() bool              { return t == "" }
func (t token) Matches(other string) bool { return string(t) == other }

const adminToken = "0123456789abcdef0123456789abcdef"

// admin serves a dashboard as the admin port does, with a clock of its own.
type admin struct {
	*Dashboard
	*httptest.Server
	office *office
	clock  atomic.Int64 // nanoseconds that were added to the time
	keys   atomic.Pointer[[][]byte]
	stop   func() // ends Run, and waits for it
}

func open(t *testing.T, cfg Config) *admin {
	t.Helper()
	a := &admin{office: &office{v: healthy()}}
	a.keys.Store(&[][]byte{[]byte("first key")})
	cfg.Keys = func() [][]byte { return *a.keys.Load() }
	d, err := New(a.office, a.office, cfg)
	if err != nil {
		t.Fatal(err)
	}
	a.Dashboard = d
	d.lock.now = func() time.Time { return time.Now().Add(time.Duration(a.clock.Load())) }
	mux := http.NewServeMux()
	d.Routes(mux)
	mux.HandleFunc("POST /api/other", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	a.Server = httptest.NewServer(d.Protect(mux))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	a.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { a.stop(); a.Server.Close() })
	return a
}

func closed() Config { return Config{Token: func() Secret { return token(adminToken) }} }

func (a *admin) later(d time.Duration) { a.clock.Add(int64(d)) }

// ask sends a request; each header is "Name: value".
func (a *admin) ask(t *testing.T, method, path string, form url.Values, headers ...string) *http.Response {
	t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(t.Context(), method, a.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			r.Host = value
			continue
		}
		r.Header.Set(name, value)
	}
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	return answer
}

func text(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func wantStatus(t *testing.T, r *http.Response, want int) {
	t.Helper()
	if r.StatusCode != want {
		t.Errorf("%s %s = %d, want %d\n%s", r.Request.Method, r.Request.URL.Path, r.StatusCode, want, text(t, r))
	}
}

// formToken reads a page as a person's browser would, for the token of its forms.
func formToken(t *testing.T, page string) string {
	t.Helper()
	_, rest, _ := strings.Cut(page, `name="form" value="`)
	value, _, found := strings.Cut(rest, `"`)
	if !found || value == "" {
		t.Fatal("the page has no form with a token")
	}
	return value
}

func TestThePageBeginsWithTheVerdict(t *testing.T) {
	a := open(t, Config{})
	page := text(t, a.ask(t, "GET", "/", nil))
	if i, j := strings.Index(page, "All well"), strings.Index(page, `id="alerts"`); i < 0 || j < i {
		t.Errorf("the verdict is at %d and the alerts at %d", i, j)
	}
	for _, id := range sections {
		if !strings.Contains(page, `id="`+id+`"`) {
			t.Errorf("the page has no section %s", id)
		}
	}
}

func TestThePageLoadsAndIsFramedByNothingElse(t *testing.T) {
	a := open(t, Config{})
	r := a.ask(t, "GET", "/", nil)
	page := text(t, r)
	for _, directive := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} {
		if !strings.Contains(r.Header.Get("Content-Security-Policy"), directive) {
			t.Errorf("the policy lacks %s", directive)
		}
	}
	for _, e := range elements(t, page) {
		for _, attr := range e.Attr {
			switch {
			case (attr.Key == "src" || attr.Key == "href" || attr.Key == "action") && !strings.HasPrefix(attr.Val, "/") && !strings.HasPrefix(attr.Val, "#"):
				t.Errorf("<%s %s=%q> points elsewhere", e.Data, attr.Key, attr.Val)
			case attr.Key == "style" || strings.HasPrefix(attr.Key, "on"):
				t.Errorf("<%s %s> is not allowed by the policy", e.Data, attr.Key)
			}
		}
		if e.Data == "link" || e.Data == "script" {
			for _, attr := range e.Attr {
				if attr.Key == "href" || attr.Key == "src" {
					wantStatus(t, a.ask(t, "GET", attr.Val, nil), http.StatusOK)
				}
			}
		}
	}
}

func elements(t *testing.T, page string) (out []html.Token) {
	t.Helper()
	z := html.NewTokenizer(strings.NewReader(page))
	for {
		switch z.Next() {
		case html.ErrorToken:
			if !errors.Is(z.Err(), io.EOF) {
				t.Fatal(z.Err())
			}
			return out
		case html.StartTagToken, html.SelfClosingTagToken:
			out = append(out, z.Token())
		}
	}
}

// hostile is what a stranger could put into a path, a name or a header.
const hostile = `"><script>alert(1)</script><img src=x onerror=alert(1)> javascript:alert(1) {{.}} ` + "\x1b[31m\u202e"

// fill sets every string within v to text, and every slice to one element.
func fill(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), text)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), text)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), text)
		}
	case reflect.Uint64:
		v.SetUint(3)
	}
}

func TestWhatStrangersWroteIsShownAsText(t *testing.T) {
	a := open(t, Config{})
	var v View
	fill(reflect.ValueOf(&v).Elem(), hostile)
	v.Rollout.Verbs = []Verb{Start, Pause, Abort}
	a.office.set(v)
	a.later(time.Minute)
	page := text(t, a.ask(t, "GET", "/", nil))
	if !strings.Contains(page, "&lt;script&gt;alert(1)&lt;/script&gt;") {
		t.Error("the text is not on the page")
	}
	scripts := 0
	for _, e := range elements(t, page) {
		if e.Data == "script" {
			scripts++
		}
		for _, attr := range e.Attr {
			if strings.HasPrefix(attr.Key, "on") || attr.Key == "src" && attr.Val == "x" || attr.Key == "href" && strings.HasPrefix(strings.TrimSpace(strings.ToLower(attr.Val)), "javascript:") {
				t.Errorf("<%s %s=%q> came from outside", e.Data, attr.Key, attr.Val)
			}
		}
	}
	if scripts != 1 {
		t.Errorf("the page has %d scripts, want its own alone", scripts)
	}
	for _, hidden := range []string{"\x1b", "\u202e"} {
		body := page
		for _, e := range elements(t, page) { // values of forms go back as they came
			for _, attr := range e.Attr {
				body = strings.ReplaceAll(body, html.EscapeString(attr.Val), "")
			}
		}
		if strings.Contains(body, hidden) {
			t.Errorf("the page shows %q", hidden)
		}
	}
}

func TestTheViewIsMadeOnceASecondHoweverManyLook(t *testing.T) {
	a := open(t, Config{})
	start := time.Now()
	a.lock.now = func() time.Time { return start } // no second passes
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() { wantStatus(t, a.ask(t, "GET", []string{"/", "/api/view"}[i%2], nil), http.StatusOK) })
	}
	all.Wait()
	if n := a.office.looks.Load(); n != 1 {
		t.Errorf("the source was asked %d times, want 1", n)
	}
}

func TestTheAPIAnswersWithTheView(t *testing.T) {
	a := open(t, Config{})
	var got View
	if err := json.Unmarshal([]byte(text(t, a.ask(t, "GET", "/api/view", nil))), &got); err != nil {
		t.Fatal(err)
	}
	want := healthy()
	want.At, want.Verdict = got.At, Verdict{Level: Well, Headline: "All well"}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("got - want +\n%s", diff)
	}
}

func TestAnAlertIsSilencedAndAcknowledgedByItsForms(t *testing.T) {
	a := open(t, Config{})
	v := healthy()
	v.Alerts[0].State = "firing"
	a.office.set(v)
	form := formToken(t, text(t, a.ask(t, "GET", "/", nil)))
	for path, values := range map[string]url.Values{
		"/alerts/silence":     {"alert": {"High Error Rate"}, "for": {"4h"}},
		"/alerts/acknowledge": {"alert": {"High Error Rate"}},
		"/rollout/start":      {"to": {"http://10.0.0.6"}},
	} {
		values.Set("form", form)
		r := a.ask(t, "POST", path, values)
		wantStatus(t, r, http.StatusSeeOther)
	}
	for _, want := range []string{"silence High Error Rate 4h0m0s", "acknowledge High Error Rate dashboard", "rollout start http://10.0.0.6"} {
		if !strings.Contains(strings.Join(a.office.done, "\n"), want) {
			t.Errorf("%q was not done: %q", want, a.office.done)
		}
	}
	for _, length := range []string{"", "-1h", "9000h", "soon"} {
		wantStatus(t, a.ask(t, "POST", "/alerts/silence", url.Values{"form": {form}, "alert": {"High Error Rate"}, "for": {length}}), http.StatusConflict)
	}
	wantStatus(t, a.ask(t, "POST", "/rollout/explode", url.Values{"form": {form}}), http.StatusNotFound)
	a.office.refuse = errors.New("there is no rollout")
	r := a.ask(t, "POST", "/rollout/abort", url.Values{"form": {form}})
	wantStatus(t, r, http.StatusConflict)
	if page := text(t, r); !strings.Contains(page, "there is no rollout") {
		t.Errorf("the operator is not told why: %s", page)
	}
}

func TestTheTrendIsThatOfTheTargetAuditedLast(t *testing.T) {
	dir := t.TempDir()
	a := open(t, Config{Audits: dir})
	write := func(name, target, started string, score float64) {
		t.Helper()
		report := map[string]any{"target": target, "started": started, "score": map[string]any{"algorithm": "x", "score": score, "verdict": "READY FOR CONTROLLED LAUNCH", "next": []any{map[string]any{"name": "slow-under-load"}}}}
		b, err := json.Marshal(report)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("b.json", "https://a.example/", "2026-11-01T00:00:00Z", 3.18)
	write("a.json", "https://a.example/", "2026-11-03T00:00:00Z", 8.99)
	write("c.json", "https://b.example/", "2026-11-02T00:00:00Z", 9.9)
	write("d.txt", "https://a.example/", "2026-11-04T00:00:00Z", 1)
	for name, content := range map[string]string{"broken.json": `{"target":`, "other.json": `{"a":1}`, "list.json": `[]`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a.later(time.Minute)
	page := text(t, a.ask(t, "GET", "/", nil))
	for _, want := range []string{"8.9<small> of 10", "READY FOR CONTROLLED LAUNCH", "score, of the last 2 audits, from 3.2 to 9.0", "slow-under-load"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
}

func TestAReportIsTakenByTheAPIAndTheOldestMakesRoom(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audits")
	a := open(t, Config{Audits: dir})
	send := func(body string) *http.Response {
		r, err := http.Post(a.URL+"/api/audits", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Body.Close() })
		return r
	}
	for i := range maxKept + 2 {
		at := time.Date(2026, 1, 1, 0, 0, i, 0, time.UTC).Format(time.RFC3339)
		wantStatus(t, send(`{"target":"https://a.example/","started":"`+at+`","score":{"algorithm":"x","score":7,"verdict":"DO NOT LAUNCH"}}`), http.StatusNoContent)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != maxKept {
		t.Errorf("%d reports are kept, want %d", len(files), maxKept)
	}
	if first := files[0].Name(); first != "20260101T000002.000Z.json" {
		t.Errorf("the oldest kept is %s", first)
	}
	wantStatus(t, send(`{"hello":1}`), http.StatusUnprocessableEntity)
	wantStatus(t, send(`{"target":"`+strings.Repeat("x", maxReport)+`"}`), http.StatusRequestEntityTooLarge)
}

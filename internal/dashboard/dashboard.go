// Package dashboard is the one page of the admin port: what the API does, what is wrong with it, and what can be done.
//
// Begin with [New]. [Dashboard.Routes] is what it serves, [Dashboard.Protect] is the lock on the whole admin port, and
// [Dashboard.Run] keeps open pages live.
//
// The surprise: what is shown is made at most once a second, however many people and scripts look, and the same bytes go
// to all of them. Only the token against forged forms differs, and is put in last.
package dashboard

import (
	"bytes"
	"context"
	"crypto/rand"
	"embed"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"html/template"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/gantryhq/gantry/audit/report"
	"github.com/gantryhq/gantry/problem"
)

// Source says what is going on. View answers from memory, at once, and is called at most once a second; what it returns
// is the caller's.
type Source interface {
	View(now time.Time) View
}

// Actions are what the page's buttons do. An error's text is shown to the operator who pressed.
type Actions interface {
	// Silence tells nobody of an alert for so long; 0 ends a silence.
	Silence(ctx context.Context, alert string, d time.Duration) error
	// Acknowledge says that somebody has the alert in hand.
	Acknowledge(ctx context.Context, alert, by string) error
	// Rollout does what verb says. to is the candidate's address, for [Start] only.
	Rollout(ctx context.Context, verb Verb, to string) error
}

// Secret is a token that can only be compared.
type Secret interface {
	IsZero() bool
	Matches(token string) bool
}

// Config sets a Dashboard up.
type Config struct {
	// Token is the admin token of the moment. While it is zero, or Token nil, nobody logs in and only this machine's own
	// names are answered to.
	Token func() Secret
	// Keys sign sessions and forms: the first signs, all verify. They should differ when the token does, so that a new
	// token ends all sessions. Nil makes one that lasts as long as the process.
	Keys func() [][]byte
	// Secure says that the browser speaks TLS, perhaps to a proxy; nil looks at the connection.
	Secure func(*http.Request) bool
	// Audits is the directory of audit reports in JSON, made when it is not there; empty shows none.
	Audits string
	Logger *slog.Logger // nil discards
}

// Dashboard serves the page. It is safe for concurrent use.
type Dashboard struct {
	source  Source
	actions Actions
	log     *slog.Logger
	lock    *lock
	audits  audits
	page    *template.Template
	// form stands where a form's token goes until the page is sent. Nobody outside can know it.
	form string

	mu   sync.Mutex
	last *snapshot
	made uint64 // snapshots so far
	hub  hub
}

//go:embed page.html dashboard.css live.js icon.svg
var files embed.FS

// build changes when an asset does, so that browsers may keep them for ever.
var build = func() string {
	sum := crc32.NewIEEE()
	for _, name := range []string{"dashboard.css", "live.js", "icon.svg"} {
		b, _ := files.ReadFile(name)
		_, _ = sum.Write(b)
	}
	return fmt.Sprintf("%08x", sum.Sum32())
}()

// New makes a dashboard over a source; actions are what its buttons do.
func New(source Source, actions Actions, cfg Config) (*Dashboard, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Audits != "" {
		if err := os.MkdirAll(cfg.Audits, 0o700); err != nil {
			return nil, fmt.Errorf("audit reports: %w", err)
		}
	}
	page, err := template.New("").Funcs(pageFuncs).ParseFS(files, "page.html")
	if err != nil {
		return nil, fmt.Errorf("dashboard page: %w", err)
	}
	return &Dashboard{
		source: source, actions: actions, log: cfg.Logger, lock: newLock(cfg), audits: audits{dir: cfg.Audits},
		page: page, form: rand.Text(), hub: newHub(),
	}, nil
}

// Routes adds what the dashboard serves to the admin port's mux.
func (d *Dashboard) Routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /{$}", d.index)
	mux.HandleFunc("GET /events", d.events)
	mux.HandleFunc("GET /api/view", d.view)
	mux.HandleFunc("POST /api/audits", d.takeAudit)
	mux.HandleFunc("GET /assets/{name}", asset)
	mux.HandleFunc("GET /login", d.loginPage)
	mux.HandleFunc("POST /login", d.login)
	mux.Handle("POST /logout", d.posted(d.logout))
	mux.Handle("POST /alerts/silence", d.posted(d.silence))
	mux.Handle("POST /alerts/acknowledge", d.posted(d.acknowledge))
	mux.Handle("POST /rollout/{verb}", d.posted(d.rollout))
}

// snapshot is a view and all that is made of it.
type snapshot struct {
	made     time.Time
	sections []section
	page     []byte // with d.form where a form's token goes
	json     []byte
}

// section is a part of the page that is sent again when it changes.
type section struct {
	ID      string `json:"id"`
	HTML    string `json:"html"`
	changed uint64 // the number of the snapshot that it changed in
}

var sections = []string{"verdict", "alerts", "rollout", "traffic", "metrics", "health", "audit", "refusals", "routes", "keys", "config"}

// freshness is how old a snapshot may be: a little under a pulse, so that each pulse finds a new one.
const freshness = pulse - pulse/20

// current is the snapshot of the moment. Callers who come while one is made wait for it.
func (d *Dashboard) current() (*snapshot, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.lock.now()
	if d.last != nil && now.Sub(d.last.made) < freshness {
		return d.last, nil
	}
	s, err := d.snap(now)
	if err != nil {
		return nil, err
	}
	d.last = s
	return s, nil
}

func (d *Dashboard) snap(now time.Time) (*snapshot, error) {
	v := d.source.View(now)
	if a := d.audits.latest(now); a != nil {
		v.Audits = a
	}
	v.Verdict = judge(v)
	s := &snapshot{made: now}
	data := d.pageData(v)
	d.made++
	var body strings.Builder
	for i, id := range sections {
		var b strings.Builder
		if err := d.page.ExecuteTemplate(&b, id, data); err != nil {
			return nil, err
		}
		part := section{ID: id, HTML: b.String(), changed: d.made}
		if d.last != nil && d.last.sections[i].HTML == part.HTML {
			part.changed = d.last.sections[i].changed
		}
		s.sections = append(s.sections, part)
		body.WriteString(part.HTML)
	}
	data.Body = template.HTML(body.String()) // made by the same templates
	var page bytes.Buffer
	if err := d.page.ExecuteTemplate(&page, "page", data); err != nil {
		return nil, err
	}
	s.page = page.Bytes()
	var err error
	s.json, err = json.Marshal(v)
	return s, err
}

func (d *Dashboard) index(w http.ResponseWriter, r *http.Request) {
	s, err := d.current()
	if err != nil {
		d.fail(w, r, err)
		return
	}
	setPageHeaders(w.Header())
	_, _ = w.Write(bytes.ReplaceAll(s.page, []byte(d.form), []byte(d.lock.formToken(r))))
}

func (d *Dashboard) view(w http.ResponseWriter, r *http.Request) {
	s, err := d.current()
	if err != nil {
		d.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(s.json)
}

func (d *Dashboard) fail(w http.ResponseWriter, r *http.Request, err error) {
	d.log.Error("dashboard", "error", err)
	problem.Write(w, r, problem.Internal)
}

// policy lets the page load what is its own and nothing else, be framed by nobody, and post to itself only.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

func setPageHeaders(h http.Header) {
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	// Not "no-referrer": browsers then post forms with "Origin: null", which looks forged.
	h.Set("Referrer-Policy", "same-origin")
}

var assetTypes = map[string]string{"dashboard.css": "text/css; charset=utf-8", "live.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"}

func asset(w http.ResponseWriter, r *http.Request) {
	kind, known := assetTypes[r.PathValue("name")]
	b, err := files.ReadFile(r.PathValue("name"))
	if !known || err != nil {
		problem.Write(w, r, problem.NotFound)
		return
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(b)
}

// pageData is what the templates see.
type pageData struct {
	View        View
	Build, Form string
	Closed      bool // there is something to log out of
	Live, Quiet []Alert
	Metrics     []metric
	Tables      []table
	LastAudit   *auditView
	AuditsDir   string
	Body        template.HTML
}

type auditView struct {
	Audit
	Score, Tone string
	Trend       template.HTML
}

type table struct {
	Caption string
	Rows    []row
}

type row struct {
	From  string
	Point Point
}

func (d *Dashboard) pageData(v View) *pageData {
	p := &pageData{View: v, Build: build, Form: d.form, Closed: d.lock.closed(), Metrics: keyMetrics(v), AuditsDir: d.audits.dir}
	for _, a := range v.Alerts {
		if a.State == "inactive" {
			p.Quiet = append(p.Quiet, a)
		} else {
			p.Live = append(p.Live, a)
		}
	}
	p.Tables = []table{
		tabulate("15 minutes, by the minute", v.Short, time.Minute, "15:04"),
		tabulate("24 hours, by the hour", v.Long, time.Hour, "2 Jan 15:04"),
	}
	if n := len(v.Audits); n > 0 {
		last := v.Audits[n-1]
		a := &auditView{Audit: last, Score: fmt.Sprintf("%.1f", floorTenth(last.Score)), Trend: spark(v.Audits)}
		if last.RangeOnly {
			a.Score += fmt.Sprintf("–%.1f", floorTenth(last.CouldBe))
		}
		a.Tone = map[bool]string{true: "good", false: "bad"}[strings.HasPrefix(last.Label, "READY")]
		p.LastAudit = a
	}
	return p
}

// tabulate is a history as rows of so much time each.
func tabulate(caption string, h History, each time.Duration, layout string) table {
	t := table{Caption: caption}
	if h.Step <= 0 {
		return t
	}
	per := max(1, int(each.Seconds()/h.Step))
	for from := 0; from < len(h.Points); from += per {
		at := h.From.Add(time.Duration(float64(from) * h.Step * float64(time.Second)))
		t.Rows = append(t.Rows, row{at.UTC().Format(layout), sum(h.Points[from:min(len(h.Points), from+per)])})
	}
	return t
}

// floorTenth never shows a score that was not reached.
func floorTenth(v float64) float64 { return float64(int(v*10+1e-9)) / 10 }

var pageFuncs = template.FuncMap{
	"plain": plain, "percent": percent, "took": took, "age": age, "count": count, "rate": rate, "curve": curve,
	"clock": func(t time.Time) string { return t.UTC().Format(time.TimeOnly) },
	"day":   func(t time.Time) string { return t.UTC().Format("2 Jan 2006") },
	"stamp": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"since": func(now, then time.Time) string { return age(now.Sub(then).Seconds()) },
	"share": func(part, whole uint64) string { return percent(ratio(float64(part), float64(whole))) },
	"above": func(part, whole uint64, limit float64) bool {
		return whole > 0 && limit > 0 && float64(part)/float64(whole) > limit
	},
	"verb":         func(v Verb) string { return strings.ToUpper(string(v[:1])) + string(v[1:]) },
	"rateChart":    rateChart,
	"latencyChart": latencyChart,
	"draw":         func(c chart, h History) template.HTML { return c.draw(h) },
}

// plain makes what strangers wrote fit to be shown: nothing hidden, nothing endless.
func plain(s string) string {
	const most = 120
	s = report.Plain(s)
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

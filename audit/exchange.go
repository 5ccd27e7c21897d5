package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Request is what a probe wants sent. Path is relative to the target's base and may carry a query; it goes
// over the wire byte for byte, as written.
type Request struct {
	Method string // GET when empty
	Path   string
	Header http.Header
	Body   []byte
	// Token goes into Authorization as a bearer token; Label says in the report what it is ("alg none,
	// empty signature"), because the token itself is never shown.
	Token string
	Label string
	// Limit is how much of the answer's body is read, in bytes; 256 KiB when zero.
	Limit int64
	// Timeout of the whole exchange; 10 s when zero.
	Timeout time.Duration
	// Expect429 hands a 429 to the probe. Otherwise the session waits for the limiter and asks again.
	Expect429 bool
	// Follow follows redirects that stay on the origin, five at most.
	Follow bool
	// Fresh uses a connection of its own.
	Fresh bool
}

// Exchange is a request and what came of it.
type Exchange struct {
	ID       string // short, stable for a seed
	Probe    string
	Request  Request
	URL      string
	Status   int // 0 when no answer came
	Header   http.Header
	Body     []byte // at most Request.Limit
	Cut      bool   // there was more body, or it broke off
	Err      error  // why no whole answer came; the status may still be there
	At       time.Time
	TTFB     time.Duration // to the first byte of the answer
	Took     time.Duration
	Protocol string // HTTP/1.1, HTTP/2.0
	Raw      string // transcript, when the probe wrote the bytes itself
	Note     string // what this exchange shows, in the report's evidence
	shape    *Shape

	elsewhere *url.URL // of [Session.Fetch], when it is not below the target's base
}

// Shape of the answer, computed once.
func (x *Exchange) Shape() Shape {
	if x.shape == nil {
		s := ShapeOf(x.Status, x.Header.Get("Content-Type"), x.Body)
		x.shape = &s
	}
	return *x.shape
}

// Text of the body.
func (x *Exchange) Text() string { return string(x.Body) }

// OK says whether the status is 2xx.
func (x *Exchange) OK() bool { return x.Status >= 200 && x.Status < 300 }

// Denied says whether the answer is a clean refusal of the caller: 401 or 403.
func (x *Exchange) Denied() bool { return x.Status == 401 || x.Status == 403 }

// Noted says in the report what the exchange shows.
func (x *Exchange) Noted(format string, args ...any) *Exchange {
	c := *x
	c.Note = fmt.Sprintf(format, args...)
	return &c
}

// String is one line: "GET /me (garbage) → 401".
func (x *Exchange) String() string {
	label := ""
	if x.Request.Label != "" {
		label = " (" + x.Request.Label + ")"
	}
	method := x.Request.Method
	if method == "" {
		method = http.MethodGet
	}
	return clean(fmt.Sprintf("%s %s%s → %s", method, x.Request.Path, label, x.answer()))
}

func (x *Exchange) answer() string {
	switch {
	case x.Status == 0 && x.Err != nil:
		return "no answer: " + x.Err.Error()
	case x.Err != nil:
		return fmt.Sprintf("%d, then %v", x.Status, x.Err)
	}
	return fmt.Sprint(x.Status)
}

// Evidence is an exchange as the report shows it: every secret replaced by its fingerprint, every length bounded.
type Evidence struct {
	ID      string      `json:"id"`
	Note    string      `json:"note,omitempty"`
	Method  string      `json:"method"`
	URL     string      `json:"url"`
	Label   string      `json:"label,omitempty"`
	Request http.Header `json:"requestHeader,omitempty"`
	Sent    string      `json:"requestBody,omitempty"`
	Status  int         `json:"status"`
	Header  http.Header `json:"header,omitempty"`
	Body    string      `json:"body,omitempty"` // first 2 KiB
	Raw     string      `json:"raw,omitempty"`
	Error   string      `json:"error,omitempty"`
	At      time.Time   `json:"at"`
	TTFB    float64     `json:"ttfbMs"`
	Took    float64     `json:"tookMs"`
	Curl    string      `json:"curl,omitempty"`
}

const (
	evidenceBody    = 2 << 10
	evidenceHeader  = 300     // bytes of one header's value
	evidenceHeaders = 4 << 10 // of all
)

func (x *Exchange) evidence(hide *redactor) Evidence {
	e := Evidence{
		ID: x.ID, Note: hide.text(x.Note, 500), Method: x.Request.Method, URL: hide.text(x.URL, 1000), Label: clean(x.Request.Label),
		Request: hide.header(x.Request.Header), Sent: hide.text(string(x.Request.Body), evidenceBody),
		Status: x.Status, Header: hide.header(x.Header), Body: hide.text(string(x.Body), evidenceBody),
		Raw: hide.text(x.Raw, evidenceBody), At: x.At.UTC(), TTFB: milliseconds(x.TTFB), Took: milliseconds(x.Took),
	}
	if x.Raw == "" {
		e.Curl = x.curl(hide)
	}
	if x.Err != nil {
		e.Error = hide.text(x.Err.Error(), 300)
	}
	return e
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Fingerprint names a secret without showing it: "sha256:" and eight digits.
func Fingerprint(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return "sha256:" + hex.EncodeToString(sum[:4])
}

// curl is a command that sends the same again. The token stands in a variable. Secrets are hidden before anything is cut,
// so that no half of one remains.
func (x *Exchange) curl(hide *redactor) string {
	var b strings.Builder
	r := x.Request
	b.WriteString("curl -i --path-as-is")
	if r.Method != http.MethodGet {
		fmt.Fprintf(&b, " -X %s", shellQuote(r.Method))
	}
	if r.Token != "" {
		b.WriteString(` -H "Authorization: Bearer $TOKEN"`)
	}
	for _, key := range slices.Sorted(maps.Keys(r.Header)) {
		for _, v := range r.Header[key] {
			fmt.Fprintf(&b, " -H %s", shellQuote(hide.text(key+": "+v, 250)))
		}
	}
	if len(r.Body) > 0 {
		fmt.Fprintf(&b, " --data-binary %s", shellQuote(hide.text(string(r.Body), 500)))
	}
	fmt.Fprintf(&b, " %s", shellQuote(hide.text(x.URL, 1000)))
	return hide.text(b.String(), 3000)
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

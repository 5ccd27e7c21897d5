// Package problem is the one way Gantry says no: RFC 9457 problem details.
//
// Begin with [Write] and one of the catalogue's values:
//
//	problem.Write(w, r, problem.RateLimited.After(37*time.Second))
//
// The surprise: Detail is read by strangers. It never carries an error's text, a token, an
// address or a setting; what went wrong inside belongs in the log, beside the request id.
package problem

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// ContentType is the media type of every refusal (RFC 9457 section 3).
const ContentType = "application/problem+json"

// RequestIDHeader names the response header whose value becomes "instance".
const RequestIDHeader = "X-Request-Id"

// Details is one problem. The zero value is an internal error and tells the client nothing.
type Details struct {
	// Code is the stable machine word of the problem, for example "rate-limited".
	Code string
	// Status is the HTTP status code; 0 means 500.
	Status int
	// Title is the short human sentence; it is the same for every occurrence.
	Title string
	// Detail says what this client can do about it. Optional.
	Detail string
	// Type overrides the type URI; empty means [TypeBase] followed by Code.
	Type string
	// RetryAfter, when positive, is sent as Retry-After in whole seconds, rounded up
	// (RFC 9110 section 10.2.3).
	RetryAfter time.Duration
	// Violated names the quota policies that were exceeded
	// (draft-ietf-httpapi-ratelimit-headers section 4, "violated-policies").
	Violated []string
	// Faults lists every invalid field of a request.
	Faults []Fault
	// Instance is the id of the request; [Write] takes it from the response's header.
	Instance string
}

// Fault is one invalid field of a request.
type Fault struct {
	// Pointer is a JSON Pointer into the body (RFC 6901), or "query/NAME" or "header/NAME".
	Pointer string `json:"pointer"`
	// Detail says what is wrong with it and what would be right.
	Detail string `json:"detail"`
}

// TypeBase is the address under which every problem type is described.
const TypeBase = "https://github.com/gantryhq/gantry/blob/main/docs/problems.md#"

// With returns d with a detail sentence for the client.
func (d Details) With(detail string) Details {
	d.Detail = detail
	return d
}

// After returns d with the time after which the client may come back.
func (d Details) After(wait time.Duration) Details {
	d.RetryAfter = wait
	return d
}

// Error makes Details usable as an error; the text is safe to log.
func (d Details) Error() string {
	if d.Detail == "" {
		return d.Title
	}
	return d.Title + ": " + d.Detail
}

// TypeURI returns the "type" member.
func (d Details) TypeURI() string {
	switch {
	case d.Type != "":
		return d.Type
	case d.Code == "":
		return "about:blank"
	default:
		return TypeBase + d.Code
	}
}

// body is the order in which people read a problem.
type body struct {
	Type       string   `json:"type"`
	Title      string   `json:"title"`
	Status     int      `json:"status"`
	Detail     string   `json:"detail,omitempty"`
	Instance   string   `json:"instance,omitempty"`
	Code       string   `json:"code,omitempty"`
	RetryAfter int64    `json:"retry_after,omitempty"`
	Violated   []string `json:"violated-policies,omitempty"`
	Faults     []Fault  `json:"errors,omitempty"`
}

func (d Details) body() body {
	return body{
		Type: d.TypeURI(), Title: d.Title, Status: d.Status, Detail: d.Detail, Instance: d.Instance, Code: d.Code,
		RetryAfter: RetrySeconds(d.RetryAfter), Violated: d.Violated, Faults: d.Faults,
	}
}

// MarshalJSON prints the members of RFC 9457.
func (d Details) MarshalJSON() ([]byte, error) { return json.Marshal(d.body()) }

// Write answers r with d and ends the response. Headers already set on w stay, except those that
// describe a body that is no longer sent. For a HEAD request net/http drops the body itself.
func Write(w http.ResponseWriter, r *http.Request, d Details) {
	if d.Status == 0 {
		d = Internal
	}
	h := w.Header()
	for _, name := range []string{"Content-Encoding", "Content-Range", "Etag", "Last-Modified", "Trailer"} {
		h.Del(name)
	}
	seconds := RetrySeconds(d.RetryAfter)
	if seconds > 0 {
		h.Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	d.Instance = h.Get(RequestIDHeader)
	text := encode(d.body())
	h.Set("Content-Type", ContentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(d.Status)
	if r.Method != http.MethodHead {
		_, _ = w.Write([]byte(text))
	}
}

// RetrySeconds turns a wait into a Retry-After value: max(1, ceil(wait)), and 0 for no wait.
func RetrySeconds(wait time.Duration) int64 {
	if wait <= 0 {
		return 0
	}
	return int64((wait + time.Second - 1) / time.Second)
}

func encode(b body) string {
	var s strings.Builder
	enc := json.NewEncoder(&s)
	enc.SetEscapeHTML(true)
	// A struct of strings and integers cannot fail to encode.
	_ = enc.Encode(b)
	return s.String()
}

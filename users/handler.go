package users

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // time zones are checked on machines that have none installed

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/gantryhq/gantry/problem"
)

// HandlerConfig of the HTTP side.
type HandlerConfig struct {
	// Caller returns the verified claims of a request. Required.
	Caller func(context.Context) (Claims, bool)
	// Logger hears of store failures. Nil discards.
	Logger *slog.Logger
}

// NewHandler serves /v1/users/me, with and without a trailing slash, and /v1/openapi.json.
func NewHandler(service *Service, cfg HandlerConfig) (http.Handler, error) {
	if cfg.Caller == nil {
		return nil, errors.New("users: Caller is required")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	config := huma.DefaultConfig("Gantry", "1")
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "/v1/openapi", "", ""
	config.CreateHooks = nil
	config.Transformers = []huma.Transformer{asProblem}
	h := &handler{service: service, cfg: cfg}
	api := humago.New(mux, config)
	huma.Register(api, operation(http.MethodGet, "get-me", "The caller's own user"), h.get)
	huma.Register(api, operation(http.MethodPatch, "patch-me", "Change the caller's own user (RFC 7396 merge patch)"), h.patch)
	return withoutSlash(mux), nil
}

func operation(method, id, summary string) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: method, Path: "/v1/users/me", Summary: summary, MaxBodyBytes: 64 << 10,
		Errors: []int{400, 401, 403, 412, 413, 415, 422, 429, 503, 504},
	}
}

// withoutSlash serves /v1/users/me/ as /v1/users/me: a redirect would lose the token in some clients.
func withoutSlash(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.URL.Path) > 1 && strings.HasSuffix(r.URL.Path, "/") {
			plain := *r.URL
			plain.Path, plain.RawPath = strings.TrimSuffix(plain.Path, "/"), ""
			r2 := *r
			r2.URL = &plain
			r = &r2
		}
		switch r.Method {
		case http.MethodGet, http.MethodHead, http.MethodPatch:
			next.ServeHTTP(w, r)
		default:
			w.Header().Set("Allow", "GET, HEAD, PATCH")
			problem.Write(w, r, problem.MethodNotAllowed)
		}
	})
}

type handler struct {
	service *Service
	cfg     HandlerConfig
}

// Profile is a user as its owner sees it.
type Profile struct {
	ID          string    `json:"id" doc:"Gantry's own id" example:"usr_4TB2QK"`
	Subject     string    `json:"subject" doc:"The issuer's id of the user"`
	Email       string    `json:"email"`
	DisplayName string    `json:"display_name"`
	ImageURL    string    `json:"image_url"`
	Bio         string    `json:"bio"`
	Locale      string    `json:"locale"`
	Timezone    string    `json:"timezone"`
	Version     int64     `json:"version"`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
}

func profile(u User) Profile {
	return Profile{
		ID: u.ID, Subject: u.Subject, Email: u.Email, DisplayName: u.DisplayName, ImageURL: u.ImageURL, Bio: u.Bio,
		Locale: u.Locale, Timezone: u.Timezone, Version: u.Version, CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt,
	}
}

type getInput struct {
	IfNoneMatch string `header:"If-None-Match"`
}

type output struct {
	Status       int
	ETag         string `header:"ETag"`
	CacheControl string `header:"Cache-Control"`
	Body         Profile
}

func answer(u User) *output {
	return &output{Status: http.StatusOK, ETag: etag(u.Version), CacheControl: "private, no-cache", Body: profile(u)}
}

// etag is strong: the version changes with every write (RFC 9110 section 8.8.3).
func etag(version int64) string { return `"v` + strconv.FormatInt(version, 10) + `"` }

func (h *handler) get(ctx context.Context, in *getInput) (*output, error) {
	caller, ok := h.cfg.Caller(ctx)
	if !ok {
		return nil, refusal{problem.Unauthenticated}
	}
	u, err := h.service.Me(ctx, caller)
	if err != nil {
		return nil, h.failed(err)
	}
	if in.IfNoneMatch != "" && matches(in.IfNoneMatch, u.Version) {
		return nil, huma.ErrorWithHeaders(huma.Status304NotModified(), http.Header{"Etag": {etag(u.Version)}})
	}
	return answer(u), nil
}

// matches reads a list of entity tags (RFC 9110 section 13.1.1).
func matches(list string, version int64) bool {
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item == "*" || strings.TrimPrefix(item, "W/") == etag(version) {
			return true
		}
	}
	return false
}

// Change is the body of a PATCH: absent fields stay, null clears.
type Change struct {
	DisplayName *string `json:"display_name,omitempty" nullable:"true" doc:"At most 100 characters"`
	ImageURL    *string `json:"image_url,omitempty" nullable:"true" doc:"An https address"`
	Bio         *string `json:"bio,omitempty" nullable:"true" doc:"At most 1,000 characters"`
	Locale      *string `json:"locale,omitempty" nullable:"true" doc:"BCP 47, for example pt-BR"`
	Timezone    *string `json:"timezone,omitempty" nullable:"true" doc:"IANA, for example Europe/Berlin"`
}

type patchInput struct {
	// IfMatch is optional: a client that sends it is protected against lost updates, and one that
	// does not changes only the fields it names, which a merge patch keeps apart from all others.
	IfMatch string `header:"If-Match" doc:"The ETag that was read; 412 when it is no longer current"`
	RawBody []byte
	Body    Change
}

func (h *handler) patch(ctx context.Context, in *patchInput) (*output, error) {
	caller, ok := h.cfg.Caller(ctx)
	if !ok {
		return nil, refusal{problem.Unauthenticated}
	}
	p, d, ok := readPatch(in.RawBody)
	if !ok {
		return nil, refusal{d}
	}
	var match func(int64) bool
	if in.IfMatch != "" {
		match = func(v int64) bool { return !strings.HasPrefix(in.IfMatch, "W/") && matches(in.IfMatch, v) }
	}
	u, err := h.service.Change(ctx, caller, p, match)
	if err != nil {
		return nil, h.failed(err)
	}
	return answer(u), nil
}

// readPatch reads the members one by one: a struct would lose the difference between null and
// absent, and would take the last of two members with one name.
func readPatch(raw []byte) (Patch, problem.Details, bool) {
	var p Patch
	seen := make(map[string]bool)
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return p, problem.BadRequest.With("The body must be a JSON object."), false
	}
	for d.More() {
		name, err := d.Token()
		key, _ := name.(string)
		var value *string
		if err == nil {
			err = d.Decode(&value)
		}
		if err != nil || seen[key] {
			return p, problem.BadRequest.With("The body must be a JSON object in which each name stands once."), false
		}
		seen[key] = true
		set(&p, key, value)
	}
	if faults := p.Normalize(); len(faults) > 0 {
		d := problem.Unprocessable
		d.Faults = faults
		return p, d, false
	}
	return p, problem.Details{}, true
}

func set(p *Patch, name string, value *string) {
	for _, f := range fields {
		if f.name == name {
			if value == nil {
				value = new(string)
			}
			*f.from(p) = value
		}
	}
}

// failed turns an error of the service into an answer.
func (h *handler) failed(err error) error {
	switch {
	case errors.Is(err, ErrConflict):
		return refusal{problem.Precondition}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return refusal{problem.Timeout}
	}
	h.cfg.Logger.Error("users store", "error", err)
	if errors.Is(err, ErrUnavailable) {
		return huma.ErrorWithHeaders(refusal{problem.StoreDown.After(time.Second)}, http.Header{"Retry-After": {"1"}})
	}
	return refusal{problem.Internal}
}

// refusal lets a problem travel as huma's error.
type refusal struct{ details problem.Details }

// Error implements error.
func (r refusal) Error() string { return r.details.Error() }

// GetStatus implements huma.StatusError.
func (r refusal) GetStatus() int { return r.details.Status }

// ContentType implements huma.ContentTypeFilter.
func (r refusal) ContentType(string) string { return problem.ContentType }

// MarshalJSON prints the problem.
func (r refusal) MarshalJSON() ([]byte, error) { return r.details.MarshalJSON() }

// asProblem turns huma's own errors into ours: the same members, and no value of the request in them.
func asProblem(_ huma.Context, status string, v any) (any, error) {
	model, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	code, _ := strconv.Atoi(status)
	return refusal{translate(code, model)}, nil
}

func translate(status int, model *huma.ErrorModel) problem.Details {
	d := problem.BadRequest
	for _, known := range []problem.Details{problem.TooLarge, problem.UnsupportedMedia, problem.Unprocessable, problem.RequestTimeout, problem.Internal} {
		if known.Status == status {
			d = known
		}
	}
	if d.Status == http.StatusUnprocessableEntity {
		for _, e := range model.Errors {
			d.Faults = append(d.Faults, problem.Fault{Pointer: pointer(e.Location), Detail: e.Message})
		}
	}
	return d
}

// pointer turns huma's "body.display_name" into a JSON pointer.
func pointer(location string) string {
	path, found := strings.CutPrefix(location, "body")
	if !found {
		return location
	}
	return strings.ReplaceAll(path, ".", "/")
}

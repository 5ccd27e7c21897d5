package users

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	_ "time/tzdata" // time zones are checked on machines that have none installed

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/gantryhq/gantry/problem"
)

// HandlerConfig of the HTTP side.
type HandlerConfig struct {
	// Caller returns the verified claims of a request. Required.
	Caller func(context.Context) (Claims, bool)
	// Admin says whether a request may use the routes for admins; nil is nobody.
	Admin func(context.Context) bool
	// Logger hears of store failures. Nil discards.
	Logger *slog.Logger
}

// maxBody bounds a request's body, in bytes.
const maxBody = 64 << 10

// NewHandler serves /v1/users and all below it, with and without a trailing slash, and
// /v1/openapi.json and /v1/docs, which describe it.
func NewHandler(service *Service, cfg HandlerConfig) (http.Handler, error) {
	if cfg.Caller == nil {
		return nil, errors.New("users: Caller is required")
	}
	if cfg.Admin == nil {
		cfg.Admin = func(context.Context) bool { return false }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	config := huma.DefaultConfig("Gantry", "1")
	config.Info.Description = "What an API knows about its callers. Every refusal is a problem (RFC 9457)."
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "/v1/openapi", "", ""
	config.CreateHooks = nil
	config.Transformers = []huma.Transformer{asProblem}
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"bearer": {Type: "http", Scheme: "bearer", BearerFormat: "JWT", Description: "A token of the issuer"},
	}
	h := &handler{service: service, cfg: cfg}
	api := humago.New(mux, config)
	h.register(api)
	page, err := docsPage(api.OpenAPI())
	if err != nil {
		return nil, err
	}
	mux.Handle("GET /v1/docs", page)
	return plainPaths(mux), nil
}

type handler struct {
	service *Service
	cfg     HandlerConfig
}

// The tags that group the routes in the documentation.
const (
	tagSelf   = "Your own user"
	tagPublic = "Public profiles"
	tagAdmin  = "For admins"
)

// register lists every route.
func (h *handler) register(api huma.API) {
	self, admin := huma.Middlewares{h.needCaller}, huma.Middlewares{h.needCaller, h.needAdmin}
	huma.Register(api, route("GET", "/v1/users/me", "get-me", "The caller's own user", tagSelf, self), h.get)
	huma.Register(api, route("PATCH", "/v1/users/me", "patch-me", "Change the caller's own user (RFC 7396 merge patch)", tagSelf, self), h.patch)
	huma.Register(api, route("DELETE", "/v1/users/me", "delete-me", "Erase the caller's own user, for ever", tagSelf, self), h.delete)
	huma.Register(api, route("GET", "/v1/users/me/export", "export-me", "Everything that is held about the caller", tagSelf, self), h.export)
	huma.Register(api, route("GET", "/v1/users/{handle}", "get-public", "The public profile of a handle", tagPublic, nil), h.public)
	huma.Register(api, route("GET", "/v1/users", "list-users", "All users, newest first, by page", tagAdmin, admin), h.list)
	huma.Register(api, route("POST", "/v1/users/{id}/suspend", "suspend-user", "Refuse a user at every door", tagAdmin, admin), h.suspend)
	huma.Register(api, route("POST", "/v1/users/{id}/reinstate", "reinstate-user", "Let a suspended user in again", tagAdmin, admin), h.reinstate)
	huma.Register(api, route("PUT", "/v1/users/{id}/plan", "set-plan", "Give a user a plan of its own", tagAdmin, admin), h.setPlan)
	describePatch(api)
}

// faults is what every route may answer besides its own.
var faults = []int{400, 401, 403, 408, 410, 422, 429, 500, 503, 504}

func route(method, path, id, summary, tag string, gate huma.Middlewares) huma.Operation {
	op := huma.Operation{
		OperationID: id, Method: method, Path: path, Summary: summary, Tags: []string{tag}, MaxBodyBytes: maxBody,
		Middlewares: gate, RejectUnknownQueryParameters: path != "/v1/users", Errors: append(faults[:len(faults):len(faults)], more(method, path)...),
	}
	if gate != nil {
		op.Security = []map[string][]string{{"bearer": {}}}
	}
	return op
}

func more(method, path string) (codes []int) {
	if strings.Contains(path, "{") {
		codes = append(codes, 404)
	}
	switch method {
	case http.MethodPatch:
		codes = append(codes, 409, 412, 413, 415)
	case http.MethodDelete:
		codes = append(codes, 412)
	case http.MethodPut:
		codes = append(codes, 413, 415)
	}
	return codes
}

// needCaller and needAdmin come before anything of the request is read, so that a stranger does not
// learn from a 422 what a route takes.
func (h *handler) needCaller(ctx huma.Context, next func(huma.Context)) {
	if _, ok := h.cfg.Caller(ctx.Context()); !ok {
		refuse(ctx, problem.Unauthenticated)
		return
	}
	next(ctx)
}

func (h *handler) needAdmin(ctx huma.Context, next func(huma.Context)) {
	if !h.cfg.Admin(ctx.Context()) {
		refuse(ctx, problem.Forbidden)
		return
	}
	next(ctx)
}

func refuse(ctx huma.Context, d problem.Details) {
	r, w := humago.Unwrap(ctx)
	problem.Write(w, r, d)
}

// caller is whom needCaller has seen.
func (h *handler) caller(ctx context.Context) Claims {
	c, _ := h.cfg.Caller(ctx)
	return c
}

// plainPaths serves a path with a slash at its end as the one without, for a redirect would lose the
// token in some clients, and answers in problems what the mux would refuse in plain text.
func plainPaths(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.URL.Path) > 1 && strings.HasSuffix(r.URL.Path, "/") {
			plain := *r.URL
			plain.Path, plain.RawPath = strings.TrimSuffix(plain.Path, "/"), ""
			r2 := *r
			r2.URL = &plain
			r = &r2
		}
		refusing, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		seen := recorder{header: make(http.Header)}
		refusing.ServeHTTP(&seen, r)
		if seen.status != http.StatusMethodNotAllowed {
			problem.Write(w, r, problem.NotFound)
			return
		}
		w.Header()["Allow"] = seen.header["Allow"]
		problem.Write(w, r, problem.MethodNotAllowed)
	})
}

// recorder takes an answer that nobody is to see.
type recorder struct {
	header http.Header
	status int
}

// Header implements http.ResponseWriter.
func (r *recorder) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) { r.status = status }

// Write implements http.ResponseWriter.
func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }

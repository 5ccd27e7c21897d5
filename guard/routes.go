package guard

import (
	"fmt"
	"net/http"
	"time"
)

// Route is what differs from path to path. The zero value of each field means the default.
type Route struct {
	// Pattern is in net/http's syntax: "[METHOD ]/path", "{name}" for a segment, a trailing
	// slash for everything below. The most specific pattern wins.
	Pattern string
	// Timeout replaces the total deadline.
	Timeout time.Duration
	// Stream exempts from the total deadline; idle and lifetime limits apply from the start.
	Stream bool
	// MaxBody replaces the body limit, in bytes.
	MaxBody int64
	// Loose accepts semicolons, encoded slashes and empty segments in paths.
	Loose bool
	// Index is the route's place in the list given to NewRoutes, and -1 for the default route:
	// what other features keep per route stands at the same place in their own lists.
	Index int
}

// Routes finds the route of a request.
type Routes struct {
	mux   *http.ServeMux
	other Route
}

// NewRoutes compiles the list. Patterns that are malformed or that conflict are an error.
func NewRoutes(list []Route) (*Routes, error) {
	rs := &Routes{other: Route{Pattern: "/", Index: -1}}
	for i := range list {
		route := list[i]
		route.Index = i
		if err := rs.add(&route); err != nil {
			return nil, fmt.Errorf("route %d: %w", i+1, err)
		}
	}
	if rs.mux != nil {
		// Without it the mux would look, for each path that no route has, which methods it has. A
		// list with a route for everything, however that is spelled, refuses it and needs none.
		_ = rs.add(&rs.other)
	}
	return rs, nil
}

// add registers a route; ServeMux reports what is wrong with a pattern by a panic.
func (rs *Routes) add(route *Route) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%v", v)
		}
	}()
	if rs.mux == nil {
		rs.mux = http.NewServeMux()
	}
	rs.mux.Handle(route.Pattern, (*routeHandler)(route))
	return nil
}

// routeHandler lets a Route be what a ServeMux finds.
type routeHandler Route

// ServeHTTP is never called; the mux is only asked.
func (*routeHandler) ServeHTTP(http.ResponseWriter, *http.Request) {}

// Match returns the route of r, never nil. r.URL must hold the canonical path.
func (rs *Routes) Match(r *http.Request) *Route {
	if rs.mux == nil {
		return &rs.other
	}
	h, _ := rs.mux.Handler(r)
	if found, ok := h.(*routeHandler); ok {
		return (*Route)(found)
	}
	return &rs.other
}

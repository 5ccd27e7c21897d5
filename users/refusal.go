package users

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/gantryhq/gantry/problem"
)

// refusals are what the errors of the service say to the client.
var refusals = []struct {
	err     error
	details problem.Details
}{
	{ErrConflict, problem.Precondition},
	{ErrDeleted, problem.AccountDeleted},
	{ErrSuspended, problem.AccountSuspended},
	{ErrNotFound, problem.NotFound},
	{ErrHandleTaken, problem.HandleTaken},
	{ErrKeyReused, problem.KeyReused},
	{ErrCursor, invalid("query/cursor", "must be the next of a page with the same filter")},
	{ErrUnknownPlan, invalid("/plan", "must be the name of a plan")},
	{context.DeadlineExceeded, problem.Timeout},
	{context.Canceled, problem.Timeout},
}

// invalid is a 422 with its faults, given as pointers and details in turn.
func invalid(pairs ...string) problem.Details {
	d := problem.Unprocessable
	for i := 0; i < len(pairs); i += 2 {
		d.Faults = append(d.Faults, problem.Fault{Pointer: pairs[i], Detail: pairs[i+1]})
	}
	return d
}

// failed turns an error of the service into an answer.
func (h *handler) failed(err error) error {
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			return refusal{r.details}
		}
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

// asProblem turns huma's own errors into ours, with the same members and no value of the request in them,
// and names the request in every one.
func asProblem(ctx huma.Context, status string, v any) (any, error) {
	var r refusal
	switch v := v.(type) {
	case refusal:
		r = v
	case *huma.ErrorModel:
		code, _ := strconv.Atoi(status)
		r.details = translate(code, v)
	default:
		return v, nil
	}
	_, w := humago.Unwrap(ctx)
	r.details.Instance = w.Header().Get(problem.RequestIDHeader)
	return r, nil
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

// pointer turns huma's "body.display_name" into a JSON pointer, and "query.limit" into "query/limit".
func pointer(location string) string {
	return strings.ReplaceAll(strings.TrimPrefix(location, "body"), ".", "/")
}

package guard

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/gantryhq/gantry/problem"
)

// Recover turns a panic into a 500, or into a cut connection when the answer had begun. The stack
// goes to the log only. http.ErrAbortHandler is not an accident and passes through.
func Recover(log *slog.Logger) Middleware {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			x, w, r := ensure(w, r)
			defer func() {
				if v := recover(); v != nil {
					recovered(log, x, r, v)
				}
			}()
			next.ServeHTTP(w, r)
		})
	}
}

func recovered(log *slog.Logger, x *Exchange, r *http.Request, v any) {
	p, ok := v.(*Panic)
	if !ok {
		p = &Panic{Value: v, Stack: debug.Stack()}
	}
	if p.Value == http.ErrAbortHandler {
		panic(http.ErrAbortHandler)
	}
	x.Write(func(j *Journal) {
		j.Decide("panic")
		j.panic = p
	})
	log.Error("panic", "request_id", x.ID, "panic", fmt.Sprint(p.Value), "stack", string(p.Stack))
	if !x.out.refuse(r, problem.Internal, false) {
		panic(http.ErrAbortHandler)
	}
}

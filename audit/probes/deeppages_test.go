package probes

import (
	"fmt"
	"net/http"
	"strconv"
	"testing"

	"github.com/gantryhq/gantry/audit"
)

func TestListsThatAreWholeUntilAPageIsAskedForAreNotTakenForDeepOnes(t *testing.T) {
	const rows, size = 1500, 10
	for _, tells := range []bool{true, false} {
		list := func(w http.ResponseWriter, r *http.Request) {
			from, to := 0, rows
			if page, err := strconv.Atoi(r.URL.Query().Get("page")); err == nil {
				from = min(rows, (page-1)*size)
				to = min(rows, from+size)
				if tells {
					w.Header().Set("X-Total-Count", strconv.Itoa(rows))
				}
			}
			things := []any{}
			for i := from; i < to; i++ {
				things = append(things, map[string]any{"id": i, "name": fmt.Sprint("thing ", i)})
			}
			answerJSON(w, 200, things)
		}
		t.Run(fmt.Sprintf("its length is told: %v", tells), func(t *testing.T) {
			h := site(map[string]http.HandlerFunc{"GET /things": list})
			r := outcomes(t, h, func(t *audit.Target) { t.ListPath, t.PageNumber = "/things", "page" }, "DAT-08")
			expect(t, r, "DAT-08", audit.Inconclusive, 0)
		})
	}
}

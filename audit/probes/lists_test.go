package probes

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantryhq/gantry/audit"
)

// asked is what a request for a list wants.
type asked struct {
	limit, page, offset int
	bad                 bool // the limit is no number
	nth                 int64
	r                   *http.Request
}

// listAPI answers /rows by list, with the parameters read.
func listAPI(list func(w http.ResponseWriter, a asked)) http.Handler {
	var n atomic.Int64
	return api(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/rows" {
			return false
		}
		a := asked{limit: 20, page: 1, nth: n.Add(1), r: r}
		for name, into := range map[string]*int{"limit": &a.limit, "page": &a.page, "offset": &a.offset} {
			if text := r.FormValue(name); text != "" {
				var err error
				if *into, err = strconv.Atoi(text); err != nil {
					a.bad = true
				}
			}
		}
		list(w, a)
		return true
	})
}

// rowsFrom are n rows of all from the one at start.
func rowsFrom(start, n, all int) []any {
	list := []any{}
	for i := max(start, 0); i < min(start+n, all); i++ {
		list = append(list, map[string]any{"id": i, "name": fmt.Sprint("name ", i), "tags": []string{"a", "b"}})
	}
	return list
}

func listKnobs(number string) func(string, *audit.Target, *audit.Config) {
	return func(_ string, t *audit.Target, _ *audit.Config) { t.ListPath, t.PageNumber = "/rows", number }
}

func TestTheRowsOfAListAreFound(t *testing.T) {
	for body, want := range map[string]int{
		`[{"a":1},{"a":2}]`: 2, `[]`: 0,
		`{"columns":["a","b"],"items":[{"a":1}],"total":9}`:                            1,
		`{"errors":[],"data":{"orders":{"edges":[{"node":1},{"node":2},{"node":3}]}}}`: 3,
		`{"_embedded":{"orders":[{"lines":[1,2,3,4]}]},"_links":{"self":{}}}`:          1,
		`{"data":[{"id":1},{"id":2}],"included":[{"id":7}]}`:                           2,
		`{"results":[1,2,3]}`:                  3,
		`{"results":[{"a":1},{"a":2},{"a":`:    2, // cut off
		`{"a":{"b":{"c":{"d":{"e":{"f":{"g":[`: -1,
		`{"error":"no"}`:                       -1, `<html>`: -1,
	} {
		r, ok := findRows([]byte(body))
		if got := len(r.list); ok != (want >= 0) || ok && got != want {
			t.Errorf("%s: %d rows (%v), want %d", body, got, ok, want)
		}
	}
}

func TestTotalsAndNextLinksAreRead(t *testing.T) {
	for _, c := range []struct {
		header http.Header
		body   string
		total  int
		next   bool
	}{
		{nil, `{"count":120,"next":"http://x/?page=2","results":[]}`, 120, true},
		{nil, `{"count":20,"next":null,"results":[]}`, 20, false},
		{nil, `{"data":[],"meta":{"totalElements":7,"has_more":false}}`, 7, false},
		{nil, `{"items":[{"total":99,"next":"x"}]}`, 0, false}, // a row's own
		{audit.Header("X-Total-Count", "31"), `[]`, 31, false},
		{audit.Header("Content-Range", "items 0-9/312"), `[]`, 312, false},
		{audit.Header("Link", `<http://x/?page=2>; rel="next"`), `[]`, 0, true},
	} {
		x := &audit.Exchange{Header: c.header, Body: []byte(c.body)}
		if x.Header == nil {
			x.Header = http.Header{}
		}
		if total, _ := totalOf(x); total != c.total || leadsOn(x) != c.next {
			t.Errorf("%v %s: total %d, next %v; want %d, %v", c.header, c.body, total, leadsOn(x), c.total, c.next)
		}
	}
}

func TestQueryCountsAreRead(t *testing.T) {
	for _, c := range []struct {
		name, value string
		want        int
	}{
		{"X-Query-Count", "12", 12},
		{"X-DB-Queries", "3", 3},
		{"X-Total-Queries", "4", 4},
		{"X-Db-Query-Count", "5", 5},
		{"Server-Timing", `SQLPanel_sql_time;dur=1.5;desc="SQL 51 queries"`, 51},
		{"Server-Timing", `db;dur=53.2, app;dur=47`, 0},
		{"X-Ratelimit-Remaining", "12", 0},
		{"X-Query-Time", "12", 0},
		{"X-Query-Count", "many", 0},
	} {
		if got, _ := queriesOf(&audit.Exchange{Header: audit.Header(c.name, c.value)}); got != c.want {
			t.Errorf("%s: %s: %d queries, want %d", c.name, c.value, got, c.want)
		}
	}
}

func TestTheCostOfARowIsToldFromOtherSlowness(t *testing.T) {
	page := func(w http.ResponseWriter, a asked, all int) { answerJSON(w, 200, rowsFrom(0, min(a.limit, 100), all)) }
	for _, c := range []struct {
		name string
		list func(http.ResponseWriter, asked)
		want audit.Outcome
		says string
	}{
		{"a query for each row", func(w http.ResponseWriter, a asked) {
			time.Sleep(time.Duration(a.limit) * 2300 * time.Microsecond)
			page(w, a, 500)
		}, audit.Fail, "suspected"},
		{"flat", func(w http.ResponseWriter, a asked) { page(w, a, 500) }, audit.Pass, "ms a row"},
		{"slow, and flat", func(w http.ResponseWriter, a asked) { time.Sleep(20 * time.Millisecond); page(w, a, 500) }, audit.Pass, "ms a row"},
		{"few rows", func(w http.ResponseWriter, a asked) { page(w, a, 60) }, audit.Inconclusive, "only 60 rows"},
		{"none", func(w http.ResponseWriter, a asked) { page(w, a, 0) }, audit.Inconclusive, "empty"},
		{"pages of one size", func(w http.ResponseWriter, _ asked) { answerJSON(w, 200, rowsFrom(0, 20, 500)) }, audit.Inconclusive, "no effect"},
		{"not a list", func(w http.ResponseWriter, _ asked) { answerJSON(w, 200, map[string]any{"a": 1}) }, audit.Inconclusive, "no page"},
		{"refused", func(w http.ResponseWriter, _ asked) { answerJSON(w, 401, nil) }, audit.Inconclusive, "401"},
		{"down after the first round", func(w http.ResponseWriter, a asked) {
			if a.nth > 7 {
				answerJSON(w, 500, nil)
				return
			}
			page(w, a, 500)
		}, audit.Inconclusive, ""},
		{"from a cache", func(w http.ResponseWriter, a asked) { w.Header().Set("Age", "7"); page(w, a, 500) }, audit.Inconclusive, "cache"},
		{"a header that counts since the start", func(w http.ResponseWriter, a asked) {
			w.Header().Set("X-Query-Count", fmt.Sprint(7*a.nth))
			page(w, a, 500)
		}, audit.Pass, "ms a row"},
		{"a header that grows", func(w http.ResponseWriter, a asked) {
			w.Header().Set("X-Query-Count", fmt.Sprint(1+a.limit))
			page(w, a, 500)
		}, audit.Fail, "2 queries for 1 rows, 101 for 100"},
		{"a header that grows, few rows", func(w http.ResponseWriter, a asked) {
			w.Header().Set("X-Query-Count", fmt.Sprint(1+min(a.limit, 40)))
			page(w, a, 40)
		}, audit.Fail, "41 for 40"},
		{"a loader in batches", func(w http.ResponseWriter, a asked) {
			w.Header().Set("X-Query-Count", fmt.Sprint(2+a.limit/40))
			page(w, a, 500)
		}, audit.Pass, "queries"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asks atomic.Int64
			f := auditOf(t, listAPI(func(w http.ResponseWriter, a asked) { asks.Store(a.nth); c.list(w, a) }), listKnobs(""), "DAT-06")
			wantOutcome(t, f, c.want, 0)
			if asks.Load() > 50 {
				t.Errorf("%d requests, want 50 at most", asks.Load())
			}
			if !strings.Contains(f.Message, c.says) {
				t.Errorf("it says %q, want %q in it", f.Message, c.says)
			}
		})
	}
}

func TestAPageIsCappedWhenMoreRowsExist(t *testing.T) {
	capped := func(a asked, all int) []any {
		if a.limit < 1 {
			a.limit = 20
		}
		return rowsFrom((a.page-1)*min(a.limit, 50)+a.offset, min(a.limit, 50), all)
	}
	huge := strings.Repeat("x", 200<<10)
	for _, c := range []struct {
		name   string
		number string
		list   func(http.ResponseWriter, asked)
		want   audit.Outcome
	}{
		{"capped, with a total", "", func(w http.ResponseWriter, a asked) {
			answerJSON(w, 200, map[string]any{"rows": capped(a, 400), "total": 400})
		}, audit.Pass},
		{"capped, with a next link", "", func(w http.ResponseWriter, a asked) {
			w.Header().Set("Link", `</rows?page=2>; rel="next"`)
			answerJSON(w, 200, capped(a, 400))
		}, audit.Pass},
		{"capped, with a second page", "page", func(w http.ResponseWriter, a asked) { answerJSON(w, 200, capped(a, 400)) }, audit.Pass},
		{"capped, with an offset", "offset", func(w http.ResponseWriter, a asked) { answerJSON(w, 200, capped(a, 400)) }, audit.Pass},
		{"the number has no effect", "number", func(w http.ResponseWriter, a asked) { answerJSON(w, 200, capped(a, 400)) }, audit.Inconclusive},
		{"capped, and nothing tells", "", func(w http.ResponseWriter, a asked) { answerJSON(w, 200, capped(a, 400)) }, audit.Inconclusive},
		{"a few rows only", "page", func(w http.ResponseWriter, a asked) {
			n := a.limit
			if n < 1 {
				n = 20
			}
			answerJSON(w, 200, map[string]any{"count": 300, "rows": rowsFrom((a.page-1)*n, n, 300)})
		}, audit.Inconclusive},
		{"refused", "", func(w http.ResponseWriter, a asked) {
			if a.bad || a.limit < 1 || a.limit > 100 {
				answerJSON(w, 422, nil)
				return
			}
			answerJSON(w, 200, rowsFrom(0, a.limit, 400))
		}, audit.Pass},
		{"another parameter", "", func(w http.ResponseWriter, _ asked) {
			answerJSON(w, 200, map[string]any{"rows": rowsFrom(0, 20, 5000), "total": 5000})
		}, audit.Inconclusive},
		{"all for -1", "", func(w http.ResponseWriter, a asked) {
			if a.limit == -1 {
				answerJSON(w, 200, rowsFrom(0, 3000, 3000))
				return
			}
			answerJSON(w, 200, capped(a, 3000))
		}, audit.Fail},
		{"500 for abc", "", func(w http.ResponseWriter, a asked) {
			if a.bad {
				answerJSON(w, 500, nil)
				return
			}
			answerJSON(w, 200, map[string]any{"rows": capped(a, 400), "total": 400})
		}, audit.Fail},
		{"500 once", "", func(w http.ResponseWriter, a asked) {
			if a.nth == 3 {
				answerJSON(w, 500, nil)
				return
			}
			answerJSON(w, 200, map[string]any{"rows": capped(a, 400), "total": 400})
		}, audit.Inconclusive},
		{"the token ends", "", func(w http.ResponseWriter, a asked) {
			if a.nth > 2 {
				answerJSON(w, 401, nil)
				return
			}
			answerJSON(w, 200, map[string]any{"rows": capped(a, 400), "total": 400})
		}, audit.Inconclusive},
		{"few rows, each huge", "", func(w http.ResponseWriter, a asked) {
			list := []any{}
			for i := range max(1, min(a.limit, 100)) {
				list = append(list, map[string]any{"id": i, "text": huge})
			}
			answerJSON(w, 200, map[string]any{"rows": list, "total": 5000})
		}, audit.Inconclusive},
		{"an endless page", "", func(w http.ResponseWriter, a asked) {
			row := `{"id":1,"text":"` + huge[:4<<10] + `"}`
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, "["+row)
			for range min(max(a.limit, 1), 3000) - 1 {
				io.WriteString(w, ","+row)
			}
			io.WriteString(w, "]")
		}, audit.Fail},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := auditOf(t, listAPI(c.list), func(url string, target *audit.Target, cfg *audit.Config) {
				listKnobs(c.number)(url, target, cfg)
				cfg.Policy.Deadline = 20 * time.Second // twelve megabytes come slowly on a busy machine
			}, "DAT-07")
			wantOutcome(t, f, c.want, 0)
		})
	}
}

func TestDeepPagesAndFiltersAreComparedWithTheFirstPage(t *testing.T) {
	const slow = 230 * time.Millisecond
	total := func(w http.ResponseWriter, a asked, all int) {
		answerJSON(w, 200, map[string]any{"rows": rowsFrom((a.page-1)*20, 20, all), "total": all})
	}
	filters := []audit.Operation{{Method: "GET", Path: "/rows", Params: []audit.Param{
		{Name: "limit", In: "query"},
		{Name: "page", In: "query"},
		{Name: "fields", In: "query"},
		{Name: "name", In: "query", Type: "string"},
		{Name: "sort", In: "query", Enum: []string{"name", "-name", "id", "-id"}},
		{Name: "q", In: "query"},
		{Name: "a", In: "query"},
		{Name: "b", In: "query"},
	}}}
	for _, c := range []struct {
		name   string
		number string
		ops    []audit.Operation
		list   func(http.ResponseWriter, asked)
		want   audit.Outcome
		says   string
	}{
		{"all quick", "page", filters, func(w http.ResponseWriter, a asked) {
			time.Sleep(4 * time.Millisecond)
			total(w, a, 30_000)
		}, audit.Pass, "of 7 ways"},
		{"a slow filter", "", filters, func(w http.ResponseWriter, a asked) {
			if a.r.FormValue("name") == "name 0" { // of the first row
				time.Sleep(slow)
			}
			total(w, a, 30_000)
		}, audit.Fail, "name=name 0"},
		{"slow deep pages, whose number is not told", "page", nil, func(w http.ResponseWriter, a asked) {
			if a.page > 500 {
				time.Sleep(slow)
			}
			answerJSON(w, 200, rowsFrom((a.page-1)*20, 20, 30_000))
		}, audit.Fail, "page=501"},
		{"slow once", "page", nil, func(w http.ResponseWriter, a asked) {
			if a.nth == 5 {
				time.Sleep(slow)
			}
			time.Sleep(4 * time.Millisecond)
			total(w, a, 30_000)
		}, audit.Pass, ""},
		{"everything is slow", "page", nil, func(w http.ResponseWriter, a asked) {
			time.Sleep(60 * time.Millisecond)
			total(w, a, 30_000)
		}, audit.Pass, ""},
		{"a small table", "page", filters, func(w http.ResponseWriter, a asked) { total(w, a, 900) }, audit.Inconclusive, "900 rows"},
		{"a small table, not told", "page", filters, func(w http.ResponseWriter, a asked) {
			answerJSON(w, 200, rowsFrom((a.page-1)*20, 20, 900))
		}, audit.Inconclusive, "not known"},
		{"deep pages are refused", "page", nil, func(w http.ResponseWriter, a asked) {
			if a.page > 100 {
				answerJSON(w, 400, nil)
				return
			}
			total(w, a, 30_000)
		}, audit.Pass, "refused"},
		{"the page has no effect", "page", nil, func(w http.ResponseWriter, _ asked) {
			answerJSON(w, 200, map[string]any{"rows": rowsFrom(0, 20, 30_000), "total": 30_000})
		}, audit.Inconclusive, "no effect"},
		{"nothing is known to ask for", "", nil, func(w http.ResponseWriter, a asked) { total(w, a, 30_000) }, audit.Inconclusive, "no filter"},
		{"broken filters", "", filters, func(w http.ResponseWriter, a asked) {
			if a.r.URL.RawQuery != "" {
				answerJSON(w, 500, nil)
				return
			}
			total(w, a, 30_000)
		}, audit.Inconclusive, "neither"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asks atomic.Int64
			f := auditOf(t, listAPI(func(w http.ResponseWriter, a asked) { asks.Store(a.nth); c.list(w, a) }), func(_ string, t *audit.Target, _ *audit.Config) {
				t.ListPath, t.PageNumber, t.Operations = "/rows", c.number, c.ops
			}, "DAT-08")
			wantOutcome(t, f, c.want, 0)
			if !strings.Contains(f.Message, c.says) {
				t.Errorf("it says %q, want %q in it", f.Message, c.says)
			}
			if asks.Load() > 40 {
				t.Errorf("%d requests, want 40 at most", asks.Load())
			}
		})
	}
}

package probes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

// jsonRow is one row as it came.
type jsonRow = json.RawMessage

// rows are the elements of an array in an answer.
type rows struct {
	path string // of the array: names with dots before them; empty when it is the whole answer
	list []jsonRow
}

// sameRow says whether two rows are the same: by their id when both have one.
func sameRow(a, b jsonRow) bool {
	idA, hasA := field(a, "id")
	idB, hasB := field(b, "id")
	if hasA && hasB {
		return fmt.Sprint(idA) == fmt.Sprint(idB)
	}
	return bytes.Equal(a, b)
}

// rowsDepth is how many objects deep the rows of a list may lie.
const rowsDepth = 6

// usualRows are names that APIs give to the rows of a page.
var usualRows = regexp.MustCompile(`(?i)(?:^|[.:])(?:data|items|results?|rows|records|entries|edges|nodes|values?|content|list|features|hits|objects|member)$`)

// findRows finds the rows of a list: an array of objects before one of anything else, a usual name before another, then
// the first. A body that was cut off gives those that came.
func findRows(body []byte) (rows, bool) {
	best, rank := rows{}, -1
	for _, r := range arraysOf(body) {
		if n := r.rank(); n > rank {
			best, rank = r, n
		}
	}
	return best, rank >= 0
}

// rowsAt are those of the array at a path.
func rowsAt(body []byte, path string) (rows, bool) {
	for _, r := range arraysOf(body) {
		if r.path == path {
			return r, true
		}
	}
	return rows{}, false
}

func (r rows) rank() int {
	n := 0
	if len(r.list) > 0 && r.list[0][0] == '{' {
		n += 2
	}
	if r.path == "" || usualRows.MatchString(r.path) {
		n++
	}
	return n
}

// arraysOf are the arrays that lie in no other, in their order.
func arraysOf(body []byte) []rows {
	w := rowWalk{d: json.NewDecoder(bytes.NewReader(body))}
	w.value("", 0)
	return w.found
}

type rowWalk struct {
	d     *json.Decoder
	found []rows
}

// value reads one; false ends the walk: the body is no JSON, or no more of it came.
func (w *rowWalk) value(path string, depth int) bool {
	var skipped json.RawMessage
	if depth > rowsDepth {
		return w.d.Decode(&skipped) == nil
	}
	token, err := w.d.Token()
	switch {
	case err != nil:
		return false
	case token == json.Delim('['):
		return w.array(path)
	case token == json.Delim('{'):
		return w.object(path, depth)
	}
	return true
}

func (w *rowWalk) array(path string) bool {
	w.found = append(w.found, rows{path: path})
	r := &w.found[len(w.found)-1]
	for w.d.More() {
		var row json.RawMessage
		if w.d.Decode(&row) != nil {
			return false
		}
		r.list = append(r.list, row)
	}
	_, err := w.d.Token()
	return err == nil
}

func (w *rowWalk) object(path string, depth int) bool {
	for w.d.More() {
		name, err := w.d.Token()
		if err != nil {
			return false
		}
		text, _ := name.(string)
		if !w.value(path+"."+text, depth+1) {
			return false
		}
	}
	_, err := w.d.Token()
	return err == nil
}

var (
	totalName = regexp.MustCompile(`(?i)^(?:count|total|total_?count|total_?(?:items|elements|results|records|rows|hits)|@odata\.count|hydra:totalItems)$`)
	nextName  = regexp.MustCompile(`(?i)^(?:next|next_?(?:page|cursor|url|link|page_?token|token|href)|has_?(?:more|next|next_?page)|@odata\.nextLink|hydra:next)$`)
	rangeOf   = regexp.MustCompile(`/(\d+)$`)
)

// totalOf is how many rows the answer says there are; false when it does not say.
func totalOf(x *audit.Exchange) (int, bool) {
	if n, err := strconv.Atoi(x.Header.Get("X-Total-Count")); err == nil {
		return n, true
	}
	if m := rangeOf.FindStringSubmatch(x.Header.Get("Content-Range")); m != nil {
		n, err := strconv.Atoi(m[1])
		return n, err == nil
	}
	best, said := 0, false
	about(x.Body, func(name string, value json.RawMessage) {
		if n, err := strconv.Atoi(string(value)); err == nil && totalName.MatchString(name) {
			best, said = max(best, n), true
		}
	})
	return best, said
}

// leadsOn says whether the answer names a next page.
func leadsOn(x *audit.Exchange) bool {
	for _, link := range x.Header.Values("Link") {
		if strings.Contains(link, `rel="next"`) || strings.Contains(link, "rel=next") {
			return true
		}
	}
	next := false
	about(x.Body, func(name string, value json.RawMessage) {
		switch string(value) {
		case "null", "false", `""`, "0", "{}":
		default:
			next = next || nextName.MatchString(name)
		}
	})
	return next
}

// about calls each for what an answer says beside its rows: the members of the object, and of the objects in it.
func about(body []byte, each func(name string, value json.RawMessage)) {
	var top map[string]json.RawMessage
	if json.Unmarshal(body, &top) != nil {
		return
	}
	for name, value := range top {
		each(name, value)
		var inner map[string]json.RawMessage
		if value[0] == '{' && json.Unmarshal(value, &inner) == nil {
			for name, value := range inner {
				each(name, value)
			}
		}
	}
}

var (
	queryHeader = regexp.MustCompile(`(?i)^x-(?:.*-)?(?:quer(?:y|ies)-?count|(?:count|num|total)-?(?:sql-|db-)?queries|(?:sql|db|database)-?quer(?:y|ies)|queries)$`)
	queryTiming = regexp.MustCompile(`(?i)(\d+)\s*(?:(?:sql|db|database)\s*)?quer(?:y|ies)|quer(?:y|ies)\s*[:=]\s*(\d+)`)
)

// queriesOf is how many queries to its database the answer says it took.
func queriesOf(x *audit.Exchange) (int, bool) {
	for name := range x.Header {
		if n, err := strconv.Atoi(x.Header.Get(name)); err == nil && n > 0 && queryHeader.MatchString(name) {
			return n, true
		}
	}
	for _, timing := range x.Header.Values("Server-Timing") {
		if m := queryTiming.FindStringSubmatch(timing); m != nil {
			n, err := strconv.Atoi(m[1] + m[2])
			return n, err == nil && n > 0
		}
	}
	return 0, false
}

// fromCache says whether a cache on the way says that it gave the answer.
func fromCache(x *audit.Exchange) bool {
	if age, err := strconv.Atoi(x.Header.Get("Age")); err == nil && age > 0 {
		return true
	}
	for _, name := range []string{"X-Cache", "CF-Cache-Status", "X-Cache-Status", "X-Proxy-Cache"} {
		if strings.Contains(strings.ToUpper(x.Header.Get(name)), "HIT") {
			return true
		}
	}
	return strings.Contains(strings.ToLower(x.Header.Get("Cache-Status")), "; hit")
}

package probes

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/observe"
	"github.com/gantryhq/gantry/audit/stat"
)

const (
	largeTable   = 10_000 // rows from which a missing index shows in time
	mostFilters  = 6      // tried, of those that are documented
	slowest      = 2      // measured in turns with the first page
	watchedTours = 3      // of all filters while the database is watched
)

var (
	offsetName = regexp.MustCompile(`(?i)^(?:offset|skip|start|from|first|start_?index)$`)
	sortName   = regexp.MustCompile(`(?i)^(?:sort|order|ordering|sort_?by|order_?by)$`)
	// pagingName are parameters that neither filter nor sort.
	pagingName = regexp.MustCompile(`(?i)^(?:page|limit|offset|cursor|per_?page|page_?size|page_?number|size|skip|take|top|start|from|fields?|select|include|expand|embed|format|locale|lang|pretty|api_?version|(?:next_?)?page_?token)$`)
)

// isOffset says whether a parameter's name means rows to skip, not pages.
func isOffset(name string) bool { return offsetName.MatchString(name) }

// variant is one way to ask for the list.
type variant struct {
	label string
	query string
	took  []float64 // ms to the first byte
	last  *audit.Exchange
	bad   bool // it is not answered with a list
}

// deepTest is what is known of a list.
type deepTest struct {
	s      *audit.Session
	at     string // where the rows are
	first  *audit.Exchange
	rows   []jsonRow // of the first page
	total  int       // rows that there are at least
	deep   *variant
	noDeep string // why there is no deep page to ask for
	barred bool   // deep pages are refused, which is as good
	// filters and sort orders that the description names
	filters []*variant
}

func deepPages(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	if s.Target().ListPath == "" {
		return audit.Unproven("no list is known").Unlock("--list-path"), nil
	}
	first, err := s.Do(ctx, listRequest(s, "", "first page"))
	if err != nil {
		return audit.Verdict{}, err
	}
	r, ok := findRows(first.Body)
	if !first.OK() || !ok || len(r.list) == 0 {
		return audit.Unproven("no rows of the list came: %s", first).With(first).Unlock("--list-path with rows"), nil
	}
	d := &deepTest{s: s, at: r.path, first: first, rows: r.list}
	d.total, _ = totalOf(first)
	d.filters = filtersOf(s.Target(), r.list[0])
	if err := d.findDeep(ctx); err != nil {
		return audit.Verdict{}, err
	}
	if d.deep == nil && len(d.filters) == 0 && !d.barred {
		return audit.Unproven("%s, and no filter of the list is documented", d.noDeep).With(first).Unlock("--page-number, or --openapi with the list's filters"), nil
	}
	return d.judge(ctx)
}

func (d *deepTest) judge(ctx context.Context) (audit.Verdict, error) {
	seen, unseen := d.watchDatabase(ctx)
	switch {
	case seen.Outcome == observe.Fail:
		return audit.Failed("the database saw it: %s", seenThere(seen)).With(d.first).Measured("tables", seen.Evidence), nil
	case seen.Outcome == observe.Pass && (d.deep == nil || d.total < largeTable):
		return audit.Passed("the database saw the filters (%s): %s", labels(d.filters), seen.Reason).With(d.first), nil
	case seen.Outcome == observe.Pass:
		d.filters = nil // shown
	}
	v, err := d.byTime(ctx)
	if unseen != nil {
		v.Message += "; the database could not be watched: " + unseen.Error()
	} else if seen.Outcome == observe.Pass {
		v.Message += "; of the filters the database saw: " + seen.Reason
	}
	return v, err
}

// filtersOf are the filters and sort orders of the list that the description names, with values of a real row where it
// has them.
func filtersOf(t *audit.Target, row jsonRow) []*variant {
	path, _, _ := strings.Cut(t.ListPath, "?")
	var list []*variant
	for _, op := range t.Operations {
		if op.Method != http.MethodGet || strings.TrimSuffix(op.Path, "/") != strings.TrimSuffix(path, "/") {
			continue
		}
		for _, p := range op.Params {
			if p.In != "query" || p.Name == pageParam(t) || p.Name == t.PageNumber || pagingName.MatchString(p.Name) {
				continue
			}
			for _, value := range filterValues(p, row) {
				list = append(list, &variant{label: p.Name + "=" + value, query: url.QueryEscape(p.Name) + "=" + url.QueryEscape(value)})
			}
		}
	}
	return list[:min(len(list), mostFilters)]
}

// filterValues are up to three orders to sort by, or one value to filter by.
func filterValues(p audit.Param, row jsonRow) []string {
	if sortName.MatchString(p.Name) {
		if len(p.Enum) > 0 {
			return p.Enum[:min(len(p.Enum), 3)]
		}
		if p.Example != "" {
			return []string{p.Example}
		}
		return sortable(row)
	}
	if value, ok := field(row, p.Name); ok {
		switch v := value.(type) {
		case string:
			return []string{v}
		case json.Number:
			return []string{v.String()}
		}
	}
	return []string{sampleOf(p)}
}

// sortable are two members of a row other than its id, for an order whose values are not described.
func sortable(row jsonRow) []string {
	var object map[string]any
	if json.Unmarshal(row, &object) != nil {
		return nil
	}
	var names []string
	for name, value := range object {
		switch value.(type) {
		case string, float64:
			if name != "id" {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names[:min(len(names), 2)]
}

func labels(list []*variant) string {
	var names []string
	for _, v := range list {
		names = append(names, v.label)
	}
	return strings.Join(names, ", ")
}

// findDeep finds the last page, or one behind ten thousand rows.
func (d *deepTest) findDeep(ctx context.Context) error {
	number := d.s.Target().PageNumber
	if number == "" {
		d.noDeep = "no parameter turns the pages"
		return nil
	}
	n := len(d.rows)
	if d.total > 0 && d.total <= n {
		d.noDeep = "there is one page only"
		return nil
	}
	second, err := d.page(ctx, "2", "second page, or from the second row")
	if err != nil {
		return err
	}
	offset, turns := d.meaning(second)
	if !turns {
		d.noDeep = number + " has no effect"
		return nil
	}
	if paged, ok := rowsAt(second.Body, d.at); ok && len(paged.list) > 0 && len(paged.list) < n {
		n = len(paged.list) // some lists are whole until a page is asked for, and tell their length only then
		if d.total == 0 {
			d.total, _ = totalOf(second)
		}
	}
	at := func(row int) string {
		if offset {
			return strconv.Itoa(row)
		}
		return strconv.Itoa(row/n + 1)
	}
	if d.total > n {
		return d.tryDeep(ctx, at(d.total-1-(d.total-1)%n), at(max(0, d.total-2*n)))
	}
	return d.unknownDepth(ctx, at)
}

func (d *deepTest) page(ctx context.Context, number, label string) (*audit.Exchange, error) {
	return d.s.Do(ctx, listRequest(d.s, url.QueryEscape(d.s.Target().PageNumber)+"="+number, label))
}

// meaning of the parameter: what 2 gives begins with the third row of the first page, or with none of its rows.
func (d *deepTest) meaning(second *audit.Exchange) (offset, turns bool) {
	r, ok := rowsAt(second.Body, d.at)
	if !second.OK() || !ok || len(r.list) == 0 {
		return false, false
	}
	place := slices.IndexFunc(d.rows, func(row jsonRow) bool { return sameRow(row, r.list[0]) })
	switch {
	case place == 0:
		return false, false
	case place == 1 || place == 2: // rows may be counted from one
		return true, true
	case place < 0 && len(d.rows) <= 2: // too few rows to see the difference
		return isOffset(d.s.Target().PageNumber), true
	}
	return false, true // a row may have moved on to the next page meanwhile
}

// tryDeep takes the first of some pages that has rows.
func (d *deepTest) tryDeep(ctx context.Context, numbers ...string) error {
	for _, number := range numbers {
		x, err := d.page(ctx, number, "deep page")
		if err != nil {
			return err
		}
		r, _ := rowsAt(x.Body, d.at)
		switch {
		case x.OK() && len(r.list) > 0, x.TimedOut():
			name := d.s.Target().PageNumber
			d.deep = &variant{label: name + "=" + number, query: url.QueryEscape(name) + "=" + number}
			return nil
		case x.Status == http.StatusBadRequest || x.Status == http.StatusUnprocessableEntity:
			d.barred, d.noDeep = true, fmt.Sprintf("deep pages are refused (%s=%s: %d)", d.s.Target().PageNumber, number, x.Status)
			return nil
		}
		d.noDeep = fmt.Sprintf("no deep page came: %s", x)
	}
	return nil
}

// unknownDepth looks whether there is anything behind ten thousand rows, and behind a hundred thousand.
func (d *deepTest) unknownDepth(ctx context.Context, at func(int) string) error {
	for _, row := range []int{largeTable, 10 * largeTable} {
		before := d.deep
		d.deep = nil
		if err := d.tryDeep(ctx, at(row)); err != nil {
			return err
		}
		if d.deep == nil {
			d.deep = before
			d.barred = false // whether it was refused for its depth is not known
			return nil
		}
		d.total = row
	}
	return nil
}

// watchDatabase tours the filters while the database counts what it reads. A tour counts as one request, so that one
// filter without an index among several with one is not taken for somebody else's.
func (d *deepTest) watchDatabase(ctx context.Context) (observe.Verdict, error) {
	if d.s.Database() == nil || len(d.filters) == 0 {
		return observe.Verdict{}, nil
	}
	return d.s.Database().Indexes(ctx, watchedTours, func(ctx context.Context) error {
		for range watchedTours {
			for _, f := range d.filters {
				if err := d.sample(ctx, f); err != nil {
					return err
				}
			}
		}
		d.filters = slices.DeleteFunc(d.filters, func(f *variant) bool { return f.bad })
		if len(d.filters) == 0 {
			return fmt.Errorf("none of the filters is answered with a list")
		}
		return nil
	})
}

// sample asks for a variant once.
func (d *deepTest) sample(ctx context.Context, v *variant) error {
	if v.bad {
		return nil
	}
	x, err := d.s.Do(ctx, listRequest(d.s, v.query, cmp.Or(v.label, "first page")))
	if err != nil {
		return err
	}
	switch _, ok := rowsAt(x.Body, d.at); {
	case x.TimedOut() && x.TTFB == 0:
		v.took, v.last = append(v.took, ms(x.Took)), x
	case !x.OK() || !ok:
		v.bad = true
	default:
		v.took, v.last = append(v.took, ms(x.TTFB)), x
	}
	return nil
}

// byTime measures each once, and the slowest in turns with the first page.
func (d *deepTest) byTime(ctx context.Context) (audit.Verdict, error) {
	if d.total < largeTable {
		return audit.Unproven("%s: too few to tell by time", known(d.total)).With(d.first).Unlock("--list-path with 10,000 rows or more, or --observe-postgres"), nil
	}
	control, list := &variant{}, slices.Clone(d.filters)
	if d.deep != nil {
		list = append(list, d.deep)
	}
	for _, v := range list {
		v.took = nil
	}
	if err := d.samples(ctx, append([]*variant{control}, list...)); err != nil {
		return audit.Verdict{}, err
	}
	list = slices.DeleteFunc(list, func(v *variant) bool { return v.bad })
	switch {
	case control.bad:
		return audit.Unproven("the first page did not come a second time").With(d.first), nil
	case len(list) == 0 && d.barred:
		return audit.Passed("%s", d.noDeep).With(d.first), nil
	case len(list) == 0:
		return audit.Unproven("neither a deep page nor a documented filter is answered with a list").With(d.first).Unlock("--page-number, --openapi"), nil
	}
	slices.SortFunc(list, func(a, b *variant) int { return cmp.Compare(b.took[0], a.took[0]) })
	measured := list[:min(len(list), slowest)]
	for n := 1; n < d.turns(measured[0]); n++ {
		order := append([]*variant{control}, measured...)
		if n%2 == 0 {
			slices.Reverse(order)
		}
		if err := d.samples(ctx, order); err != nil {
			return audit.Verdict{}, err
		}
	}
	v := d.compare(control, measured, len(list))
	if v.Outcome == audit.Fail {
		return v, d.s.Control(ctx)
	}
	return v, nil
}

// turns are fewer when each takes long.
func (d *deepTest) turns(v *variant) int {
	if v.took[0] > 1000 {
		return stat.MinSamples
	}
	return inTurns
}

func (d *deepTest) samples(ctx context.Context, list []*variant) error {
	for _, v := range list {
		if err := d.sample(ctx, v); err != nil {
			return err
		}
	}
	return nil
}

func known(total int) string {
	if total == 0 {
		return "how many rows there are is not known"
	}
	return fmt.Sprintf("the list has %d rows", total)
}

// compare holds what was measured to the first page: a fault is 10 times and 200 ms, and more than three times the noise.
func (d *deepTest) compare(control *variant, measured []*variant, asked int) audit.Verdict {
	var between *variant
	var worst stat.Comparison
	const quickPage = 50 // ms: under that nobody waits, however much faster the first page is
	var figures string
	for _, v := range measured {
		c := stat.Compare(control.took, v.took)
		said := fmt.Sprintf("%s takes %.1f ms, the first page %.1f ms", v.label, c.Other, c.Base)
		switch {
		case c.Exceeds(10, 0) == stat.Yes && c.Other >= 200:
			return audit.Failed("%s", said).With(v.last, control.last).Measured("ratio", c.Ratio)
		case c.N < stat.MinSamples || c.Ratio >= 5 && c.Other >= quickPage || c.Other >= 500:
			between, worst, figures = v, c, said
		case between == nil && (figures == "" || c.Ratio > worst.Ratio):
			worst, figures = c, said
		}
	}
	if between != nil {
		return audit.Unproven("%s: neither quick enough to pass nor surely too slow", figures).With(between.last, control.last).Measured("ratio", worst.Ratio)
	}
	v := audit.Passed("of %d ways to ask for deep, filtered or sorted pages the slowest: %s", asked, figures).With(measured[0].last, control.last).Measured("ratio", worst.Ratio)
	if d.barred {
		v.Message += "; " + d.noDeep
	}
	return v
}

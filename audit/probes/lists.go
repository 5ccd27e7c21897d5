package probes

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/observe"
	"github.com/gantryhq/gantry/audit/stat"
)

func lists() []audit.Probe {
	return []audit.Probe{
		{
			ID: "DAT-06", Title: "Cost of each row of a list", Severity: audit.High, Mode: audit.Safe, Category: audit.Data, Confirms: true,
			Sends:        "GETs of the list with 1, 10, 25, 50 and 100 rows, 9 times in turns (45 requests; 20 when the database is watched, and 20 more when a cache is)",
			Passes:       "time grows by less than 0.5 ms a row, a header with the number of queries stays flat, or the database sees no statement that grows with the page",
			Fails:        "over 2 ms a row in a straight line, and three times from 10 to 100 rows (suspected); or the queries seen in a header, or by the database, grow with the page (proven)",
			Inconclusive: "fewer than 100 rows, no parameter for the size of a page, answers from a cache, or noise larger than the effect",
			Guard:        "the time to the first byte is what fails, so transfer is not counted, and the time of the whole answer is what passes",
			Knobs:        []string{"--list-path", "--page-param", "--observe-postgres", "--observe-valkey"},
			Refs:         []string{"CWE-1073", "OWASP API4:2023"},
			Why:          "A query for each row is quick with ten rows in staging, and takes seconds with the customer who has a thousand.",
			Fix:          "Fetch what belongs to the rows of a page in one statement: a join, IN (...), the ORM's eager loading, or a batch loader.",
			Run:          rowCost,
		},
		{
			ID: "DAT-07", Title: "Cap on the size of a page", Severity: audit.High, Mode: audit.Safe, Category: audit.Data, Confirms: true,
			Sends:        "GETs of the list with a page size of 1000, 100000, -1, 0 and abc, after one without it and one with 1 (about 10 requests)",
			Passes:       "each is refused with 400 or 422, or gives at most 1000 rows and 5 MiB while more rows are known to exist",
			Fails:        "more rows than the cap, or an error of the server",
			Inconclusive: "no more rows than were returned are known to exist, or the parameter has no effect",
			Guard:        "reading stops at 8 MiB; what fails is sent again; more rows are known by a total, a next link or a second page",
			Knobs:        []string{"--list-path", "--page-param", "--page-number"},
			Refs:         []string{"OWASP API4:2023", "CWE-770"},
			Why:          "One request for everything takes the memory of the API and the time of its database.",
			Fix:          "Clamp the size to 100 or refuse a larger one; give cursors for what follows.",
			Run:          pageCap,
		},
		{
			ID: "DAT-08", Title: "Deep pages and filters (missing index)", Severity: audit.Medium, Mode: audit.Safe, Category: audit.Data, Confirms: true,
			Sends:        "the first and the last page in turns, and once each documented filter and sort order of the list; the two slowest of these 9 times in turns with the first page (at most 40 requests)",
			Passes:       "each takes less than 5 times the first page, and less than 500 ms; or the database reads no large table from end to end",
			Fails:        "10 times the first page and 200 ms or more; or the database reads a table of 1,000 rows or more from end to end to find a few",
			Inconclusive: "fewer than 10,000 rows, no page parameter and no documented filter, or in between",
			Guard:        "medians, in turns with the first page, and more than three times the noise",
			Knobs:        []string{"--list-path", "--page-number", "--openapi", "--observe-postgres"},
			Refs:         []string{"CWE-1049"},
			Why:          "Pages get slower with every customer won, until a search takes the database down.",
			Fix:          "An index on what is filtered and sorted by; keyset pagination (WHERE id > last) instead of OFFSET.",
			Run:          deepPages,
		},
	}
}

// pageSizes that DAT-06 asks for.
var pageSizes = []int{1, 10, 25, 50, 100}

const (
	inTurns    = 9 // samples of each
	watchedFor = 5 // requests for each size while the database is watched
	fewGrown   = 5 // queries that may come with a larger page: a loader in batches
)

// pageSamples are what pages of one size took.
type pageSamples struct {
	rows    int
	first   []float64 // ms to the first byte
	whole   []float64 // ms to the last
	queries []int
	last    *audit.Exchange
}

// pages asks for a list in several sizes.
type pages struct {
	s       *audit.Session
	param   string
	at      string // where the rows are
	samples map[int]*pageSamples
	refused *audit.Exchange // an answer that was not a page
	cached  *audit.Exchange
}

// pageParam is the parameter of a page's size.
func pageParam(t *audit.Target) string {
	if t.PageParam != "" {
		return t.PageParam
	}
	return "limit"
}

// listRequest asks for the list with a query added.
func listRequest(s *audit.Session, query, label string) audit.Request {
	return audit.Request{Path: withQuery(s.Target().ListPath, query), Token: s.Target().Token, Label: label, Limit: 8 << 20}
}

func (p *pages) request(size int) audit.Request {
	return listRequest(p.s, fmt.Sprintf("%s=%d", p.param, size), fmt.Sprintf("a page of %d", size))
}

// round asks once for each size, in turns forwards and backwards.
func (p *pages) round(ctx context.Context, n int) error {
	order := slices.Clone(pageSizes)
	if n%2 == 0 {
		slices.Reverse(order) // the largest page first: it shows where the rows are
	}
	for _, size := range order {
		x, err := p.s.Do(ctx, p.request(size))
		if err != nil {
			return err
		}
		p.note(size, x)
	}
	return nil
}

func (p *pages) note(size int, x *audit.Exchange) {
	if !x.OK() || x.Err != nil || x.Cut {
		p.refused = x
		return
	}
	if len(p.samples) == 0 {
		found, ok := findRows(x.Body)
		if !ok {
			p.refused = x
			return
		}
		p.at = found.path
	}
	r, ok := rowsAt(x.Body, p.at)
	if !ok {
		p.refused = x
		return
	}
	if p.samples[size] == nil {
		p.samples[size] = &pageSamples{}
	}
	one := p.samples[size]
	one.rows, one.last = len(r.list), x
	one.first, one.whole = append(one.first, ms(x.TTFB)), append(one.whole, ms(x.Took))
	if q, ok := queriesOf(x); ok {
		one.queries = append(one.queries, q)
	}
	if fromCache(x) {
		p.cached = x
	}
}

// sizes that were answered, smallest first.
func (p *pages) sizes() []int { return slices.Sorted(maps.Keys(p.samples)) }

func (p *pages) ends() (small, large *pageSamples) {
	sizes := p.sizes()
	return p.samples[sizes[0]], p.samples[sizes[len(sizes)-1]]
}

func rowCost(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	if s.Target().ListPath == "" {
		return audit.Unproven("no list is known").Unlock("--list-path"), nil
	}
	p := &pages{s: s, param: pageParam(s.Target()), samples: map[int]*pageSamples{}}
	if err := p.round(ctx, 0); err != nil {
		return audit.Verdict{}, err
	}
	if v := p.usable(); v.Message != "" {
		return v, nil
	}
	v, err := p.judge(ctx)
	if err != nil {
		return v, err
	}
	if err := p.watchCache(ctx); err != nil {
		v.Message += "; the cache could not be watched: " + err.Error()
	}
	return v, ctx.Err()
}

// usable says why nothing can be learnt from the list, or nothing.
func (p *pages) usable() audit.Verdict {
	if len(p.samples) == 0 {
		return audit.Unproven("no page of the list came: %s", p.refused).With(p.refused).Unlock("--list-path, --page-param")
	}
	small, large := p.ends()
	switch {
	case large.rows == 0:
		return audit.Unproven("the list is empty").With(large.last).Unlock("--list-path with 100 rows or more")
	case small.rows == large.rows:
		return audit.Unproven("%d rows come for a size of %d and of %d: %s has no effect", large.rows, p.sizes()[0], p.sizes()[len(p.sizes())-1], p.param).
			With(large.last).Unlock("--page-param")
	}
	return audit.Verdict{}
}

// judge takes the best proof that there is: the database's, a header's, or time. A database that cannot be watched leaves
// the others.
func (p *pages) judge(ctx context.Context) (audit.Verdict, error) {
	seen, unseen := p.watchDatabase(ctx)
	if seen.Outcome != audit.Inconclusive {
		return seen, nil
	}
	v, err := p.inTurns(ctx)
	if unseen != nil {
		v.Message += "; the database could not be watched: " + unseen.Error()
	}
	return v, err
}

// inTurns goes on with the sizes until the answers' header or their time tells.
func (p *pages) inTurns(ctx context.Context) (audit.Verdict, error) {
	for n := 1; n < inTurns; n++ {
		if n == 3 {
			if v := p.byHeader(); v.Outcome != audit.Inconclusive {
				return v, nil
			}
		}
		if _, large := p.ends(); large.rows < 100 && (n == 3 || len(large.queries) == 0) {
			return audit.Unproven("only %d rows came for a size of %d: too few to tell what each costs", large.rows, p.sizes()[len(p.sizes())-1]).
				With(large.last).Unlock("--list-path with 100 rows or more, --page-param, --observe-postgres"), nil
		}
		if err := p.round(ctx, n); err != nil {
			return audit.Verdict{}, err
		}
	}
	v := p.byTime()
	if v.Outcome == audit.Fail {
		return v, p.s.Control(ctx)
	}
	return v, nil
}

// watchDatabase asks for a few sizes while the database counts its statements. Inconclusive when it cannot tell.
func (p *pages) watchDatabase(ctx context.Context) (audit.Verdict, error) {
	_, large := p.ends()
	if p.s.Database() == nil || large.rows < 10 {
		return audit.Verdict{}, nil
	}
	var sizes []int
	for _, size := range []int{1, 10, p.sizes()[len(p.sizes())-1]} {
		if p.samples[size] != nil && !slices.Contains(sizes, size) {
			sizes = append(sizes, size)
		}
	}
	v, err := p.s.Database().Growth(ctx, sizes, watchedFor, func(ctx context.Context, size int) error {
		return times(ctx, p.s, watchedFor, p.request(size))
	})
	switch {
	case err != nil:
		return audit.Verdict{}, err
	case v.Outcome == observe.Fail:
		return audit.Failed("the database saw it: %s", seenThere(v)).With(large.last).Measured("statements", v.Evidence), nil
	case v.Outcome == observe.Pass:
		return audit.Passed("the database saw it: %s", v.Reason).With(large.last), nil
	}
	return audit.Verdict{}, nil
}

// seenThere is a verdict's reason with the most telling of its evidence.
func seenThere(v observe.Verdict) string {
	if len(v.Evidence) == 0 {
		return v.Reason
	}
	return v.Reason + "; " + v.Evidence[0]
}

// times sends the same read so many times, one after another, at the polite pace. An answer of another kind is an error:
// what it did behind the API is not what the page does.
func times(ctx context.Context, s *audit.Session, n int, r audit.Request) error {
	for range n {
		x, err := s.Do(ctx, r)
		if err != nil {
			return err
		}
		if !x.OK() {
			return fmt.Errorf("while it was watched from behind: %s", x)
		}
	}
	return nil
}

// watchCache repeats the largest page while the cache counts its hits, and then its commands.
func (p *pages) watchCache(ctx context.Context) error {
	cache := p.s.Cache()
	if cache == nil {
		return nil
	}
	const reads = 10
	sizes := p.sizes()
	send := func(ctx context.Context) error { return times(ctx, p.s, reads, p.request(sizes[len(sizes)-1])) }
	for _, look := range []struct {
		id, title string
		ask       func(context.Context, int, func(context.Context) error) (observe.Verdict, error)
	}{
		{"CACHE-hits", "The same read is found in the cache", cache.Hits},
		{"CACHE-commands", "Round trips to the cache for a read", cache.Commands},
	} {
		v, err := look.ask(ctx, reads, send)
		if err != nil {
			return err
		}
		p.s.Saw(audit.Seen{ID: look.id, Title: look.title, Root: "DAT-06", Severity: audit.Medium, Vantage: "valkey", Verdict: v})
	}
	return nil
}

// byHeader judges by the number of queries that the answers tell. The first round may have filled a cache; after it the
// numbers must be the same each time, or they count something else.
func (p *pages) byHeader() audit.Verdict {
	small, large := p.ends()
	var counts []int
	for _, size := range p.sizes() {
		q := p.samples[size].queries
		if len(q) < 3 || q[len(q)-1]-q[len(q)-2] > 1 || q[len(q)-2]-q[len(q)-1] > 1 {
			return audit.Verdict{}
		}
		counts = append(counts, q[len(q)-1])
	}
	first, last := counts[0], counts[len(counts)-1]
	figures := fmt.Sprintf("%d queries for %d rows, %d for %d, as its own header counts them", first, small.rows, last, large.rows)
	switch {
	case large.rows-small.rows < 10:
		return audit.Verdict{}
	case slices.IsSorted(counts) && last-first >= fewGrown && last >= 2*first:
		return audit.Failed("%s", figures).With(small.last, large.last)
	case slices.Max(counts)-slices.Min(counts) < fewGrown:
		return audit.Passed("%s", figures).With(small.last, large.last)
	}
	return audit.Verdict{}
}

// byTime judges by how long the pages took.
func (p *pages) byTime() audit.Verdict {
	var rows, first, whole []float64
	for _, size := range p.sizes() {
		one := p.samples[size]
		rows = append(rows, float64(one.rows))
		first, whole = append(first, stat.Median(one.first)), append(whole, stat.Median(one.whole))
	}
	_, large := p.ends()
	fit, fitted := stat.Regress(rows, first)
	fitWhole, _ := stat.Regress(rows, whole)
	if p.samples[10] == nil || p.samples[100] == nil || !fitted {
		return audit.Unproven("pages of 10 and of 100 are needed, and did not come").With(p.refused)
	}
	ends := stat.Compare(p.samples[10].first, p.samples[100].first)
	figures := fmt.Sprintf("%.2f ms a row (%.1f ms for 10 rows, %.1f ms for %d)", max(fit.Slope, 0), ends.Base, ends.Other, large.rows)
	v := judgeCost(fit, fitWhole, ends, figures)
	if v.Outcome == audit.Pass && p.cached != nil {
		v = audit.Unproven("the answers come from a cache on the way, which hides what rows cost: %s", figures).With(p.cached)
	}
	return v.With(large.last).Measured("msPerRow", fit.Slope).Measured("r2", fit.R2).Drawn(audit.Chart{
		Title: "Time by rows of a page", X: "rows", Y: "ms",
		Series: []audit.Series{{Name: "to the first byte", X: rows, Y: first}, {Name: "whole answer", X: rows, Y: whole}},
	})
}

// judgeCost holds the slopes, in ms a row, to the limits: what fails is seen without transfer, what passes with it.
func judgeCost(first, whole stat.Fit, ends stat.Comparison, figures string) audit.Verdict {
	const cheap, dear, between = 0.5, 2, 90 // ms a row; rows from 10 to 100
	switch slower := ends.Exceeds(3, dear*between); {
	case ends.N < stat.MinSamples:
		return audit.Unproven("only %d pages of each size came", ends.N)
	case first.Slope > dear && first.R2 > 0.9 && slower == stat.Yes:
		return audit.Failed("suspected: a query for each row. %s, in a straight line (R² %.2f)", figures, first.R2)
	case 3*ends.Noise > cheap*between:
		return audit.Unproven("the noise is larger than the effect (%.1f ms): %s", ends.Noise, figures)
	case whole.Slope < cheap:
		return audit.Passed("%s", figures)
	case first.Slope < cheap:
		return audit.Unproven("the first byte is as fast with many rows, the whole answer takes %.2f ms a row: transfer, or rows that are fetched while they are sent", whole.Slope)
	}
	return audit.Unproven("%s: more than a row should cost, less than shows a query for each", figures)
}

// cappedAt is the largest body that a capped page may have, in bytes.
const cappedAt = 5 << 20

func pageCap(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	if s.Target().ListPath == "" {
		return audit.Unproven("no list is known").Unlock("--list-path"), nil
	}
	c := &capTest{s: s, param: pageParam(s.Target())}
	for _, size := range []string{"", "1", "100000", "1000", "-1", "0", "abc"} {
		v, err := c.ask(ctx, size)
		if err != nil || v.Message != "" {
			return v, err
		}
	}
	if err := c.lookBehind(ctx); err != nil {
		return audit.Verdict{}, err
	}
	return c.verdict(), nil
}

// capTest is what sizes of a page that nobody needs are answered with.
type capTest struct {
	s      *audit.Session
	param  string
	at     string // where the rows are
	plain  int    // rows of a page whose size is not given
	exist  int    // rows that there are at least
	taken  []givenPage
	no     []*audit.Exchange // refused as they should be
	unsure *audit.Exchange   // an answer that says nothing of the cap
	effect bool
}

type givenPage struct {
	x    *audit.Exchange
	rows int
}

func (c *capTest) request(size string) audit.Request {
	r := listRequest(c.s, c.param+"="+size, "size "+size)
	if size == "" {
		r = listRequest(c.s, "", "no size")
	}
	r.Timeout = c.s.Policy().Deadline
	return r
}

// ask tries one size; the verdict has a message when there is nothing more to ask.
func (c *capTest) ask(ctx context.Context, size string) (audit.Verdict, error) {
	r := c.request(size)
	x, err := c.s.Do(ctx, r)
	if err != nil {
		return audit.Verdict{}, err
	}
	if size == "" {
		return c.begin(x), nil
	}
	if c.excess(x) != "" {
		again, err := c.s.Repeats(ctx, r, func(y *audit.Exchange) bool { return c.excess(y) != "" })
		switch {
		case err != nil:
			return audit.Verdict{}, err
		case again:
			return audit.Failed("%s=%s %s", c.param, size, c.excess(x)).With(x), nil
		}
		c.unsure = x
		return audit.Verdict{}, nil
	}
	c.note(size, x)
	return audit.Verdict{}, nil
}

func (c *capTest) begin(x *audit.Exchange) audit.Verdict {
	r, ok := findRows(x.Body)
	if !x.OK() || !ok || len(r.list) == 0 {
		return audit.Unproven("no rows of the list came: %s", x).With(x).Unlock("--list-path with rows")
	}
	c.at, c.plain = r.path, len(r.list)
	c.exists(x, c.plain)
	return audit.Verdict{}
}

// excess says what is wrong with an answer, or nothing.
func (c *capTest) excess(x *audit.Exchange) string {
	limit := c.s.Policy().PageCap
	if serverFault(x) {
		return fmt.Sprintf("is answered %d", x.Status)
	}
	if r, ok := rowsAt(x.Body, c.at); x.OK() && ok && len(r.list) > limit {
		more := ""
		if x.Cut {
			more = "at least "
		}
		return fmt.Sprintf("gives %s%d rows, more than %d", more, len(r.list), limit)
	}
	return ""
}

func (c *capTest) note(size string, x *audit.Exchange) {
	r, ok := rowsAt(x.Body, c.at)
	switch {
	case x.Status == http.StatusBadRequest || x.Status == http.StatusUnprocessableEntity:
		if size != "1" { // an API that has pages of 10, 20 and 50 only says nothing of a cap by that
			c.no = append(c.no, x)
		}
		c.effect = true
	case !x.OK() || !ok || x.Err != nil || x.Cut || len(x.Body) > cappedAt:
		c.unsure = x
	default:
		c.effect = c.effect || len(r.list) != c.plain
		c.exists(x, len(r.list))
		if size != "1" {
			c.taken = append(c.taken, givenPage{x, len(r.list)})
		}
	}
}

// exists raises the number of rows that there are at least by what an answer with n of them says.
func (c *capTest) exists(x *audit.Exchange, n int) {
	total, _ := totalOf(x)
	c.exist = max(c.exist, n, total)
	if n > 0 && leadsOn(x) {
		c.exist = max(c.exist, n+1)
	}
}

// lookBehind asks for what follows the largest page, when nothing has said yet that there is more.
func (c *capTest) lookBehind(ctx context.Context) error {
	number := c.s.Target().PageNumber
	if len(c.taken) == 0 || number == "" {
		return nil
	}
	largest := slices.MaxFunc(c.taken, func(a, b givenPage) int { return a.rows - b.rows })
	if c.exist > largest.rows || largest.rows == 0 {
		return nil
	}
	next := 2
	if isOffset(number) {
		next = largest.rows
	}
	query := fmt.Sprintf("%s=%d&%s=%d", c.param, largest.rows, number, next)
	x, err := c.s.Do(ctx, listRequest(c.s, query, "what follows the largest page"))
	if err != nil {
		return err
	}
	if r, ok := rowsAt(x.Body, c.at); x.OK() && ok && len(r.list) > 0 && !slices.EqualFunc(r.list, firstRows(largest.x, c.at), sameRow) {
		c.exist = largest.rows + len(r.list)
	}
	return nil
}

func firstRows(x *audit.Exchange, path string) []jsonRow {
	r, _ := rowsAt(x.Body, path)
	return r.list
}

func (c *capTest) verdict() audit.Verdict {
	most := 0
	var last *audit.Exchange
	for _, t := range c.taken {
		if last == nil || t.rows > most {
			most, last = t.rows, t.x
		}
	}
	switch {
	case c.unsure != nil:
		return audit.Unproven("an answer says nothing of the cap: %s", c.unsure).With(c.unsure)
	case !c.effect:
		return audit.Unproven("%s has no effect: the same %d rows come whatever it says", c.param, c.plain).With(last).Unlock("--page-param")
	case len(c.taken) == 0:
		return audit.Passed("each of %d sizes that nobody needs is refused", len(c.no)).With(c.no[0])
	case c.exist <= most:
		return audit.Unproven("%d rows came, and no more are known to exist: the cap was not reached", most).With(last).
			Unlock("--list-path with more than %d rows, or --page-number", c.s.Policy().PageCap)
	}
	return audit.Passed("at most %d rows come, whatever is asked for, of %s or more that exist; %d of %d sizes are refused",
		most, strconv.Itoa(c.exist), len(c.no), len(c.no)+len(c.taken)).With(last)
}

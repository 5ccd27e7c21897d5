package postgres

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gantryhq/gantry/audit/observe"
)

// fewest is how many requests a verdict needs, so that one visitor more makes no difference.
const fewest = 10

// tooFew is the verdict on less.
func tooFew(requests int) observe.Verdict {
	return observe.Verdict{
		Reason: fmt.Sprintf("%d requests are too few to tell", requests),
		Fix:    fmt.Sprintf("send at least %d in a window", fewest),
	}
}

func unseen(name string) observe.Verdict {
	v := observe.Verdict{Reason: name + " could not be seen", Fix: "see what Capabilities says of " + name}
	if name == Counters {
		v.Fix += "; a window for them begins by Begin, not by BeginAtOnce"
	}
	return v
}

func unsettled() observe.Verdict {
	return observe.Verdict{
		Reason: "sessions were at work all the time, so that the counters of the window are not its own",
		Fix:    "repeat it while nothing else works in the database",
	}
}

// PoolVerdict fails when the API opens a connection for every request, or nine of ten, and closes it: it has no pool. It
// passes below one for two requests. Send the requests one after another, at least 10: a pool that is filling opens
// as many connections as are needed at once, and keeps them, which is Unknown.
func PoolVerdict(obs Observation, requests int) observe.Verdict {
	switch {
	case requests < fewest:
		return tooFew(requests)
	case !obs.Known.Opened && !obs.Known.Sessions:
		return unseen(Sessions)
	case !obs.worked():
		return observe.Verdict{Reason: "the requests did nothing in the database", Fix: "name a path that reads it"}
	}
	opened := max(obs.SessionsOpened, int64(obs.SessionsSeen))
	ratio := float64(opened) / float64(requests)
	v := observe.Verdict{
		Reason: fmt.Sprintf("%d requests opened %d connections to the database, %.2f each", requests, opened, ratio),
		Evidence: []string{fmt.Sprintf("at most %d connections to the database at one time, %d to the server of %d that it allows",
			obs.PeakSessions, obs.PeakConnections, obs.MaxConnections)},
	}
	switch kept := float64(obs.SessionsLeft) > 0.5*float64(opened); {
	case ratio >= 0.9 && kept:
		v.Reason += fmt.Sprintf(", and %d were still open at the end: a pool that was filling, or a leak", obs.SessionsLeft)
		v.Fix = "send the same again, one request after another: a pool opens no more"
	case ratio >= 0.9:
		v.Outcome, v.Fix = observe.Fail, "make one pool when the process starts and take connections from it; its size times the processes stays below max_connections"
	case ratio < 0.5:
		v.Outcome = observe.Pass
	default:
		v.Fix = "send more requests, while nothing else connects to the database"
	}
	return v
}

// worked reports whether anything happened in the database.
func (o Observation) worked() bool {
	return o.SessionsOpened > 0 || o.SessionsSeen > 0 || o.SessionsActive > 0 || o.Commits+o.Rollbacks > 0 || len(o.Statements) > 0 || o.WriteCommits > 0
}

const (
	// leastGrowth is by how many calls a statement must grow between the smallest and the largest page; less may be
	// a loader that works in batches.
	leastGrowth = 5
	leastSpread = 5
	// mostTextShown is how much of a statement is evidence, in characters.
	mostTextShown = 300
)

// Growth fails when a statement runs more often the more rows a page has: the N+1 problem. Each window has had the same
// number of requests, for the page size that is its key; the pages must have been full, or there was nothing to grow with.
func Growth(byPageSize map[int]Observation, requests int) observe.Verdict {
	sizes := slices.Sorted(maps.Keys(byPageSize))
	if len(sizes) < 2 || sizes[len(sizes)-1]-sizes[0] < leastSpread || requests < 1 {
		return observe.Verdict{Reason: "there is nothing to compare", Fix: "look at pages of at least two sizes, such as 1, 10 and 50"}
	}
	texts := map[string]bool{}
	for _, obs := range byPageSize {
		if !obs.Known.Statements {
			return unseen(Statements)
		}
		for _, s := range obs.Statements {
			texts[s.Text] = true
		}
	}
	if len(texts) == 0 {
		return observe.Verdict{Reason: "the requests ran no statement in the database", Fix: "name a list that is read from it"}
	}
	var grown []growth
	for text := range texts {
		if g, grows := growing(text, sizes, byPageSize, requests); grows {
			grown = append(grown, g)
		}
	}
	return growthVerdict(grown, sizes)
}

type growth struct {
	text  string
	calls []float64 // a request, by size
	extra float64
}

// growing compares the calls a request: they never fall from one size to the next, and from the first to the last double at least.
func growing(text string, sizes []int, byPageSize map[int]Observation, requests int) (growth, bool) {
	g := growth{text: text}
	for _, size := range sizes {
		g.calls = append(g.calls, float64(byPageSize[size].calls(text))/float64(requests))
	}
	first, last := g.calls[0], g.calls[len(g.calls)-1]
	g.extra = last - first
	return g, slices.IsSorted(g.calls) && g.extra >= leastGrowth && last >= 2*first
}

func (o Observation) calls(text string) int64 {
	for _, s := range o.Statements {
		if s.Text == text {
			return s.Calls
		}
	}
	return 0
}

func growthVerdict(grown []growth, sizes []int) observe.Verdict {
	if len(grown) == 0 {
		return observe.Verdict{
			Outcome: observe.Pass,
			Reason:  fmt.Sprintf("no statement runs more often for a page of %d than for one of %d", sizes[len(sizes)-1], sizes[0]),
		}
	}
	slices.SortFunc(grown, func(a, b growth) int { return cmp.Or(cmp.Compare(b.extra, a.extra), cmp.Compare(a.text, b.text)) })
	v := observe.Verdict{Outcome: observe.Fail, Fix: "fetch what belongs to the rows of a page in one statement: a join, IN (...), or the ORM's eager loading"}
	for _, g := range grown {
		var calls []string
		for i, size := range sizes {
			calls = append(calls, fmt.Sprintf("%.4g for %d", g.calls[i], size))
		}
		v.Evidence = append(v.Evidence, fmt.Sprintf("calls a request: %s rows: %s", strings.Join(calls, ", "), shorten(g.text)))
	}
	v.Reason = fmt.Sprintf("%d statements run more often the more rows a page has; the worst %.4g times more for %d rows than for %d",
		len(grown), grown[0].extra, sizes[len(sizes)-1], sizes[0])
	return bounded(v)
}

const (
	// largeTable is from how many rows on an index pays; Postgres itself reads smaller tables in sequence.
	largeTable = 1000
	// selective is the share of the rows read up to which an index would have found the same with less.
	selective = 0.1
)

// MissingIndexes fails when requests read a table of 1,000 rows or more from end to end, 1,000 rows a request at least, to
// find a few of them: there is a statement that names the table, compares, joins or sorts, reads as many pages as the table has,
// and returns less than a tenth. It is Unknown when there is none (all want the whole table, as a count or a list
// without end do, or the statements cannot be seen), when the only tables read are smaller, where Postgres does not use an
// index that is there, and when the counters have not settled.
func MissingIndexes(obs Observation, requests int) observe.Verdict {
	switch {
	case requests < 1:
		return tooFew(requests)
	case !obs.Known.Counters:
		return unseen(Counters)
	case !obs.Settled:
		return unsettled()
	}
	v := observe.Verdict{}
	var suspected, small []string
	for _, t := range obs.Tables {
		if t.SeqScans*2 < int64(requests) {
			continue // somebody else's
		}
		each := t.SeqRows / int64(requests)
		line := fmt.Sprintf("%s: %d sequential scans read %d rows, %d a request; it has %d rows; %d scans by index",
			t.Name, t.SeqScans, t.SeqRows, each, t.LiveRows, t.IndexScans)
		switch seekers := obs.seekers(t); {
		case t.LiveRows < largeTable && t.Inserted > 0:
			small = append(small, line)
		case t.LiveRows < largeTable || each < largeTable:
		case len(seekers) > 0:
			v.Evidence = append(v.Evidence, line+"; by "+strings.Join(seekers, "; "))
		default:
			suspected = append(suspected, line)
		}
	}
	return indexVerdict(obs, v, suspected, small)
}

func indexVerdict(obs Observation, v observe.Verdict, suspected, small []string) observe.Verdict {
	switch {
	case len(v.Evidence) > 0:
		v.Outcome = observe.Fail
		v.Reason = fmt.Sprintf("%d tables are read from end to end to find a few rows", len(v.Evidence))
		v.Fix = "create an index on the columns that the statement compares or sorts by (CREATE INDEX CONCURRENTLY), and look at EXPLAIN"
	case len(suspected) > 0:
		v.Evidence = suspected
		v.Reason = fmt.Sprintf("%d tables are read from end to end, but no statement was seen that looks for a few rows", len(suspected))
		v.Fix = "a count or a list without end needs a limit, not an index; if the statements are not seen, install pg_stat_statements"
	case len(small) > 0:
		v.Evidence = small
		v.Reason = fmt.Sprintf("%d tables are read from end to end and grow, but have fewer than %d rows: Postgres reads those in sequence also with an index", len(small), largeTable)
		v.Fix = fmt.Sprintf("load %d rows or more", largeTable)
	case len(obs.Tables) == 0:
		v.Reason, v.Fix = "the requests read no table", "name a path that reads the database"
	default:
		v.Outcome, v.Reason = observe.Pass, "no large table was read from end to end"
	}
	return bounded(v)
}

var (
	seeks      = regexp.MustCompile(`(?i)\b(where|join|order by)\b`)
	aggregates = regexp.MustCompile(`(?i)^select (count|sum|avg|min|max)\b ?\(`)
)

// seekers are the statements that read the table from end to end to find a few rows. An aggregate returns one row, and does not
// show how many it was made of.
func (o Observation) seekers(t Table) []string {
	_, name, _ := strings.Cut(t.Name, ".")
	named := regexp.MustCompile(`(?i)(?:^|[^\w])` + regexp.QuoteMeta(name) + `(?:$|[^\w])`)
	read := float64(t.SeqRows) / float64(t.SeqScans)
	pages := 0.9 * float64(t.Pages) * min(1, read/float64(t.LiveRows))
	var found []string
	for _, s := range o.Statements {
		scans := float64(s.Pages)/float64(s.Calls) >= pages
		few := float64(s.Rows)/float64(s.Calls) <= selective*read
		if len(found) < 3 && few && scans && !aggregates.MatchString(s.Text) && seeks.MatchString(s.Text) && named.MatchString(s.Text) {
			found = append(found, shorten(s.Text))
		}
	}
	return found
}

// tooLongIdle is from when a transaction that does nothing is a fault: it holds its locks, and a connection.
const tooLongIdle = time.Second

// IdleTransactions fails when a session was seen idle in transaction for a second or longer that had begun in
// the window. One from before is Unknown: somebody else may have left it.
func IdleTransactions(obs Observation) observe.Verdict {
	if !obs.Known.Sessions {
		return unseen(Sessions)
	}
	var ours, before []string
	var longest time.Duration
	for _, i := range obs.Idle {
		if i.Longest < tooLongIdle {
			longest = max(longest, i.Longest)
			continue
		}
		line := fmt.Sprintf("idle in transaction for %v, application %q, after: %s", i.Longest.Round(time.Millisecond), i.Application, shorten(i.Last))
		if i.Left {
			line += " (still open)"
		}
		if i.Before {
			before = append(before, line)
		} else {
			ours = append(ours, line)
		}
	}
	fix := "end every transaction with the request, also when it fails, and call no other service inside one; set idle_in_transaction_session_timeout"
	switch {
	case len(ours) > 0:
		return bounded(observe.Verdict{Outcome: observe.Fail, Reason: "transactions were left open with nothing to do", Evidence: ours, Fix: fix})
	case len(before) > 0:
		return bounded(observe.Verdict{Reason: "transactions were left open before the window began", Evidence: before, Fix: fix})
	case !obs.worked():
		return observe.Verdict{Reason: "the requests did nothing in the database", Fix: "name a path that writes to it"}
	}
	return observe.Verdict{Outcome: observe.Pass, Reason: fmt.Sprintf("no transaction was seen idle for a second; the longest %v", longest.Round(time.Millisecond))}
}

// DeadlockVerdict fails when the server had to end a deadlock. It passes only when the counters have settled.
func DeadlockVerdict(obs Observation) observe.Verdict {
	switch {
	case !obs.Known.Counters:
		return unseen(Counters)
	case obs.Deadlocks > 0:
		v := observe.Verdict{
			Outcome: observe.Fail, Reason: fmt.Sprintf("%d deadlocks in %v", obs.Deadlocks, obs.Duration.Round(time.Millisecond)),
			Fix: "lock rows in the same order everywhere (ORDER BY id ... FOR UPDATE), keep transactions short, and repeat one that fails with 40P01",
		}
		for _, w := range obs.Waits {
			v.Evidence = append(v.Evidence, fmt.Sprintf("waited %v or longer: %s; for: %s", w.Longest.Round(time.Millisecond), shorten(w.Waiting), shorten(w.Blocking)))
		}
		return bounded(v)
	case !obs.worked():
		return observe.Verdict{Reason: "the requests did nothing in the database", Fix: "name a path that writes to it"}
	case !obs.Settled:
		return unsettled()
	}
	return observe.Verdict{Outcome: observe.Pass, Reason: "no deadlock"}
}

// WriteCommitsPerRequest fails when a request ends in more than one transaction that wrote, 1.5 on average: if the process dies
// between them, half of it is done. It passes up to 1.1. One request is enough where nothing else writes.
func WriteCommitsPerRequest(obs Observation, requests int) observe.Verdict {
	switch {
	case requests < 1:
		return tooFew(requests)
	case !obs.Known.WriteCommits:
		return unseen(WriteCommits)
	case obs.WriteCommits == 0:
		return observe.Verdict{Reason: "the requests wrote nothing", Fix: "name a request that writes"}
	}
	ratio := float64(obs.WriteCommits) / float64(requests)
	v := observe.Verdict{
		Reason:   fmt.Sprintf("%d requests made %d transactions that wrote, %.2f each", requests, obs.WriteCommits, ratio),
		Evidence: obs.writes(),
	}
	switch {
	case ratio <= 1.1:
		v.Outcome = observe.Pass
	case obs.OthersWrote:
		v.Reason += "; but other databases of the server were written to, and their transactions count too"
		v.Fix = "repeat it while nothing else writes on the server"
	case ratio < 1.5:
		v.Fix = "repeat it while nothing else writes in the database"
	default:
		v.Outcome, v.Fix = observe.Fail, "put all that a request writes into one transaction, begun and committed in one place (transaction.atomic, ATOMIC_REQUESTS, BEGIN ... COMMIT)"
	}
	return bounded(v)
}

var writing = regexp.MustCompile(`(?i)\b(insert into|update|delete from|merge into|copy)\b`)

// writes are the statements and the tables of a window that wrote.
func (o Observation) writes() []string {
	var lines []string
	for _, s := range o.Statements {
		if writing.MatchString(s.Text) && !strings.HasSuffix(strings.ToUpper(s.Text), "FOR UPDATE") {
			lines = append(lines, fmt.Sprintf("%d calls: %s", s.Calls, shorten(s.Text)))
		}
	}
	for _, t := range o.Tables {
		if t.Inserted+t.Updated+t.Deleted > 0 {
			lines = append(lines, fmt.Sprintf("%s: %d rows inserted, %d updated, %d deleted", t.Name, t.Inserted, t.Updated, t.Deleted))
		}
	}
	return lines
}

func bounded(v observe.Verdict) observe.Verdict {
	v.Evidence = v.Evidence[:min(len(v.Evidence), observe.MaxEvidence)]
	return v
}

func shorten(text string) string {
	if runes := []rune(text); len(runes) > mostTextShown {
		return string(runes[:mostTextShown-1]) + "…"
	}
	return text
}

package probes

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/observe"
)

func concurrency() []audit.Probe {
	return []audit.Probe{
		{
			ID: "DAT-03", Title: "Lost update", Severity: audit.Critical, Mode: audit.Active, Category: audit.Data, Confirms: true,
			Sends:        "two increments one after the other, then 50 together, three times (fewer under a limit below 60), reading the counter before and after; about 170 requests",
			Passes:       "the counter grows by as many as were accepted; 409, 412 and 429 are not",
			Fails:        "it grows by less, and still counts one by one afterwards",
			Inconclusive: "no recipe `counter`, few increments were accepted, or something else moves the counter",
			Guard:        "accepted are answers of 2xx; a counter that lags is read again until the grace period is over",
			Knobs:        []string{"--active", "recipe counter", "--observe-postgres"},
			Refs:         []string{"CWE-362", "ASVS 2.3.3", "ASVS 15.4.2"},
			Why:          "Two clicks at the same moment, and one of them never happened: stock, balances and votes are wrong, and no log says so.",
			Fix:          "Change in one statement (UPDATE ... SET n = n + 1), lock the row, or check a version (If-Match).",
			Run:          lostUpdate,
		},
		{
			ID: "DAT-04", Title: "Double submit", Severity: audit.Critical, Mode: audit.Active, Category: audit.Data, Confirms: true,
			Sends:        "the recipe `create` 20 times together with one Idempotency-Key, and once more afterwards; the same without a key when the recipe says unique (21 or 42 requests and up to 4 that read)",
			Passes:       "one object, whose id every accepted answer has; the others are refused",
			Fails:        "more than one object, and again within three more tries with another key",
			Inconclusive: "no recipe `create`, all were refused, or neither an id nor a list tells how many there are",
			Guard:        "counted by a unique marker in the list when the recipe reads one, else two ids must be readable; its own objects, deleted afterwards",
			Knobs:        []string{"--active", "recipe create"},
			Refs:         []string{"CWE-837", "ASVS 2.3.4", "draft-ietf-httpapi-idempotency-key-header"},
			Why:          "A client that lost the answer tries again, and the customer is charged twice.",
			Fix:          "A unique constraint on the key, and the stored answer for whoever comes again with it.",
			Run:          doubleSubmit,
		},
		{
			ID: "DAT-05", Title: "Atomicity of a write in several steps", Severity: audit.Critical, Mode: audit.Active, Category: audit.Data,
			Sends:        "the recipe `batch`, whose last part is invalid; then `create`, and one read of the list (3 requests; 5 more when the database is watched)",
			Passes:       "400, 409 or 422, and nothing of the batch is in the list",
			Fails:        "a part of it is in the list",
			Inconclusive: "no recipe `batch` that reads a list, what `create` makes does not show up in that list, or the batch was not refused for what is in it",
			Guard:        "the object of `create` is made after the batch and must be in the same answer, so that a list from a cache proves nothing; unique markers, deleted afterwards",
			Knobs:        []string{"--active", "recipe batch", "recipe create", "--observe-postgres"},
			Refs:         []string{"CWE-460", "ASVS 2.3.3"},
			Why:          "An order without its items, money that left one account and reached none: repaired by hand, if somebody notices.",
			Fix:          "One transaction a request, begun and committed in one place.",
			Run:          atomicWrite,
		},
	}
}

// together sends n requests at once: they wait for each other at a barrier.
func together(ctx context.Context, s *audit.Session, n int, request func(i int) audit.Request) ([]*audit.Exchange, error) {
	var group sync.WaitGroup
	start := make(chan struct{})
	list, faults := make([]*audit.Exchange, n), make([]error, n)
	for i := range n {
		group.Go(func() {
			<-start
			list[i], faults[i] = s.Unpaced(ctx, request(i))
		})
	}
	close(start)
	group.Wait()
	for _, err := range faults {
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// atOnce is how many of want a user may send together without meeting a limit that is meant.
func atOnce(s *audit.Session, want int) int {
	return max(2, min(want, s.Policy().RateLimit-10))
}

// counter is the object whose value DAT-03 moves.
type counter struct {
	*writer
	id   string
	step float64 // by which one request moves it
	sent int
	last *audit.Exchange // that read it
}

const (
	increments = 50
	raceRounds = 3
)

func lostUpdate(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	w := newWriter(s, "counter")
	if w == nil || w.recipe.Read == "" || w.recipe.Field == "" {
		return noRecipe(s, "counter"), nil
	}
	c := &counter{writer: w}
	if strings.Contains(w.recipe.Path+w.recipe.Read, "{{id}}") {
		maker := newWriter(s, "create")
		if maker == nil {
			return noRecipe(s, "create"), nil
		}
		defer maker.clean(ctx)
		x, err := maker.write(ctx, maker.request("", 0))
		if err != nil {
			return audit.Verdict{}, err
		}
		if c.id = idOf(x); !x.OK() || c.id == "" {
			return audit.Unproven("no object to count on came of the recipe create: %s", x).With(x), nil
		}
	}
	defer func() {
		slices.Sort(c.created)
		c.created = slices.Compact(c.created)
		c.clean(ctx)
	}()
	if v, err := c.calibrate(ctx); err != nil || v.Message != "" {
		return v, err
	}
	return c.race(ctx)
}

// value of the counter.
func (c *counter) value(ctx context.Context) (float64, error) {
	x, err := c.read(ctx, c.id)
	if err != nil {
		return 0, err
	}
	c.last = x
	v, ok := field(x.Body, c.recipe.Field)
	n, fault := strconv.ParseFloat(fmt.Sprint(v), 64)
	if !x.OK() || !ok || fault != nil {
		return 0, fmt.Errorf("%s has no number at %s", x, c.recipe.Field)
	}
	return n, nil
}

func (c *counter) increment() audit.Request {
	c.sent++
	r := c.request(c.id, c.sent)
	r.Expect429, r.Label = true, "increment"
	return r
}

// one increment, and by how much it moved the counter.
func (c *counter) one(ctx context.Context, before float64) (x *audit.Exchange, moved float64, err error) {
	r := c.increment()
	r.Expect429 = false
	x, err = c.write(ctx, r)
	if err != nil || !x.OK() {
		return x, 0, err
	}
	after, err := c.settled(ctx, func(v float64) bool { return v != before })
	return x, after - before, err
}

// settled reads until enough holds, or the grace period is over: what is counted later is counted.
func (c *counter) settled(ctx context.Context, enough func(float64) bool) (float64, error) {
	began, grace := time.Now(), c.s.Policy().Grace
	for {
		v, err := c.value(ctx)
		if err != nil || enough(v) || time.Since(began) > grace {
			return v, err
		}
		if err := audit.Sleep(ctx, grace/5); err != nil {
			return v, err
		}
	}
}

// calibrate finds out what one increment does, twice: they must agree, or nothing can be counted. Nor can it when reading
// moves the counter, which makes the step too large.
func (c *counter) calibrate(ctx context.Context) (audit.Verdict, error) {
	was, err := c.value(ctx)
	if err != nil {
		return audit.Verdict{}, err
	}
	v, err := c.value(ctx)
	if err != nil {
		return audit.Verdict{}, err
	}
	if v != was {
		return audit.Unproven("%s moves by itself, from %v to %v between two reads", c.recipe.Field, was, v).With(c.last), nil
	}
	for i := range 2 {
		x, moved, err := c.one(ctx, v)
		switch {
		case err != nil:
			return audit.Verdict{}, err
		case !x.OK():
			return audit.Unproven("the recipe counter is answered %d", x.Status).With(x), nil
		case moved == 0:
			return audit.Unproven("an accepted increment does not move %s", c.recipe.Field).With(x, c.last).Unlock("audit.recipes.counter.field in gantry.yaml"), nil
		case i == 1 && moved != c.step:
			return audit.Unproven("two increments moved %s by %v and by %v: something else moves it", c.recipe.Field, c.step, moved).With(c.last), nil
		}
		c.step, v = moved, v+moved
	}
	return audit.Verdict{}, nil
}

// raced is what came of increments that were sent together.
type raced struct {
	accepted, refused, unclear int
	grown                      float64 // in steps
	sample                     *audit.Exchange
}

func (r raced) lost() bool { return r.grown < float64(r.accepted) }

// foreign says that the counter moved by more than was sent.
func (r raced) foreign() bool { return r.grown > float64(r.accepted+r.unclear) }

// race sends the rounds, the first of them while the database is watched.
func (c *counter) race(ctx context.Context) (audit.Verdict, error) {
	all, losses := raced{}, 0
	var worst raced
	for n := range raceRounds {
		r, err := c.watchedRound(ctx, n == 0)
		if err != nil {
			return audit.Verdict{}, err
		}
		if r.foreign() {
			return audit.Unproven("%s grew by %v although only %d increments were accepted: something else moves it", c.recipe.Field, r.grown, r.accepted).With(c.last), nil
		}
		all.accepted, all.refused, all.unclear = all.accepted+r.accepted, all.refused+r.refused, all.unclear+r.unclear
		if r.lost() {
			if losses++; losses == 1 || float64(r.accepted)-r.grown > float64(worst.accepted)-worst.grown {
				worst = r
			}
		}
		all.sample = r.sample
		if losses == 2 {
			break
		}
	}
	if losses > 0 {
		return c.confirm(ctx, worst, losses)
	}
	if all.sample == nil || all.accepted < atOnce(c.s, increments)/2 {
		return audit.Unproven("only %d increments were accepted, %d were refused and %d got no clear answer", all.accepted, all.refused, all.unclear).With(c.last), nil
	}
	return audit.Passed("%d increments sent together were accepted and counted, %d were refused", all.accepted, all.refused).With(all.sample, c.last), nil
}

// watchedRound is a round, inside a window of the database when there is one and first says so.
func (c *counter) watchedRound(ctx context.Context, first bool) (r raced, err error) {
	database := c.s.Database()
	if !first || database == nil {
		return c.round(ctx)
	}
	sent := false
	v, watching := database.Trouble(ctx, func(ctx context.Context) error {
		sent = true
		r, err = c.round(ctx)
		return err
	})
	if !sent { // the window did not open; the wire can tell all the same
		return c.round(ctx)
	}
	if watching == nil {
		c.s.Saw(audit.Seen{
			ID: "DB-trouble", Title: "Deadlocks and idle transactions under concurrent writes", Root: "DAT-03", Severity: audit.High,
			Vantage: "postgres", Verdict: v,
		})
	}
	return r, err
}

func (c *counter) round(ctx context.Context) (raced, error) {
	before, err := c.value(ctx)
	if err != nil {
		return raced{}, err
	}
	requests := make([]audit.Request, atOnce(c.s, increments))
	for i := range requests {
		requests[i] = c.increment()
	}
	answers, err := together(ctx, c.s, len(requests), func(i int) audit.Request { return requests[i] })
	if err != nil {
		return raced{}, err
	}
	r := raced{}
	for _, x := range answers {
		switch {
		case x.OK():
			r.accepted++
			r.sample = x
			c.remember(x)
		case x.Status >= 400 && x.Status < 500:
			r.refused++
		default:
			r.unclear++ // it may have been done
		}
	}
	after, err := c.settled(ctx, func(v float64) bool { return (v-before)/c.step >= float64(r.accepted) })
	r.grown = (after - before) / c.step
	return r, err
}

// confirm that the counter still counts one by one: then what is missing is lost, and not late.
func (c *counter) confirm(ctx context.Context, worst raced, losses int) (audit.Verdict, error) {
	before, err := c.value(ctx)
	if err != nil {
		return audit.Verdict{}, err
	}
	shown := c.last
	x, moved, err := c.one(ctx, before)
	if err != nil {
		return audit.Verdict{}, err
	}
	figures := fmt.Sprintf("of increments sent together %d were accepted, and %s grew by %v", worst.accepted, c.recipe.Field, worst.grown)
	if !x.OK() || moved != c.step {
		return audit.Unproven("%s; but afterwards one increment moved it by %v and not by %v: it may be late", figures, moved, c.step).With(worst.sample, shown), nil
	}
	return audit.Failed("%s (in %d of the rounds)", figures, losses).
		With(worst.sample.Noted("one that was accepted"), shown.Noted("read afterwards")).
		Measured("accepted", worst.accepted).Measured("grown", worst.grown), nil
}

// submits is how many times DAT-04 sends the same.
const submits = 20

func doubleSubmit(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	w := newWriter(s, "create")
	if w == nil {
		return noRecipe(s, "create"), nil
	}
	v, err := submitConfirmed(ctx, w, true, "one Idempotency-Key")
	if err != nil || v.Outcome != audit.Pass || !w.recipe.Unique {
		return v, err
	}
	again, err := submitConfirmed(ctx, newWriter(s, "create"), false, "no key, though the recipe says unique")
	if err != nil || again.Outcome != audit.Pass {
		return again, err
	}
	again.Message = v.Message + "; " + again.Message
	return again.With(v.Evidence...), nil
}

// moreSubmits is how often a failure may need to come again: it takes luck to hit a race.
const moreSubmits = 3

// submitConfirmed sends until a failure has come a second time, with a control in between.
func submitConfirmed(ctx context.Context, w *writer, keyed bool, how string) (audit.Verdict, error) {
	first, err := submitOften(ctx, w, keyed, how)
	if err != nil || first.Outcome != audit.Fail {
		return first, err
	}
	if err := w.s.Control(ctx); err != nil {
		return first, err
	}
	for range moreSubmits {
		again, err := submitOften(ctx, newWriter(w.s, "create"), keyed, how)
		if err != nil || again.Outcome == audit.Fail {
			return again, err
		}
	}
	return audit.Unproven("once, and in %d more tries not again: %s", moreSubmits, first.Message).With(first.Evidence...), nil
}

// submitOften sends the same request many times together and once more, and counts what came of it.
func submitOften(ctx context.Context, w *writer, keyed bool, how string) (audit.Verdict, error) {
	defer func() { w.clean(ctx) }()
	r := w.request("", 0)
	r.Label, r.Expect429 = "the same again, with "+how, true
	if keyed {
		r.Header.Set("Idempotency-Key", w.marker)
	}
	answers, err := together(ctx, w.s, atOnce(w.s, submits), func(int) audit.Request { return r })
	if err != nil {
		return audit.Verdict{}, err
	}
	r.Expect429 = false
	replay, err := w.s.Do(ctx, r)
	if err != nil {
		return audit.Verdict{}, err
	}
	made := submitted{how: how, replay: replay, byID: map[string]*audit.Exchange{}}
	for _, x := range append(answers, replay) {
		made.add(w, x)
	}
	w.created = slices.Sorted(maps.Keys(made.byID))
	if made.accepted == 0 {
		return audit.Unproven("all of %d requests with %s were refused: %s", len(answers)+1, how, replay).With(replay), nil
	}
	return made.verdict(ctx, w)
}

// submitted is what the same request, sent often, was answered with.
type submitted struct {
	how                       string
	accepted, refused, broken int
	later                     bool // accepted for later, or with no id
	byID                      map[string]*audit.Exchange
	first, replay             *audit.Exchange
}

func (m *submitted) add(w *writer, x *audit.Exchange) {
	switch {
	case x.Status == 0 || x.Status >= 500:
		m.broken++
		return
	case !x.OK():
		if x.Status != http.StatusTooManyRequests {
			m.refused++
		}
		return
	}
	m.accepted++
	if m.first == nil {
		m.first = x
	}
	id := w.idOf(x)
	m.later = m.later || id == "" || x.Status == http.StatusAccepted
	if id != "" && m.byID[id] == nil {
		m.byID[id] = x
	}
}

// idOf a created object, where the recipe says that it is.
func (w *writer) idOf(x *audit.Exchange) string {
	if w.recipe.Field != "" {
		if id, ok := field(x.Body, w.recipe.Field); ok {
			return fmt.Sprint(id)
		}
	}
	return idOf(x)
}

// verdict by the list, when the recipe reads one, else by the ids.
func (m *submitted) verdict(ctx context.Context, w *writer) (audit.Verdict, error) {
	if w.recipe.Read != "" && !strings.Contains(w.recipe.Read, "{{id}}") {
		n, x, err := w.marked(ctx)
		if err != nil {
			return audit.Verdict{}, err
		}
		switch {
		case n > 1:
			return audit.Failed("%d objects came of one request sent again with %s", n, m.how).With(m.first, m.replay, x.Noted("the list, with all of them")), nil
		case n == 1 && len(m.byID) > 1:
			return audit.Unproven("%d ids came, and one object is in the list: either the ids are not the object's, or the list is late", len(m.byID)).
				With(m.first, m.replay, x).Unlock("audit.recipes.create.field in gantry.yaml, where the object's id is"), nil
		case n == 1:
			return m.alone(x), nil
		}
	}
	if len(m.byID) > 1 {
		return m.several(ctx, w)
	}
	if len(m.byID) == 0 || m.later {
		return audit.Unproven("%d were accepted, and nothing tells how many objects came of them", m.accepted).With(m.first).
			Unlock("audit.recipes.create.read in gantry.yaml, a list that shows the object"), nil
	}
	return m.alone(m.first), nil
}

// several ids are several objects when each of two can be read.
func (m *submitted) several(ctx context.Context, w *writer) (audit.Verdict, error) {
	ids := slices.Sorted(maps.Keys(m.byID))
	evidence := []*audit.Exchange{m.byID[ids[0]], m.byID[ids[1]]}
	if strings.Contains(w.recipe.Read, "{{id}}") {
		for _, id := range ids[:2] {
			x, err := w.read(ctx, id)
			if err != nil {
				return audit.Verdict{}, err
			}
			if !x.OK() {
				return audit.Unproven("%d ids came, but %s cannot be read back: it may not be an object's", len(ids), id).With(append(evidence, x)...).
					Unlock("audit.recipes.create.field in gantry.yaml, where the object's id is"), nil
			}
		}
	} else if m.later {
		return audit.Unproven("%d ids came of answers that only promise an object", len(ids)).With(evidence...).
			Unlock("audit.recipes.create.read in gantry.yaml"), nil
	}
	return audit.Failed("%d objects came of one request sent again with %s", len(ids), m.how).With(evidence...).Measured("objects", len(ids)), nil
}

// alone is the verdict on one object: enough requests must have come through, and the last must have been answered.
func (m *submitted) alone(x *audit.Exchange) audit.Verdict {
	figures := fmt.Sprintf("one object came of %d accepted and %d refused requests with %s", m.accepted, m.refused, m.how)
	switch {
	case m.replay.Status == 0 || m.replay.Status >= 500:
		return audit.Unproven("%s, but the one sent afterwards broke: %s", figures, m.replay).With(m.replay)
	case m.accepted+m.refused < 3:
		return audit.Unproven("%s: too few came through (%d broke)", figures, m.broken).With(x, m.replay)
	case m.broken > 0:
		figures += fmt.Sprintf("; %d broke", m.broken)
	}
	return audit.Passed("%s", figures).With(x, m.replay)
}

// marked counts the rows of the recipe's list that carry the marker, and remembers them to be deleted.
func (w *writer) marked(ctx context.Context) (int, *audit.Exchange, error) {
	x, err := w.read(ctx, "")
	if err != nil {
		return 0, nil, err
	}
	return w.marksIn(x), x, nil
}

// marksIn counts the rows in a list that carry the marker.
func (w *writer) marksIn(x *audit.Exchange) int {
	r, ok := findRows(x.Body)
	if !x.OK() || !ok {
		return 0
	}
	n := 0
	for _, row := range r.list {
		if !bytes.Contains(row, []byte(w.marker)) {
			continue
		}
		n++
		if id, ok := field(row, "id"); ok && !slices.Contains(w.created, fmt.Sprint(id)) {
			w.created = append(w.created, fmt.Sprint(id))
		}
	}
	return n
}

func atomicWrite(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	w, control := newWriter(s, "batch"), newWriter(s, "create")
	switch {
	case w == nil || w.recipe.Read == "":
		return noRecipe(s, "batch"), nil
	case strings.Contains(w.recipe.Read, "{{id}}"):
		return audit.Unproven("the recipe batch reads an object by its id, which a refused batch does not have").Unlock("audit.recipes.batch.read in gantry.yaml, a list"), nil
	case control == nil:
		return audit.Unproven("without a recipe create nothing shows that the list is up to date").Unlock("audit.recipes.create in gantry.yaml"), nil
	}
	if w.recipe.Delete == "" {
		w.recipe.Delete = control.recipe.Delete
	}
	control.marker = s.Nonce(2_000_000 + int(time.Now().UnixNano()%1_000_000)) // no other writer's
	defer control.clean(ctx)
	defer w.clean(ctx)
	batch, err := w.write(ctx, w.request("", 0))
	if err != nil {
		return audit.Verdict{}, err
	}
	made, err := control.write(ctx, control.request("", 0))
	if err != nil {
		return audit.Verdict{}, err
	}
	kept, list, err := w.marked(ctx)
	if err != nil {
		return audit.Verdict{}, err
	}
	if kept > 0 && batch.Status >= 400 { // it may be taken back late
		if err := audit.Sleep(ctx, s.Policy().Grace); err != nil {
			return audit.Verdict{}, err
		}
		if kept, list, err = w.marked(ctx); err != nil {
			return audit.Verdict{}, err
		}
	}
	v := w.judgeBatch(batch, list, kept, made.OK() && control.marksIn(list) > 0)
	if err := watchCommits(ctx, control); err != nil {
		v.Message += "; the database could not be watched: " + err.Error()
	}
	return v, ctx.Err()
}

// judgeBatch by what of it is in the list, which is fresh when it has what was made after the batch.
func (w *writer) judgeBatch(batch, list *audit.Exchange, kept int, fresh bool) audit.Verdict {
	parts := strings.Count(w.recipe.Body, "{{marker}}")
	switch {
	case batch.Status == http.StatusMultiStatus:
		return audit.Unproven("the batch is answered 207: its parts are meant to succeed one by one").With(batch, list)
	case kept > 0 && batch.OK() && (parts < 2 || kept >= parts):
		return audit.Unproven("the batch was accepted (%d) and is in the list: its last part may be valid, or was dropped", batch.Status).With(batch, list).
			Unlock("audit.recipes.batch in gantry.yaml, with a last part that is invalid and {{marker}} in each")
	case kept > 0:
		return audit.Failed("the batch is answered %d, and %d of its parts are in the list", batch.Status, kept).With(batch, list.Noted("read afterwards"))
	case !fresh:
		return audit.Unproven("what the recipe create makes does not show up in the list that batch reads, so that nothing is proven by what is not there").
			With(batch, list).Unlock("audit.recipes.create and audit.recipes.batch.read in gantry.yaml, about the same list")
	case batch.OK():
		return audit.Unproven("the batch is answered %d, and nothing of it is in the list", batch.Status).With(batch, list)
	case batch.Status != http.StatusBadRequest && batch.Status != http.StatusConflict && batch.Status != http.StatusUnprocessableEntity:
		return audit.Unproven("the batch is answered %d: it did not come to what is in it, or broke", batch.Status).With(batch, list)
	}
	return audit.Passed("the batch is refused (%d), and nothing of it is in the list, where what was made after it is", batch.Status).With(batch, list)
}

// watchCommits makes five objects while the database counts the transactions that write.
func watchCommits(ctx context.Context, w *writer) error {
	database := w.s.Database()
	if database == nil {
		return nil
	}
	const creates = 5
	v, err := database.Writes(ctx, creates, func(ctx context.Context) error {
		for n := range creates {
			x, err := w.write(ctx, w.request("", n+1))
			if err != nil {
				return err
			}
			if !x.OK() {
				return fmt.Errorf("the recipe create is answered %d", x.Status)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if v.Outcome == observe.Fail {
		w.s.Saw(audit.Seen{
			ID: "DB-commits", Title: "One transaction for each request that writes", Root: "DAT-05", Severity: audit.High, Vantage: "postgres", Verdict: v,
		})
	}
	return nil
}

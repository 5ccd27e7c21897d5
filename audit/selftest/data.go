package selftest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gantryhq/gantry/audit"
)

func dataCases() []Case {
	return []Case{
		{Probe: "DAT-03", Prepare: func(a *API) { withStock(a, false) }, Break: func(a *API) { withStock(a, true) }, Knobs: stockRecipe},
		{Probe: "DAT-04", Prepare: func(a *API) { withLedger(a, &ledger{}) }, Break: func(a *API) { withLedger(a, &ledger{checksFirst: true}) }, Knobs: ledgerRecipes},
		{Probe: "DAT-05", Prepare: func(a *API) { withLedger(a, &ledger{}) }, Break: func(a *API) { withLedger(a, &ledger{asItGoes: true}) }, Knobs: ledgerRecipes},
		{Probe: "DAT-06", Prepare: withCatalogue(catalogue{}), Break: withCatalogue(catalogue{eachRow: true}), Knobs: catalogueKnobs},
		{Probe: "DAT-07", Prepare: withCatalogue(catalogue{}), Break: withCatalogue(catalogue{uncapped: true}), Knobs: catalogueKnobs},
		{Probe: "DAT-08", Alone: true, Prepare: withCatalogue(catalogue{}), Break: withCatalogue(catalogue{readsWhatItSkips: true}), Knobs: catalogueKnobs},
	}
}

// withStock counts what is reserved; racy reads the number, works, and writes it back.
func withStock(a *API, racy bool) {
	var mu sync.Mutex
	reserved := 0
	load := func() int { mu.Lock(); defer mu.Unlock(); return reserved }
	a.Routes["POST /stock/reserve"] = a.Private(func(w http.ResponseWriter, _ *http.Request, _ map[string]any) {
		if !racy {
			mu.Lock()
			defer mu.Unlock()
			reserved++
			Answer(w, 200, map[string]any{"reserved": reserved})
			return
		}
		n := load()
		time.Sleep(20 * time.Millisecond) // the round trip to the database
		mu.Lock()
		defer mu.Unlock()
		reserved = n + 1
		Answer(w, 200, map[string]any{"reserved": reserved})
	})
	a.Routes["GET /stock"] = a.Private(func(w http.ResponseWriter, _ *http.Request, _ map[string]any) {
		Answer(w, 200, map[string]any{"stock": map[string]any{"reserved": load()}})
	})
}

func stockRecipe(_ string, _ *API, t *audit.Target, _ *audit.Config) {
	t.Recipes = map[string]audit.Recipe{"counter": {Path: "/stock/reserve", Body: `{"order":"{{marker}}-{{n}}"}`, Read: "/stock", Field: "stock.reserved"}}
}

// ledger takes payments, one by one and in batches.
type ledger struct {
	checksFirst bool // looks the key up, and stores it when it is done
	asItGoes    bool // a batch is written one by one

	mu   sync.Mutex
	list []map[string]any
	keys map[string]map[string]any
}

func withLedger(a *API, l *ledger) {
	l.keys = map[string]map[string]any{}
	a.Routes["POST /payments"] = a.Private(l.pay)
	a.Routes["POST /payments/batch"] = a.Private(l.batch)
	a.Routes["GET /payments"] = a.Private(func(w http.ResponseWriter, _ *http.Request, _ map[string]any) {
		l.mu.Lock()
		defer l.mu.Unlock()
		Answer(w, 200, map[string]any{"items": append([]map[string]any{}, l.list...)})
	})
	a.Routes["DELETE /payments/{id}"] = a.Private(func(w http.ResponseWriter, _ *http.Request, _ map[string]any) { w.WriteHeader(204) })
}

func ledgerRecipes(_ string, _ *API, t *audit.Target, _ *audit.Config) {
	t.Recipes = map[string]audit.Recipe{
		"create": {Path: "/payments", Body: `{"note":"{{marker}}","amount":5}`, Read: "/payments", Delete: "/payments/{{id}}"},
		"batch":  {Path: "/payments/batch", Body: `{"payments":[{"note":"{{marker}}","amount":5},{"note":"{{marker}}","amount":-1}]}`, Read: "/payments"},
	}
}

type payment struct {
	Note   string `json:"note"`
	Amount int    `json:"amount"`
}

// add must be called with the lock held.
func (l *ledger) add(p payment) map[string]any {
	made := map[string]any{"id": fmt.Sprint("pay_", len(l.list)+1), "note": p.Note, "amount": p.Amount}
	l.list = append(l.list, made)
	return made
}

func (l *ledger) pay(w http.ResponseWriter, r *http.Request, _ map[string]any) {
	var p payment
	if json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&p) != nil || p.Amount <= 0 {
		Refuse(w, 422, "the amount must be above 0")
		return
	}
	key := r.Header.Get("Idempotency-Key")
	l.mu.Lock()
	defer l.mu.Unlock()
	made, known := l.keys[key]
	if !known && l.checksFirst {
		l.mu.Unlock() // nothing holds the key while the payment goes out
		time.Sleep(30 * time.Millisecond)
		l.mu.Lock()
	}
	if !known {
		made = l.add(p)
		if key != "" {
			l.keys[key] = made
		}
	}
	Answer(w, 201, made)
}

func (l *ledger) batch(w http.ResponseWriter, r *http.Request, _ map[string]any) {
	var sent struct{ Payments []payment }
	if json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&sent) != nil {
		Refuse(w, 400, "not a batch")
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	before := len(l.list)
	for _, p := range sent.Payments {
		if p.Amount <= 0 {
			if !l.asItGoes {
				l.list = l.list[:before] // ROLLBACK
			}
			Refuse(w, 422, "an amount must be above 0")
			return
		}
		l.add(p)
	}
	Answer(w, 201, map[string]any{"count": len(sent.Payments)})
}

// catalogue is a list of many products.
type catalogue struct {
	eachRow          bool // a query for the supplier of each product
	uncapped         bool
	readsWhatItSkips bool // OFFSET
}

const products = 20_000

func withCatalogue(c catalogue) func(*API) {
	return func(a *API) {
		a.Routes["GET /products"] = a.Private(func(w http.ResponseWriter, r *http.Request, _ map[string]any) { c.list(w, r) })
	}
}

func catalogueKnobs(_ string, _ *API, t *audit.Target, _ *audit.Config) {
	t.ListPath, t.PageNumber = "/products", "offset"
	t.Operations = []audit.Operation{{Method: "GET", Path: "/products", Params: []audit.Param{
		{Name: "limit", In: "query", Type: "integer"}, {Name: "supplier", In: "query", Type: "string"},
	}}}
}

func (c catalogue) list(w http.ResponseWriter, r *http.Request) {
	limit, err := number(r, "limit", 20)
	offset, errOffset := number(r, "offset", 0)
	if err != nil || errOffset != nil || limit < 1 || offset < 0 {
		Refuse(w, 422, "limit and offset are numbers")
		return
	}
	if !c.uncapped {
		limit = min(limit, 100)
	}
	if c.readsWhatItSkips {
		time.Sleep(time.Duration(offset) * 12 * time.Microsecond)
	}
	time.Sleep(5 * time.Millisecond) // the query
	queries := 2
	rows := []map[string]any{}
	for i := offset; i < min(offset+limit, products); i++ {
		if c.eachRow {
			queries++
		}
		rows = append(rows, map[string]any{"id": i + 1, "name": fmt.Sprint("product ", i+1), "supplier": fmt.Sprint("supplier ", i%7)})
	}
	w.Header().Set("Server-Timing", fmt.Sprintf(`db;desc="%d queries"`, queries))
	Answer(w, 200, map[string]any{"items": rows, "total": products})
}

func number(r *http.Request, name string, otherwise int) (int, error) {
	value := r.URL.Query().Get(name)
	if value == "" {
		return otherwise, nil
	}
	return strconv.Atoi(value)
}

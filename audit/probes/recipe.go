package probes

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gantryhq/gantry/audit"
)

// writer carries out a recipe: it writes objects of the audit's own, reads them back and deletes them.
type writer struct {
	s       *audit.Session
	recipe  audit.Recipe
	marker  string
	created []string // ids to delete
}

// newWriter of the recipe of that name; nil when there is none, or none that is complete.
func newWriter(s *audit.Session, name string) *writer {
	r, ok := s.Target().Recipes[name]
	if !ok || r.Path == "" {
		return nil
	}
	if r.Method == "" {
		r.Method = http.MethodPost
	}
	return &writer{s: s, recipe: r, marker: s.Nonce(int(time.Now().UnixNano() % 1_000_000))}
}

// fill a template.
func (w *writer) fill(template, id string, n int) string {
	return strings.NewReplacer("{{marker}}", w.marker, "{{n}}", strconv.Itoa(n), "{{id}}", id).Replace(template)
}

// request that the recipe describes, the n-th, on the object id when it names one.
func (w *writer) request(id string, n int) audit.Request {
	r := audit.Request{
		Method: w.recipe.Method, Path: w.fill(w.recipe.Path, id, n), Token: w.s.Target().Token, Label: "recipe",
		Header: http.Header{},
	}
	if w.recipe.Body != "" {
		r.Body = []byte(w.fill(w.recipe.Body, id, n))
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

// write sends the recipe at the polite pace and remembers what must be deleted.
func (w *writer) write(ctx context.Context, r audit.Request) (*audit.Exchange, error) {
	x, err := w.s.Do(ctx, r)
	if err == nil {
		w.remember(x)
	}
	return x, err
}

func (w *writer) remember(x *audit.Exchange) {
	if id := idOf(x); x.OK() && id != "" {
		w.created = append(w.created, id)
	}
}

// read the object id back.
func (w *writer) read(ctx context.Context, id string) (*audit.Exchange, error) {
	return w.s.Do(ctx, audit.Request{Path: w.fill(w.recipe.Read, id, 0), Token: w.s.Target().Token, Label: "read back", Limit: 4 << 20})
}

// clean deletes what was created, also when the run was interrupted; failing to is only a note in the log of the target.
func (w *writer) clean(ctx context.Context) {
	if w.recipe.Delete == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	for _, id := range w.created {
		_, err := w.s.Unpaced(ctx, audit.Request{
			Method: http.MethodDelete, Path: w.fill(w.recipe.Delete, id, 0), Token: w.s.Target().Token, Label: "clean up",
		})
		if err != nil {
			return
		}
	}
}

// idOf a created object: the member id, or what stands at the end of Location.
func idOf(x *audit.Exchange) string {
	if id, ok := field(x.Body, "id"); ok {
		return fmt.Sprint(id)
	}
	location, _, _ := strings.Cut(x.Header.Get("Location"), "?")
	location = strings.TrimSuffix(location, "/")
	return location[strings.LastIndexByte(location, '/')+1:]
}

// field of a JSON body by a dotted path; numbers are json.Number, and a number in the path is an index.
func field(body []byte, path string) (any, bool) {
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return nil, false
	}
	for part := range strings.SplitSeq(path, ".") {
		switch node := v.(type) {
		case map[string]any:
			next, ok := node[part]
			if !ok {
				return nil, false
			}
			v = next
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(node) {
				return nil, false
			}
			v = node[i]
		default:
			return nil, false
		}
	}
	return v, true
}

// noRecipe is the verdict when a recipe is missing.
func noRecipe(s *audit.Session, name string) audit.Verdict {
	if _, ok := s.Target().Recipes[name]; ok {
		return audit.Unproven("the recipe %q is incomplete: it needs a path to write and one to read back", name).Unlock("audit.recipes.%s in gantry.yaml", name)
	}
	return audit.Unproven("no recipe says how to write without harm").Unlock("audit.recipes.%s in gantry.yaml", name)
}

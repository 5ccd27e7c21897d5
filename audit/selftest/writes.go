package selftest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gantryhq/gantry/audit"
)

func bytesReader(b []byte) io.Reader { return bytes.NewReader(b) }

func writeCases() []Case {
	return []Case{
		{Probe: "VAL-05", Prepare: func(a *API) { withNotes(a, &notes{}) }, Break: func(a *API) { withNotes(a, &notes{binds: true}) }, Knobs: noteRecipe},
		{Probe: "VAL-06", Prepare: func(a *API) { withNotes(a, &notes{}) }, Break: func(a *API) { withNotes(a, &notes{fetches: true}) }, Knobs: noteRecipe},
	}
}

// notes is a resource that callers write to.
type notes struct {
	binds   bool // everything the client sends is kept
	fetches bool // the server fetches the callback at once

	mu   sync.Mutex
	list []map[string]any
}

func withNotes(a *API, n *notes) {
	a.Routes["POST /notes"] = a.Private(n.create)
	a.Routes["GET /notes/{id}"] = a.Private(n.get)
	a.Routes["DELETE /notes/{id}"] = a.Private(func(w http.ResponseWriter, _ *http.Request, _ map[string]any) { w.WriteHeader(204) })
}

func noteRecipe(_ string, _ *API, t *audit.Target, _ *audit.Config) {
	t.Recipes = map[string]audit.Recipe{"create": {
		Path: "/notes", Body: `{"title":"{{marker}}","callback_url":"https://example.com/"}`, Read: "/notes/{{id}}", Delete: "/notes/{{id}}",
	}}
}

func (n *notes) create(w http.ResponseWriter, r *http.Request, claims map[string]any) {
	var sent map[string]any
	if json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&sent) != nil {
		Refuse(w, 400, "not a JSON object")
		return
	}
	if url, _ := sent["callback_url"].(string); n.fetches && strings.HasPrefix(url, "http") && !strings.Contains(url, "example.com") {
		client := http.Client{Timeout: time.Second}
		if res, err := client.Get(url); err == nil {
			res.Body.Close()
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	id := fmt.Sprint("note_", len(n.list)+1)
	kept := map[string]any{"title": sent["title"], "callback_url": sent["callback_url"]}
	if n.binds {
		for k, v := range sent {
			kept[k] = v
		}
	}
	kept["id"], kept["owner"] = id, claims["sub"]
	n.list = append(n.list, kept)
	Answer(w, 201, kept)
}

func (n *notes) get(w http.ResponseWriter, r *http.Request, _ map[string]any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, note := range n.list {
		if note["id"] == r.PathValue("id") {
			Answer(w, 200, note)
			return
		}
	}
	Refuse(w, 404, "there is no such note")
}

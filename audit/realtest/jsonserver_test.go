package realtest

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/internal/testenv"
)

// jsonServer is a REST API over a JSON file, made for development, and run as its readme says: no credentials, any origin,
// Express in its development mode.
func jsonServer(t *testing.T) string {
	t.Helper()
	dir := node(t, "json-server", `{"private": true, "dependencies": {"json-server": "0.17.4"}}`)
	data := filepath.Join(t.TempDir(), "db.json")
	var posts []map[string]any
	for i := range 1500 {
		posts = append(posts, map[string]any{"id": i + 1, "title": fmt.Sprintf("post %d", i+1), "author": "somebody"})
	}
	text, err := json.Marshal(map[string]any{"posts": posts, "profile": map[string]any{"name": "somebody"}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, data, string(text))
	port := testenv.FreePort(t)
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	serve(t, exec.Command(filepath.Join(dir, "node_modules/.bin/json-server"), "--host", "127.0.0.1", "--port", fmt.Sprint(port), "--quiet", data), url)
	return url
}

func TestJSONServer(t *testing.T) {
	audited(t, jsonServer(t), audit.Policy{SlowClient: 3 * time.Second}, func(k *audit.Target) {
		k.WritePath = "/posts"
		k.ListPath, k.PageParam, k.PageNumber = "/posts", "_limit", "_page"
	}, table{
		"CFG-02": passes, "CFG-04": passes, "CFG-05": passes, "CFG-06": passes, // X-Powered-By names Express, without a version
		// NODE_ENV is not set: Express shows its stack to a path or a body that it cannot read, with the server's folders.
		"CFG-01": failCritical, "ERR-01": failsHigh,
		// GET /posts?q[$ne]=x calls toLowerCase on an object: 500, with the stack again.
		"ERR-03": failsHigh,
		"VAL-03": passes,    // there is no database to inject into; VAL-01 stays open, since nothing says what a post must have
		"DAT-06": passes,    // rows cost next to nothing: they are in memory
		"DAT-07": failsHigh, // _limit is not capped; DAT-08 stays open, since 1,500 rows are too few to show an index missing
		"LIM-04": passes,    // its parser stops at 10 MB: 413
		"LIM-05": passes,    // Node: 16 KiB of head, 431
		"LIM-06": passes,    // half arrays are a 400; whole ones, with --active, break its file (RangeError at each write)
		"LIM-02": failsHigh, // Node waits 300 s for a body (requestTimeout), and looks at its timeouts every 30 s only
		"HLT-01": failsHigh, // no path says how it is
		"TRN-03": failsHigh, // the cors middleware, with origin: true and credentials: true
		// Node takes two Host lines, and one that is no host: RFC 9112 section 3.2 wants a 400.
		"TRN-06": failsMedium,
		"OBS-01": failsMedium,
	})
}

package realtest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/internal/testenv"
)

// Packages of anne are hers, those of bert his.
const verdaccioConfig = `
storage: %[1]s/storage
auth:
  htpasswd:
    file: %[1]s/htpasswd
    max_users: 100
security:
  api:
    legacy: false
    jwt:
      sign: {expiresIn: 1h}
      verify: {}
packages:
  'anne-*': {access: anne, publish: anne}
  'bert-*': {access: bert, publish: bert}
  '**': {access: $authenticated, publish: $authenticated}
web: {enable: false}
log: {type: stdout, format: json, level: warn}
`

// verdaccio is a private registry of npm packages. key is what it signs its tokens with.
func verdaccio(t *testing.T) (url, key string) {
	t.Helper()
	// The newest that runs on Node 20, with the dependency that it does not pin.
	program := node(t, "verdaccio", `{"private": true, "dependencies": {"verdaccio": "6.8.0"}, "overrides": {"node-fetch": "2.7.0"}}`)
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yaml")
	write(t, config, fmt.Sprintf(verdaccioConfig, dir))
	url = "http://" + testenv.FreeAddress(t)
	cmd := exec.Command(filepath.Join(program, "node_modules/.bin/verdaccio"), "--config", config, "--listen", url)
	cmd.Dir = dir
	serve(t, cmd, url+"/-/ping")
	text, err := os.ReadFile(filepath.Join(dir, "storage", ".verdaccio-db.json"))
	if err != nil {
		t.Fatal(err)
	}
	var store struct{ Secret string }
	if err := json.Unmarshal(text, &store); err != nil || store.Secret == "" {
		t.Fatalf("the key in %s: %v", text, err)
	}
	return url, store.Secret
}

// put sends a document to the registry and reads the answer into out.
func put(t *testing.T, url, token string, document, out any) {
	t.Helper()
	body, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusCreated {
		t.Fatalf("PUT %s: %s", url, res.Status)
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		t.Fatal(err)
	}
}

// signUp makes a user and returns its token.
func signUp(t *testing.T, url, name string) string {
	t.Helper()
	var made struct{ Token string }
	put(t, url+"/-/user/org.couchdb.user:"+name, "", map[string]string{"name": name, "password": "correct horse " + name}, &made)
	if made.Token == "" {
		t.Fatal("no token came with the new user")
	}
	return made.Token
}

// publish puts a package into the registry.
func publish(t *testing.T, url, token, name string) {
	t.Helper()
	file := name + "-1.0.0.tgz"
	content := base64.StdEncoding.EncodeToString([]byte("not read by the registry"))
	put(t, url+"/"+name, token, map[string]any{
		"_id": name, "name": name, "dist-tags": map[string]string{"latest": "1.0.0"},
		"versions":     map[string]any{"1.0.0": map[string]any{"name": name, "version": "1.0.0", "dist": map[string]string{"tarball": url + "/" + name + "/-/" + file}}},
		"_attachments": map[string]any{file: map[string]any{"content_type": "application/octet-stream", "data": content, "length": 24}},
	}, &struct{}{})
}

var verdaccioPolicy = audit.Policy{SlowClient: 3 * time.Second}

// verdaccioAnyway is what holds with and without a token.
func verdaccioAnyway(more table) table {
	all := table{
		"CFG-01": passes, "CFG-02": passes, "CFG-04": passes, "CFG-05": passes, "CFG-06": passes,
		"HLT-01": passes, // /-/ping is found
		"LIM-04": passes, // max_body_size, 10 MB: 413
		"LIM-05": passes, // Node: 16 KiB of head, 431
		"LIM-06": passes, // its parser comes before its routes: 400 and 413
		// Node waits 300 s for a body (requestTimeout), and looks at its timeouts every 30 s only.
		"LIM-02": failsHigh,
		"ERR-01": passes, "ERR-02": passes, "ERR-03": passes, // {"error": ...} for all of them
		"TRN-03": passes, // any origin, and no credentials with it
		// Node takes two Host lines, and one that is no host: RFC 9112 section 3.2 wants a 400.
		"TRN-06": failsMedium,
		"OBS-01": failsMedium,
	}
	maps.Copy(all, more)
	return all
}

func TestVerdaccioByItsURL(t *testing.T) {
	url, _ := verdaccio(t)
	audited(t, url, verdaccioPolicy, nil, verdaccioAnyway(table{}))
}

func TestVerdaccioWithTwoUsers(t *testing.T) {
	url, key := verdaccio(t)
	anne, bert := signUp(t, url, "anne"), signUp(t, url, "bert")
	publish(t, url, anne, "anne-notes")
	publish(t, url, bert, "bert-notes")
	audited(t, url, verdaccioPolicy, func(k *audit.Target) {
		k.Token, k.TokenB, k.JWTKey = anne, bert, key
		k.ProtectedPaths, k.ObjectA, k.ObjectB = []string{"/-/whoami"}, "/anne-notes", "/bert-notes"
	}, verdaccioAnyway(table{
		// /-/whoami says {} to whoever it does not know, and the name to whom it does: told apart by the body.
		"ID-01": passes, "AZ-03": passes,
		"AZ-01": passes, // a package is its owner's
		// Signatures are verified (jsonwebtoken): nothing forged is taken, in whatever form.
		"JWT-01": passes, "JWT-02": passes, "JWT-03": passes, "JWT-05": passes, "JWT-06": passes, "JWT-07": passes, "JWT-08": passes,
		"JWT-09": passes, "JWT-10": passes, "JWT-11": passes, "JWT-12": passes, "JWT-13": passes, "JWT-26": passes, "JWT-27": passes,
		"JWT-22": passes, // Node: 16 KiB of head
		// exp and nbf are looked at where they stand; that they must stand is an option of jsonwebtoken which is not used.
		"JWT-14": passes, "JWT-15": passes, "JWT-16": failsHigh,
		// JWT-17 and JWT-18 stay open: its tokens name nobody, and its key has never left it.
		// typ, crit and members twice are not looked at by jsonwebtoken.
		"JWT-19": failsMedium, "JWT-20": failsMedium, "JWT-21": failsMedium,
		// It limits log-ins only: 200 requests of one user in a second are served.
		"RL-01":  failCritical,
		"TRN-04": failsLow, // neither no-store nor nosniff on whoami, and nothing that would have it stored
	}))
}

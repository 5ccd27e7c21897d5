package realtest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/internal/testenv"
)

// nginx serves the folder www of the given one as the location says.
func nginx(t *testing.T, dir, location string) string {
	t.Helper()
	program := debian(t, "nginx", "nginx-light")
	port := testenv.FreePort(t)
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // the test's folder is nobody else's
	}
	config := filepath.Join(dir, "nginx.conf")
	write(t, config, fmt.Sprintf(`
daemon off;
%[4]s
worker_processes 1;
pid %[1]s/pid;
error_log %[1]s/error.log;
events { worker_connections 256; }
http {
  access_log off;
  server_tokens off;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  types { text/html html; application/json json; text/plain txt; }
  default_type application/octet-stream;
  client_header_timeout 2s;
  client_body_timeout 2s;
  server {
    listen 127.0.0.1:%[2]d;
    root %[1]s/www;
    location / { %[3]s }
  }
}
`, dir, port, location, user))
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	serve(t, exec.Command(program, "-p", dir, "-c", config), url)
	return url
}

var nginxPolicy = audit.Policy{SlowClient: 4 * time.Second}

func TestNginxThatServesSecretFiles(t *testing.T) {
	dir := t.TempDir()
	www := filepath.Join(dir, "www")
	write(t, filepath.Join(www, "index.html"), "<!doctype html><title>Shop</title><h1>Welcome</h1>")
	write(t, filepath.Join(www, ".env"), "APP_ENV=production\nDATABASE_URL=postgres://shop:Tr0ub4dor@db.internal:5432/shop\nSECRET_KEY=p9Kx2vQ7mW4rT8zL1nB6\n")
	git(t, www)
	url := nginx(t, dir, "try_files $uri $uri/ =404;")
	reports := audited(t, url, nginxPolicy, nil, table{
		// .env with a password, and the repository: HEAD and config.
		"CFG-02": failCritical,
		// The connection string in .env, which CFG-02 fetched.
		"CFG-05": failsHigh,
		"CFG-01": passes, "CFG-04": passes, "CFG-06": passes, // server_tokens off
		"ERR-01": passes, "ERR-03": passes,
		"LIM-05": passes, // 400 and 414: large_client_header_buffers
		// LIM-02 and LIM-04 stay open: a POST is answered 405 from its head, so no body is waited for. ERR-02 too: no JSON here.
		"HLT-01": failsHigh, // nothing says how it is
		"TRN-03": passes,
		"TRN-06": failsLow, // bare line feeds end a line, which RFC 9112 section 2.2 allows
		"OBS-01": failsMedium,
	})
	for _, report := range reports {
		text, err := json.Marshal(report)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"Tr0ub4dor", "p9Kx2vQ7mW4rT8zL1nB6"} {
			if strings.Contains(string(text), secret) {
				t.Errorf("the report shows %q of .env", secret)
			}
		}
	}
}

// git makes a real repository of the folder.
func git(t *testing.T, dir string) {
	t.Helper()
	if found("git") == "" {
		t.Skip("git is not installed")
	}
	for _, args := range [][]string{
		{"init", "-q"},
		{"remote", "add", "origin", "https://git.example.com/shop.git"},
		{"add", "index.html"},
		{"-c", "user.name=A Team", "-c", "user.email=team@example.com", "commit", "-q", "-m", "Shop"},
	} {
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
}

func TestNginxWithOnePageForEverything(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "www", "index.html"), "<!doctype html><title>Shop</title><div id=app></div><script src=/app.js></script>")
	audited(t, nginx(t, dir, "try_files $uri /index.html;"), nginxPolicy, nil, table{
		// Every name is answered 200 with the page of the application, and none of it is a file, an endpoint or health.
		"CFG-02": passes, "CFG-04": passes, "CFG-05": passes, "CFG-06": passes,
		"HLT-01": failsHigh,
		// CFG-01 stays open: nothing got an error out of it.
		"ERR-01": passes, "ERR-03": passes,
		"ERR-02": failsMedium, // a path that cannot exist is a 200
		"LIM-05": passes,
		"TRN-03": passes,
		"TRN-06": failsLow, // as above
		"OBS-01": failsMedium,
	})
}

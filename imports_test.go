package gantry

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/gantryhq/gantry"

// mayImport is who may import whom inside the module. Every package stands here; "problem" is open
// to all, and a child may import its parent.
var mayImport = map[string][]string{
	"":                             {},
	"problem":                      {},
	"rollout":                      {},
	"rollout/fleet":                {},
	"rollout/storetest":            {"rollout/fleet"},
	"rollout/sqlite":               {"rollout/fleet"},
	"rollout/sqlite/internal/db":   {},
	"rollout/postgres":             {"rollout/fleet"},
	"rollout/postgres/internal/db": {},
	"guard":                        {},
	"identity":                     {},
	"identity/devissuer":           {},
	"clerk":                        {},
	"ratelimit":                    {},
	"sfv":                          {},
	"proxy":                        {},
	"health":                       {},
	"alert":                        {},
	"telemetry":                    {},
	"cache":                        {},
	"users":                        {},
	"users/storetest":              {},
	"users/sqlite":                 {},
	"users/sqlite/internal/db":     {},
	"audit":                        {"audit/jws", "audit/load", "audit/observe"},
	"audit/jws":                    {},
	"audit/probes":                 {"audit/jws", "audit/load", "audit/observe", "audit/stat"},
	"audit/selftest":               {"audit/jws", "audit/load"},
	"audit/openapi":                {},
	"audit/report":                 {},
	"audit/envfile":                {"secret"},
	"audit/source":                 {},
	"secret":                       {},
	"internal/demo":                {"audit", "audit/jws"},
	"internal/config":              {"alert", "audit", "identity", "clerk", "ratelimit", "secret"},
	"ratelimit/storetest":          {},
	"ratelimit/valkey":             {},
	"cache/valkey":                 {},
	"users/postgres":               {},
	"users/postgres/internal/db":   {},
	"internal/dashboard":           {"audit", "audit/report"},
	"internal/server": {
		"alert", "cache", "clerk", "guard", "health", "identity", "identity/devissuer", "internal/config", "internal/dashboard",
		"proxy", "ratelimit", "rollout", "rollout/fleet", "rollout/sqlite", "rollout/postgres", "users", "users/sqlite", "users/postgres", "ratelimit/valkey", "cache/valkey",
		"alert", "telemetry",
	},
	"audit/load":     {},
	"audit/realtest": {},
	"audit/stat":     {},
	"internal/cli": {
		"alert", "audit", "audit/envfile", "audit/jws", "audit/observe", "audit/source", "audit/observe/postgres", "audit/observe/valkey", "audit/openapi", "audit/probes", "audit/report", "audit/selftest", "internal/demo", "ratelimit",
		"clerk", "rollout", "rollout/fleet", "internal/config", "internal/server", "identity/devissuer", "telemetry", "users", "internal/dashboard",
	},
	"audit/observe":          {},
	"audit/observe/postgres": {"audit/observe"},
	"audit/observe/valkey":   {"audit/observe"},
	"internal/testenv":       {},
	"cmd/gantry":             {"internal/cli"},
}

// confined third-party modules are used by one package only (their own tests aside).
var confined = map[string][]string{
	"github.com/go-jose/go-jose/v4":   {"identity", "identity/devissuer"},
	"github.com/danielgtaylor/huma":   {"users"},
	"modernc.org/sqlite":              {"users/sqlite", "internal/demo"},
	"github.com/pressly/goose":        {"users/sqlite", "users/postgres"},
	"github.com/jackc/pgx":            {"users/postgres", "users/postgres/internal/db", "rollout/postgres", "rollout/postgres/internal/db", "audit/observe/postgres"},
	"github.com/maypok86/otter":       {"cache"},
	"github.com/valkey-io/valkey-go":  {"ratelimit/valkey", "cache/valkey", "internal/server", "audit/observe/valkey"},
	"github.com/prometheus":           {"telemetry"},
	"github.com/goccy/go-yaml":        {"internal/config", "audit/openapi", "alert"},
	"github.com/shirou/gopsutil":      {"health"},
	"go.opentelemetry.io":             {"telemetry", "internal/testenv"},
	"google.golang.org/grpc":          {"telemetry", "internal/testenv"},
	"github.com/getsentry/sentry-go":  {"telemetry"},
	"github.com/go-logr/logr":         {"telemetry"},
	"google.golang.org/protobuf":      {"internal/testenv"},
	"golang.org/x/sys":                {"health", "audit/load"},
	"golang.org/x/net":                {},
	"golang.org/x/term":               {"internal/cli"},
	"github.com/chromedp":             {"internal/testenv"},
	"filippo.io/bigmod":               {"identity"},
	"github.com/rogpeppe/go-internal": {},
	"pgregory.net/rapid":              {},
	"go.uber.org/goleak":              {},
}

type goPackage struct {
	ImportPath string
	Imports    []string
}

func TestImportsFollowTheMap(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		allowed, known := mayImport[name]
		if !known {
			t.Errorf("%s is not on the map; add it with what it may import", name)
		}
		for _, path := range p.Imports {
			checkImport(t, name, path, allowed)
		}
	}
}

func checkImport(t *testing.T, name, path string, allowed []string) {
	t.Helper()
	if inside, found := strings.CutPrefix(path, module+"/"); found {
		parent := strings.HasPrefix(name, inside+"/") || strings.HasPrefix(inside, name+"/internal/")
		if inside != "problem" && !parent && !slices.Contains(allowed, inside) {
			t.Errorf("%s imports %s", name, inside)
		}
		return
	}
	for third, homes := range confined {
		if strings.HasPrefix(path, third) && !slices.Contains(homes, name) {
			t.Errorf("%s imports %s, which belongs to %v", name, path, homes)
		}
	}
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var list []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p goPackage
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	return list
}

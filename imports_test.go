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
	"":                   {},
	"problem":            {},
	"guard":              {},
	"identity":           {},
	"identity/devissuer": {},
	"clerk":              {},
	"ratelimit":          {},
	"sfv":                {},
	"proxy":              {},
	"health":             {},
	"cache":              {},
	"users":              {},
	"users/storetest":    {},
	"users/sqlite":       {},
	"internal/config":    {"identity", "clerk", "ratelimit"},
	"internal/server": {
		"cache", "clerk", "guard", "health", "identity", "identity/devissuer", "internal/config",
		"proxy", "ratelimit", "users", "users/sqlite",
	},
	"internal/cli":     {"internal/config", "internal/server", "identity/devissuer"},
	"internal/testenv": {},
	"cmd/gantry":       {"internal/cli"},
}

// confined third-party modules are used by one package only (their own tests aside).
var confined = map[string][]string{
	"github.com/go-jose/go-jose/v4":   {"identity", "identity/devissuer"},
	"github.com/danielgtaylor/huma":   {"users"},
	"modernc.org/sqlite":              {"users/sqlite"},
	"github.com/pressly/goose":        {"users/sqlite"},
	"github.com/maypok86/otter":       {"cache"},
	"github.com/goccy/go-yaml":        {"internal/config"},
	"github.com/shirou/gopsutil":      {"health"},
	"golang.org/x/sys":                {"health"},
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

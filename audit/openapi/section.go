package openapi

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

var (
	pageSizes   = []string{"limit", "page_size", "pageSize", "per_page", "perPage", "size", "count", "page[size]", "first", "top", "$top", "maxResults"}
	pageNumbers = []string{"page", "page_number", "pageNumber", "offset", "skip", "start", "page[number]"}
	selfPaths   = regexp.MustCompile(`(?i)/(?:me|self|profile|account|userinfo|whoami)/?$`)
)

// Fill tells t what the operations know and t does not: a protected path, health, a list with its page parameters, a
// path that takes POST, admin paths, and the recipes of [Propose]. What t has already stays.
func Fill(t *audit.Target, ops []audit.Operation) {
	if t.Operations == nil {
		t.Operations = ops
	}
	reads := slices.DeleteFunc(slices.Clone(ops), func(op audit.Operation) bool {
		return op.Method != http.MethodGet || strings.Contains(op.Path, "{") || slices.ContainsFunc(op.Params, needed)
	})
	if len(t.ProtectedPaths) == 0 {
		t.ProtectedPaths = protected(reads)
	}
	if t.HealthPath == "" {
		t.HealthPath = health(reads)
	}
	if t.ListPath == "" {
		t.ListPath, t.PageParam, t.PageNumber = listing(reads)
	}
	if len(t.AdminPaths) == 0 {
		for _, op := range reads {
			if adminWords.MatchString(op.Path) && len(t.AdminPaths) < 5 {
				t.AdminPaths = append(t.AdminPaths, op.Path)
			}
		}
	}
	proposed := Propose(ops)
	if r, ok := proposed["create"]; ok && t.WritePath == "" {
		t.WritePath = r.Path
	}
	if t.Recipes == nil {
		t.Recipes = proposed
	}
}

// needed says that a request without the parameter is malformed.
func needed(p audit.Param) bool { return p.Required && p.In != "body" }

// protected prefers the path that says who the caller is. Three at most: the audit takes the first that tells.
func protected(reads []audit.Operation) []string {
	var list []string
	for _, op := range reads {
		if op.Secured && !adminWords.MatchString(op.Path) {
			list = append(list, op.Path)
		}
	}
	slices.SortStableFunc(list, func(a, b string) int {
		return cmp.Compare(rank(selfPaths.MatchString(a)), rank(selfPaths.MatchString(b)))
	})
	return list[:min(len(list), 3)]
}

func rank(first bool) int {
	if first {
		return 0
	}
	return 1
}

func health(reads []audit.Operation) string {
	for _, op := range reads {
		if !op.Secured && healthWords.MatchString(op.Path) && strings.Count(op.Path, "/") <= 3 {
			return op.Path
		}
	}
	return ""
}

func listing(reads []audit.Operation) (path, size, number string) {
	for _, op := range reads {
		if size = named(op.Params, pageSizes); size != "" {
			return op.Path, size, named(op.Params, pageNumbers)
		}
	}
	return "", "", ""
}

// named is the query parameter of op that stands first in list.
func named(params []audit.Param, list []string) string {
	for _, name := range list {
		if slices.ContainsFunc(params, func(p audit.Param) bool { return p.In == "query" && p.Name == name }) {
			return name
		}
	}
	return ""
}

// Section writes the audit part of gantry.yaml for t, with comments for the person who confirms it.
func Section(t *audit.Target) string {
	var b strings.Builder
	b.WriteString("# What gantry audit is told about this API. Read it before the first run: the recipes write to the target.\n")
	b.WriteString("audit:\n")
	entry(&b, "protected_paths", "need a credential; the first that tells a valid from a garbage one is used", quotedList(t.ProtectedPaths))
	entry(&b, "admin_paths", "only administrators may read these", quotedList(t.AdminPaths))
	entry(&b, "health_path", "answers whether the API is well, without a credential", quoted(t.HealthPath))
	entry(&b, "list_path", "a collection, read page by page", quoted(t.ListPath))
	entry(&b, "page_param", "its page-size parameter", quoted(t.PageParam))
	entry(&b, "page_number", "its page-number or offset parameter", quoted(t.PageNumber))
	entry(&b, "write_path", "takes POST; malformed bodies are sent to it, which it must refuse", quoted(t.WritePath))
	recipes(&b, t.Recipes)
	return b.String()
}

// entry writes a key, or the key commented out when nothing is known.
func entry(b *strings.Builder, key, comment, value string) {
	if value == "" {
		fmt.Fprintf(b, "  # %s:  # %s\n", key, comment)
		return
	}
	fmt.Fprintf(b, "  %s: %s  # %s\n", key, value, comment)
}

// recipeComments say what each recipe is for, in the order of the section.
var recipeComments = []struct{ name, comment string }{
	{"create", "makes an object of its own; {{marker}} is unique, {{id}} is what it was given"},
	{"update", "changes that object"},
	{"counter", "adds to the number in field, many times at once"},
	{"batch", "writes several objects in one request"},
	{"login", "put the credentials of a throw-away user here"},
	{"logout", "ends the session of that user"},
}

func recipes(b *strings.Builder, all map[string]audit.Recipe) {
	if len(all) == 0 {
		b.WriteString("  # recipes:  # how to write without harm: create, update, counter, batch, login, logout\n")
		return
	}
	b.WriteString("  recipes:  # used with --active only; everything made carries {{marker}} and is deleted again\n")
	done := map[string]bool{}
	for _, r := range recipeComments {
		if recipe, ok := all[r.name]; ok {
			writeRecipe(b, r.name, r.comment, recipe)
		}
		done[r.name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !done[name] {
			writeRecipe(b, name, "", all[name])
		}
	}
}

func writeRecipe(b *strings.Builder, name, comment string, r audit.Recipe) {
	fmt.Fprintf(b, "    %s:", quotedKey(name))
	if comment != "" {
		b.WriteString("  # " + comment)
	}
	b.WriteString("\n")
	for _, f := range []struct{ key, value string }{
		{"method", r.Method}, {"path", r.Path}, {"body", r.Body}, {"read", r.Read}, {"field", r.Field}, {"delete", r.Delete},
	} {
		if f.value != "" {
			fmt.Fprintf(b, "      %s: %s\n", f.key, quoted(f.value))
		}
	}
	if r.Unique {
		b.WriteString("      unique: true\n")
	}
}

var plainScalar = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9/_.-]*$`)

// quoted writes a scalar of YAML: plain when that cannot be misread, else in single quotes, else as JSON does.
func quoted(s string) string {
	switch {
	case s == "":
		return ""
	case plainScalar.MatchString(s) && !slices.Contains([]string{"true", "false", "null", "yes", "no", "on", "off"}, strings.ToLower(s)):
		return s
	case !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r > 0x7e }):
		return "'" + strings.ReplaceAll(s, "'", "''") + "'"
	}
	return strconv.QuoteToASCII(s)
}

func quotedKey(s string) string { return cmp.Or(quoted(s), `""`) }

func quotedList(list []string) string {
	if len(list) == 0 {
		return ""
	}
	var all []string
	for _, s := range list {
		all = append(all, quoted(s))
	}
	return "[" + strings.Join(all, ", ") + "]"
}

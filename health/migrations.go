package health

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// PendingMigrations reads the body of a health answer and returns where it says that migrations of a database are
// yet to be applied, such as "checks.database:migrations.0.status", or "" when it says no such thing. The place is at
// most 80 bytes long, of the answer's own words.
//
// There is no standard for it. It reads members whose names speak of migrations, Flyway or Liquibase, in
// application/health+json (draft-inadarei-api-health-check-06), Spring Boot's /actuator/health, django-health-check and
// what people write by hand: a bad word as their status, or anything at all that is called pending. A mere version says nothing.
func PendingMigrations(answer []byte) string {
	var doc any
	if json.Unmarshal(answer, &doc) != nil {
		return ""
	}
	where := pendingIn(doc, nil, false)
	return where[max(0, len(where)-80):]
}

// pendingIn walks down; about says that v stands inside a member about migrations.
func pendingIn(v any, path []string, about bool) string {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			of, waits := ofMigrations(name), saysPending(name)
			inside := append(path, name)
			switch {
			case (about || of) && waits && !isNothing(v[name]):
				return strings.Join(inside, ".")
			case !about || name == "status":
				if found := pendingIn(v[name], inside, about || of); found != "" {
					return found
				}
			}
		}
	case []any:
		for i, item := range v {
			if found := pendingIn(item, append(path, strconv.Itoa(i)), about); found != "" {
				return found
			}
		}
	case string:
		if about && isBad(v) {
			return strings.Join(path, ".")
		}
	case bool:
		if about && !v {
			return strings.Join(path, ".")
		}
	}
	return ""
}

func ofMigrations(name string) bool { return containsAny(name, "migration", "flyway", "liquibase") }

func saysPending(name string) bool { return containsAny(name, "pending", "unapplied") }

// isBad knows the words with which health answers say that a check is not well.
func isBad(status string) bool {
	return containsAny(status, "pending", "unapplied", "warn", "fail", "error", "down", "unavailable", "out_of_service", "outdated", "behind")
}

func containsAny(text string, words ...string) bool {
	text = strings.ToLower(text)
	return slices.ContainsFunc(words, func(word string) bool { return strings.Contains(text, word) })
}

// isNothing says that nothing is pending.
func isNothing(v any) bool {
	switch v := v.(type) {
	case bool:
		return !v
	case float64:
		return v <= 0
	case string:
		return v == "" || v == "0" || containsAny(v, "none")
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return true
}

package health

import (
	"strings"
	"testing"
)

func TestPendingMigrations(t *testing.T) {
	for name, tt := range map[string]struct{ answer, where string }{
		"health+json, all well":        {`{"status":"pass","checks":{"database:migrations":[{"status":"pass","observedValue":42}]}}`, ""},
		"health+json, a warning":       {`{"status":"warn","checks":{"database:migrations":[{"status":"warn","output":"2 to go"}]}}`, "checks.database:migrations.0.status"},
		"another check fails":          {`{"status":"fail","checks":{"cache":[{"status":"fail"}],"migrations":[{"status":"pass"}]}}`, ""},
		"Spring Boot":                  {`{"status":"UP","components":{"flyway":{"status":"UP","details":{"pending":2}}}}`, ""},
		"Spring Boot, down":            {`{"status":"DOWN","components":{"liquibase":{"status":"DOWN"}}}`, "components.liquibase.status"},
		"django-health-check":          {`{"DatabaseBackend":"working","MigrationsHealthCheck":"unavailable: There are migrations to apply"}`, "MigrationsHealthCheck"},
		"django-health-check, applied": {`{"MigrationsHealthCheck":"working"}`, ""},
		"a count":                      {`{"pending_migrations":3}`, "pending_migrations"},
		"no count":                     {`{"pending_migrations":0}`, ""},
		"names":                        {`{"db":{"migrations":{"version":41,"pending":["0042_add_plan"]}}}`, "db.migrations.pending"},
		"no names":                     {`{"db":{"migrations":{"version":41,"pending":[]}}}`, ""},
		"a version":                    {`{"migrations":"0042_add_plan","migration":42}`, ""},
		"a word":                       {`{"migrations":"Pending"}`, "migrations"},
		"done":                         {`{"migrations":true}`, ""},
		"not done":                     {`{"migrations":false}`, "migrations"},
		"pending, of something else":   {`{"orders":{"pending":7}}`, ""},
		"no JSON":                      {`OK, 3 migrations pending`, ""},
		"null":                         {`{"pending_migrations":null}`, ""},
		"deep":                         {strings.Repeat(`{"a":`, 9000) + `{"migrations":"pending"}` + strings.Repeat(`}`, 9000), strings.Repeat("a.", 35) + "migrations"},
		"deeper than is read":          {strings.Repeat(`[`, 20000), ""},
	} {
		if got := PendingMigrations([]byte(tt.answer)); got != tt.where {
			t.Errorf("%s: %.80q, want %.80q", name, got, tt.where)
		}
	}
}

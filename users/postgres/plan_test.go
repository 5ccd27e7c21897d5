package postgres_test

import (
	"crypto/md5"
	"embed"
	"encoding/json"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gantryhq/gantry/internal/testenv"
	"github.com/gantryhq/gantry/users/postgres"
)

//go:embed queries/*.sql
var queries embed.FS

// seed makes a hundred thousand users with three events each, and claims and revocations. The events'
// users are not looked up, which would take most of the time.
const seed = `
INSERT INTO users (id, issuer, subject, handle, status, email, version, created_at, updated_at, access_changed_at, events)
SELECT 'usr_' || md5(i::text), 'iss', 'user_' || i, 'h' || i, CASE WHEN i % 50 = 0 THEN 'suspended' ELSE 'active' END, 'u' || i || '@example.com',
  1, '2026-01-01'::timestamptz + i * interval '1 second', now(), CASE WHEN i % 50 = 0 THEN '2026-01-01'::timestamptz + i * interval '1 second' END, 3
FROM generate_series(1, 100000) AS i;
SET session_replication_role = replica & INSERT INTO audit_events (user_id, seq, kind, actor, fields, at, prev, hash)
SELECT 'usr_' || md5(i::text), n, 'user.updated', 'a', '{bio}', now(), '', '' FROM generate_series(1, 100000) AS i, generate_series(1, 3) AS n;
INSERT INTO claims SELECT 'idem ' || (i % 1000), 'k' || i, '', '', now(), now() + i * interval '1 second' FROM generate_series(1, 50000) AS i;
INSERT INTO revocations SELECT 'iss', 's' || i, 'user_' || i, now() + i * interval '1 second', now() + i * interval '1 ms' FROM generate_series(1, 50000) AS i;
VACUUM ANALYZE users; VACUUM ANALYZE audit_events; VACUUM ANALYZE claims; VACUUM ANALYZE revocations;`

// seeded is a database in the newest schema with all that in it.
func seeded(t *testing.T, p *testenv.Postgres) (database string) {
	t.Helper()
	db := p.NewDatabase()
	_ = open(t, postgres.Config{URL: p.URL(db)}).Close()
	for statement := range strings.SplitSeq(seed, ";") {
		p.Exec(db, strings.Replace(statement, "&", ";", 1))
	}
	return db
}

// arguments of a statement, by the names in its file.
var arguments = map[string]string{
	"issuer": "'iss'", "subject": "'user_70000'", "id": "'usr_" + strings.Repeat("8", 32) + "'", "handle": "'h70000'", "status": "'suspended'",
	"plan": "''", "email": "'e'", "display_name": "''", "image_url": "''", "bio": "''", "locale": "''", "timezone": "''",
	"version": "2", "created_at": "now()", "updated_at": "now()", "source_updated_at": "NULL", "events": "3", "head": "''",
	"at": "'2026-01-01 20:00Z'", "n": "20", "match": "'user_70000'", "after": "'m'", "user_id": "'usr_8'", "seq": "1", "kind": "'k'", "actor": "'a'",
	"fields": "'{}'", "prev": "''", "hash": "''", "ids": "'{" + strings.Join(seededIDs(100), ",") + "}'", "counts": "'{" + strings.TrimSuffix(strings.Repeat("3,", 100), ",") + "}'",
	"scope": "'idem 7'", "key": "'k7'", "fingerprint": "''", "result": "''", "expires_at": "now()", "session_id": "'s7'", "until": "now()",
}

// seededIDs are those of the first n users of the seed.
func seededIDs(n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("usr_%x", md5.Sum([]byte(fmt.Sprint(i+1)))))
	}
	return ids
}

var (
	named = regexp.MustCompile(`-- name: (\w+) :\w+\n`)
	arg   = regexp.MustCompile(`(^|[^\w:])(?:@(\w+)|sqlc\.narg\((\w+)\))`)
)

// statement is one of the files' as the server knows it: with numbered parameters, and their values.
type statement struct{ name, sql, values string }

func statements(t *testing.T) (all []statement) {
	t.Helper()
	files, err := queries.ReadDir("queries")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := queries.ReadFile(path.Join("queries", f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		bodies := named.Split(string(text), -1)[1:]
		for i, m := range named.FindAllStringSubmatch(string(text), -1) {
			all = append(all, numbered(t, m[1], bodies[i]))
		}
	}
	return all
}

func numbered(t *testing.T, name, body string) statement {
	t.Helper()
	var order, values []string
	sql := arg.ReplaceAllStringFunc(body, func(found string) string {
		m := arg.FindStringSubmatch(found)
		which := m[2] + m[3]
		if !slices.Contains(order, which) {
			value, known := arguments[which]
			if name == "Events" && which == "after" {
				value = "0"
			}
			if !known {
				t.Fatalf("%s has a parameter %s that this test has no value for", name, which)
			}
			order, values = append(order, which), append(values, value)
		}
		return fmt.Sprintf("%s$%d", m[1], slices.Index(order, which)+1)
	})
	return statement{name, strings.TrimRight(strings.TrimSpace(sql), ";"), strings.Join(values, ", ")}
}

type plan struct {
	Node     string `json:"Node Type"`
	Relation string `json:"Relation Name"`
	Hit      int    `json:"Shared Hit Blocks"`
	Read     int    `json:"Shared Read Blocks"`
	Plans    []plan
}

func (p plan) walk(visit func(plan)) {
	visit(p)
	for _, child := range p.Plans {
		child.walk(visit)
	}
}

// explain asks for the plan that a prepared statement settles on, which knows no values; options may ask
// for more than the plan.
func explain(t *testing.T, p *testenv.Postgres, db string, s statement, options string) plan {
	t.Helper()
	execute := "EXECUTE s"
	if s.values != "" {
		execute += "(" + s.values + ")"
	}
	out := p.Exec(db, fmt.Sprintf("SET plan_cache_mode = force_generic_plan; PREPARE s AS %s; EXPLAIN (FORMAT JSON%s) %s", s.sql, options, execute))
	var answer []struct{ Plan plan }
	if err := json.Unmarshal([]byte(out), &answer); err != nil || len(answer) != 1 {
		t.Fatalf("%s: %v: %s", s.name, err, out)
	}
	return answer[0].Plan
}

func TestPlansOverAHundredThousandUsers(t *testing.T) {
	p := testenv.NewPostgres(t)
	db := seeded(t, p)
	t.Run("no statement scans a table", func(t *testing.T) { noScan(t, p, db) })
	t.Run("a list is flat", func(t *testing.T) { flat(t, p, db) })
}

func noScan(t *testing.T, p *testenv.Postgres, db string) {
	scans := 0
	byBio := statement{name: "a search in all biographies", sql: "SELECT * FROM users WHERE bio = $1", values: "'x'"}
	explain(t, p, db, byBio, "").walk(func(n plan) {
		if n.Node == "Seq Scan" {
			scans++
		}
	})
	if scans != 1 {
		t.Errorf("%s has %d scans, want the 1 that this test must see", byBio.name, scans)
	}
	checked := 0
	for _, s := range statements(t) {
		if strings.Contains(s.sql, "LOCK TABLE") {
			continue // has no plan
		}
		explain(t, p, db, s, "").walk(func(n plan) {
			if n.Node == "Seq Scan" || strings.HasPrefix(n.Node, "Sort") && strings.HasPrefix(s.name, "List") {
				t.Errorf("%s does a %s of %s", s.name, n.Node, n.Relation)
			}
		})
		checked++
	}
	if checked < 25 {
		t.Errorf("%d statements were checked, want all of them", checked)
	}
}

// The pages of a list must cost the same from the first to the last.
func flat(t *testing.T, p *testenv.Postgres, db string) {
	for _, s := range statements(t) {
		if s.name != "ListUsers" && s.name != "ListUsersWithStatus" {
			continue
		}
		var blocks []int
		for _, at := range []string{"9999-12-31", "2026-01-02 03:46:00Z", "2026-01-01 14:00Z", "2026-01-01 00:50Z"} {
			page := s
			page.values = strings.Replace(s.values, arguments["at"], "'"+at+"'", 1)
			got := explain(t, p, db, page, ", ANALYZE, BUFFERS")
			blocks = append(blocks, got.Hit+got.Read)
		}
		if slices.Max(blocks) > slices.Min(blocks)+20 || slices.Max(blocks) > 100 {
			t.Errorf("%s reads %v blocks for pages from the first to the last; want about the same", s.name, blocks)
		}
		t.Logf("%s: %v blocks", s.name, blocks)
	}
}

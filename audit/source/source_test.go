package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// scanDir scans a directory of testdata as the root of a project.
func scanDir(t *testing.T, dir string) Report {
	t.Helper()
	return scanFS(t, os.DirFS(dir))
}

func scanFS(t *testing.T, fsys fs.FS) Report {
	t.Helper()
	report, err := Scan(t.Context(), fsys, Config{})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// A sample is testdata/RULE/LANGUAGE/faulty*.EXT, whose lines with a hole end in the comment "want", or
// sound*.EXT, which has none.
func TestEveryRuleTellsFaultyFromSoundSamplesInEachOfItsLanguages(t *testing.T) {
	for _, rule := range Rules() {
		for _, lang := range rule.Languages {
			t.Run(rule.ID+"/"+string(lang), func(t *testing.T) {
				dir := filepath.Join("testdata", rule.ID, string(lang))
				report := scanDir(t, dir)
				for _, s := range append(report.Unparsed, report.Examples...) {
					t.Errorf("%s is not judged: %s", s.Path, s.Why)
				}
				got, want := []string{}, wanted(t, dir, rule.ID)
				for _, h := range report.Holes {
					if h.Rule == rule.ID || strings.HasPrefix(h.File, "sound") {
						got = append(got, fmt.Sprintf("%s:%d %s", h.File, h.Line, h.Rule))
					}
				}
				if diff := cmp.Diff(got, want); diff != "" {
					t.Errorf("holes (-got +want):\n%s", diff)
				}
			})
		}
	}
}

// wanted are the marked lines of the faulty samples.
func wanted(t *testing.T, dir, rule string) []string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var faulty, sound int
	var want []string
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(dir, file.Name()))
		if err != nil {
			t.Fatal(err)
		}
		before := len(want)
		for n, line := range strings.Split(string(text), "\n") {
			if strings.HasSuffix(line, "# want") || strings.HasSuffix(line, "// want") {
				want = append(want, fmt.Sprintf("%s:%d %s", file.Name(), n+1, rule))
			}
		}
		switch marked := len(want) > before; {
		case marked && strings.HasPrefix(file.Name(), "faulty"):
			faulty++
		case !marked && strings.HasPrefix(file.Name(), "sound"):
			sound++
		default:
			t.Errorf("%s is neither faulty with marks nor sound without", file.Name())
		}
	}
	if faulty == 0 || sound == 0 {
		t.Errorf("%d faulty and %d sound samples in %s, want one of each or more", faulty, sound, dir)
	}
	slices.SortFunc(want, func(a, b string) int { return compareLines(a, b) })
	return want
}

// compareLines orders "file:line rule" as a report does.
func compareLines(a, b string) int {
	var nameA, nameB string
	var lineA, lineB int
	nameA, restA, _ := strings.Cut(a, ":")
	nameB, restB, _ := strings.Cut(b, ":")
	fmt.Sscan(restA, &lineA)
	fmt.Sscan(restB, &lineB)
	if nameA != nameB {
		return strings.Compare(nameA, nameB)
	}
	return lineA - lineB
}

// The audit's document tells of a Django backend before and after its hardening.
func TestTheBackendOfTheDocumentIsFoundFaultyAndThenSound(t *testing.T) {
	before := scanDir(t, "testdata/backend/before")
	var got []string
	for _, h := range before.Holes {
		got = append(got, fmt.Sprintf("%s:%d %s", h.File, h.Line, h.Rule))
	}
	want := []string{
		"apps/users/middleware.py:6 blocking-in-async", "apps/users/middleware.py:15 jwt-not-verified", "apps/users/middleware.py:17 blocking-in-async",
		"apps/users/middleware.py:22 call-without-timeout", "config/settings.py:5 secret-default", "config/settings.py:11 connection-per-request",
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("before (-got +want):\n%s", diff)
	}
	after := scanDir(t, "testdata/backend/after")
	if len(after.Holes) != 0 || after.Files[Python] != 2 || len(after.Unparsed) != 0 {
		t.Errorf("after: %+v, %v read, %v unparsed; want no hole in two files", after.Holes, after.Files, after.Unparsed)
	}
}

func TestEveryRuleSaysWhyAndHowToFixIt(t *testing.T) {
	seen := make(map[string]bool)
	for _, r := range Rules() {
		if r.ID == "" || r.Probe == "" || r.Title == "" || r.Why == "" || r.Fix == "" || len(r.Languages) == 0 || seen[r.ID] {
			t.Errorf("rule %q is not complete, or there twice", r.ID)
		}
		if !strings.HasPrefix(strings.Join(r.References, " "), "CWE-") {
			t.Errorf("rule %q has references %v, want a CWE first", r.ID, r.References)
		}
		seen[r.ID] = true
	}
}

func TestAHoleIsALineWithItsRulesWords(t *testing.T) {
	report := scanFS(t, fstest.MapFS{"app/auth.py": {Data: []byte("import jwt\n\n\tclaims = jwt.decode(token, verify=False)  # for now\n")}})
	rule := Rules()[0]
	want := []Hole{{
		Rule: "jwt-not-verified", Probe: "JWT-01", File: "app/auth.py", Line: 3, Column: 15,
		Code: "claims = jwt.decode(token, verify=False)", Why: rule.Why, Fix: rule.Fix,
	}}
	if diff := cmp.Diff(report.Holes, want); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
	if diff := cmp.Diff(report.Files, map[Language]int{Python: 1}); diff != "" {
		t.Errorf("files (-got +want):\n%s", diff)
	}
}

func TestNoSecretOfTheCodeIsReported(t *testing.T) {
	const canary = "hunter2"
	for name, text := range map[string]string{
		"a.py": "SECRET_KEY = 'hunter2hunter2'  # was hunter2\n" +
			"JWT_SECRET = os.environ.get('JWT_SECRET', \"hunter2\") or 'hunter2'\n" +
			"SIGNING_KEY = '''hunter2\nhunter2'''\n" +
			"def view(request): psycopg2.connect(password='hunter2', dsn=f'{x}hunter2')\nimport psycopg2\n",
		"a.js": "const pg = require('pg');\nconst x = /* hunter2 */ process.env.JWT_SECRET || `hunter2`; // hunter2\n" +
			"app.get('/x', (req, res) => { new pg.Client('postgres://u:hunter2@h/x', /hunter2/) })\n",
		"a.ts":   "const jwtSecret: string = 'hunter2hunter2'; const b = `${a} hunter2`\n",
		"a.go":   "package a\n\nconst jwtSecret = `hunter2hunter2` /* hunter2 */\n\nvar r = struct{ S string }{S: \"\\x68unter2hunter2\"}\n",
		"a.rb":   "JWT_SECRET = ENV['JWT_SECRET'] || %q(hunter2) # hunter2\nSIGNING_SECRET = 'hunter2'; x = :hunter2\n",
		"a.java": "class A { static final String JWT_SECRET = \"hunter2\"; /* hunter2 */ char c = 'h'; }\n",
		"b.py":   "SECRET_KEY = 'HUNTER2HUNTER2'\nAPI_SECRET = 'HUNTERTWO'\n",
	} {
		report := scanFS(t, fstest.MapFS{name: {Data: []byte(text)}})
		if len(report.Holes) == 0 {
			t.Errorf("%s has no hole; %v", name, report.Unparsed)
		}
		for _, h := range report.Holes {
			if strings.Contains(strings.ToLower(h.Code+h.Why+h.Fix), canary) || strings.Contains(h.Code, "HUNTER") {
				t.Errorf("%s:%d prints a secret: %s", h.File, h.Line, h.Code)
			}
		}
	}
}

func TestALineIsShownWithoutControlCharactersAndCut(t *testing.T) {
	text := "SECRET_KEY = 'x1y2z3'; " + strings.Repeat("é\u202e", 200) + " = 1\n"
	report := scanFS(t, fstest.MapFS{"a.py": {Data: []byte(text)}})
	if len(report.Holes) != 1 {
		t.Fatalf("%d holes, want 1 (%v)", len(report.Holes), report.Unparsed)
	}
	code := report.Holes[0].Code
	if len(code) > maxCode || !utf8.ValidString(code) || strings.Contains(code, "\u202e") {
		t.Errorf("code of %d bytes %q, want at most %d, whole characters and none that changes the direction", len(code), code, maxCode)
	}
}

const faultyPython = "SECRET_KEY = 'x1y2z3x1y2z3'\n"

func TestCodeThatDoesNotServeIsSkippedAndCounted(t *testing.T) {
	fsys := fstest.MapFS{"app.py": {Data: []byte(faultyPython)}}
	for _, name := range []string{
		"vendor/a.py", "web/node_modules/x/a.js", ".git/a.py", "venv/a.py", "myenv/pyvenv.cfg", "build/a.py", "tests/a.py", "src/test/java/A.java",
		"test_a.py", "a_test.go", "a.spec.ts", "a_spec.rb", "ATest.java", "a.min.js", "a_pb2.py", "types.d.ts",
	} {
		fsys[name] = &fstest.MapFile{Data: []byte(faultyPython)}
	}
	fsys["myenv/lib/a.py"] = &fstest.MapFile{Data: []byte(faultyPython)}
	fsys["gen.py"] = &fstest.MapFile{Data: []byte("# Code generated by x. DO NOT EDIT.\n" + faultyPython)}
	fsys["packed.js"] = &fstest.MapFile{Data: []byte("const JWT_SECRET='x1y2z3';" + strings.Repeat("a();", 2000))}
	fsys["latin.py"] = &fstest.MapFile{Data: []byte("# \xff\n" + faultyPython)}
	fsys["big.py"] = &fstest.MapFile{Data: []byte(faultyPython + strings.Repeat("#\n", 1<<20))}
	fsys["link.py"] = &fstest.MapFile{Mode: fs.ModeSymlink}
	report := scanFS(t, fsys)
	if len(report.Holes) != 1 || report.Holes[0].File != "app.py" {
		t.Errorf("holes %+v, want one of app.py", report.Holes)
	}
	want := map[string]int{
		"hidden": 1, "somebody else's code": 4, "built or generated": 5, "tests": 7, "minified": 1, "not text": 1,
		"larger than 1048576 bytes": 1, "not a regular file": 1,
	}
	if diff := cmp.Diff(report.Skipped, want); diff != "" {
		t.Errorf("skipped (-got +want):\n%s", diff)
	}
	if len(report.Examples) != 21 {
		t.Errorf("%d examples, want 21", len(report.Examples))
	}
}

func TestSettingsOfDevelopmentMayHaveASecret(t *testing.T) {
	report := scanFS(t, fstest.MapFS{
		"settings/dev.py": {Data: []byte(faultyPython)}, "config/environments/development.rb": {Data: []byte("SECRET_KEY = 'x1y2z3x1y2z3'\n")},
		"settings/prod.py": {Data: []byte(faultyPython)},
	})
	if len(report.Holes) != 1 || report.Holes[0].File != "settings/prod.py" {
		t.Errorf("holes %+v, want one of settings/prod.py", report.Holes)
	}
}

func TestFilesThatDoNotParseAreNamedAndTheOthersJudged(t *testing.T) {
	broken := map[string]string{
		"a.py": "x = (1\n", "b.py": "x = 'open\n", "c.js": "const a = [1);\n", "d.ts": "const a = `open ${b}\n", "e.go": "package e\nfunc {\n",
		"f.rb": "x = \"open\n", "g.java": "class A { }}\n",
	}
	fsys := fstest.MapFS{"z.py": {Data: []byte(faultyPython)}}
	for name, text := range broken {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	report := scanFS(t, fsys)
	for _, u := range report.Unparsed {
		if _, ok := broken[u.Path]; !ok || !strings.Contains(u.Why, "line ") {
			t.Errorf("%s does not parse: %s", u.Path, u.Why)
		}
	}
	if len(report.Unparsed) != len(broken) || len(report.Holes) != 1 {
		t.Errorf("%d files do not parse and %d holes, want %d and 1", len(report.Unparsed), len(report.Holes), len(broken))
	}
}

func TestAScanIsBoundedAndSaysSo(t *testing.T) {
	fsys := make(fstest.MapFS)
	for i := range 30 {
		fsys[fmt.Sprintf("f%02d.py", i)] = &fstest.MapFile{Data: []byte(faultyPython)}
	}
	report, err := Scan(t.Context(), fsys, Config{MaxFiles: 10})
	if err != nil || report.Files[Python] != 10 || !strings.Contains(report.Partial, "10 files") {
		t.Errorf("%d files, partial %q, %v; want 10 and a word about it", report.Files[Python], report.Partial, err)
	}
	report, err = Scan(t.Context(), fsys, Config{MaxHoles: 10})
	if err != nil || len(report.Holes) != 10 || !strings.Contains(report.Partial, "10 holes") {
		t.Errorf("%d holes, partial %q, %v; want 10 and a word about it", len(report.Holes), report.Partial, err)
	}
	many := fstest.MapFS{"a.py": {Data: []byte(strings.Repeat(faultyPython, 1000))}}
	if report := scanFS(t, many); len(report.Holes) != maxPerRule {
		t.Errorf("%d holes of one rule in one file, want %d", len(report.Holes), maxPerRule)
	}
}

func TestAScanEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Scan(ctx, fstest.MapFS{"a.py": {Data: []byte(faultyPython)}}, Config{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Scan = %v, want %v", err, context.Canceled)
	}
	if _, err := Scan(t.Context(), os.DirFS(filepath.Join(t.TempDir(), "absent")), Config{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Scan of nothing = %v, want %v", err, fs.ErrNotExist)
	}
}

func TestADefaultOfTheProjectExcusesItsCalls(t *testing.T) {
	for name, c := range map[string]struct{ call, file, excuse string }{
		"axios":  {"a.js", "const axios = require('axios');\nmodule.exports = () => axios.get('https://x.example');\n", "const axios = require('axios');\naxios.defaults.timeout = 5000;\n"},
		"socket": {"a.py", "from urllib.request import urlopen\nurlopen('https://x.example')\n", "import socket\nsocket.setdefaulttimeout(5)\n"},
		"client": {"a.go", "package a\n\nimport \"net/http\"\n\nfunc a() { http.Get(\"https://x.example\") }\n", "package a\n\nimport \"net/http\"\n\nfunc b() { http.DefaultClient = &http.Client{Timeout: 5} }\n"},
	} {
		without := fstest.MapFS{c.call: {Data: []byte(c.file)}}
		with := fstest.MapFS{c.call: {Data: []byte(c.file)}, "z" + c.call: {Data: []byte(c.excuse)}}
		if got := len(scanFS(t, without).Holes); got != 1 {
			t.Errorf("%s: %d holes without a default, want 1", name, got)
		}
		if got := scanFS(t, with).Holes; len(got) != 0 {
			t.Errorf("%s: %+v with a default, want none", name, got)
		}
	}
}

func TestAHelperThatConnectsIsFollowedFromTheHandlersOfOtherFiles(t *testing.T) {
	for name, fsys := range map[string]fstest.MapFS{
		"python": {
			"app/db.py":    {Data: []byte("import psycopg2\n\ndef get_connection():\n    return psycopg2.connect('x')\n")},
			"app/views.py": {Data: []byte("from .db import get_connection\n\ndef user(request):\n    return get_connection().cursor()\n")},
		},
		"javascript": {
			"db/index.js": {Data: []byte("const { Client } = require('pg');\nasync function connect() { return new Client(); }\nmodule.exports = { connect };\n")},
			"routes.js":   {Data: []byte("const db = require('./db');\napp.get('/x', async (req, res) => { await db.connect(); });\n")},
		},
		"go": {
			"db/db.go":   {Data: []byte("package db\n\nimport \"database/sql\"\n\nfunc Connect() { sql.Open(\"a\", \"b\") }\n")},
			"api/api.go": {Data: []byte("package api\n\nimport (\n\t\"net/http\"\n\n\t\"acme.example/app/db\"\n)\n\nfunc user(w http.ResponseWriter, r *http.Request) { db.Connect() }\n")},
		},
		"ruby": {
			"database.rb": {Data: []byte("class Database\n  def self.open\n    PG.connect\n  end\nend\n")},
			"users.rb":    {Data: []byte("class UsersController < ApplicationController\n  def index\n    Database.open()\n  end\nend\n")},
		},
	} {
		report := scanFS(t, fsys)
		if len(report.Holes) != 1 || report.Holes[0].Rule != "connection-per-request" {
			t.Errorf("%s: %+v, want the connection of the helper (%v)", name, report.Holes, report.Unparsed)
		}
		for file := range fsys {
			if strings.Contains(file, "view") || strings.Contains(file, "route") || strings.Contains(file, "api") || strings.Contains(file, "users") {
				delete(fsys, file)
			}
		}
		if report := scanFS(t, fsys); len(report.Holes) != 0 {
			t.Errorf("%s: %+v without a handler that calls it, want none", name, report.Holes)
		}
	}
}

func TestAPackageForTheBrowserIsNoService(t *testing.T) {
	const call = "import axios from 'axios';\nexport const load = () => axios.get('https://x.example');\n"
	for name, want := range map[string]int{`{"dependencies": {"react": "1"}}`: 0, `{"dependencies": {"express": "1"}}`: 1, `{"dependencies": {"react": "1", "express": "1"}}`: 0, `{`: 0} {
		report := scanFS(t, fstest.MapFS{"web/package.json": {Data: []byte(name)}, "web/src/deep/a.js": {Data: []byte(call)}})
		if got := len(report.Holes); got != want {
			t.Errorf("%s: %d holes, want %d", name, got, want)
		}
	}
}

// What a file costs must not grow with the square of its size.
func TestHostileFilesEndSoon(t *testing.T) {
	fill := func(s string) string { return strings.Repeat(s, (1<<18)/len(s)) }
	nested := func(open, inside, close string) string {
		n := (1 << 18) / (len(open) + len(close) + 1)
		return strings.Repeat(open, n) + inside + strings.Repeat(close, n)
	}
	for name, text := range map[string]string{
		"brackets.js": nested("f(", "1", ")"), "arrows.js": nested("a=>(", "1", ")"), "functions.js": nested("function f(){", "", "}"), "chain.js": "x" + fill(".a()"),
		"templates.js": fill("`${"), "quotes.js": fill("a'"), "decode.js": "const jwt = require('jsonwebtoken');\n" + fill("jwt.decode(a);\n"),
		"names.js": fill("a=b();\n"), "indexes.js": "a" + fill("[0]") + ".b()", "regexps.js": fill("(/["), "types.ts": fill("f<a"), "braces.ts": nested("{a:", "1", "}"),
		"indent.py": deepPython(), "lambda.py": fill("lambda x:"), "decode.py": "import jwt\n" + fill("jwt.decode(a,verify=False)\n"), "except.py": "import jwt\n" + fill("try:\n x\nexcept:\n jwt.decode(a,verify=False)\n"),
		"fstring.py": fill("f'{a}' "), "secret.py": fill("SECRET_KEY='x1y2z3';"), "command.rb": fill("a b "), "words.rb": fill("a "), "do.rb": fill("a do\n"), "heredoc.rb": fill("x=<<~A\n"),
		"values.rb": fill("\"#{"), "slash.rb": fill("(/"), "def.rb": fill("def a\n"), "rescue.rb": fill("rescue\n"), "generic.java": fill("a<"), "method.java": fill("a b(){}"), "lambda.java": nested("a->(", "1", ")"),
		"fetch.js": "module.exports = 1;\n" + fill("fetch(a);"), "axios.js": "const axios = require('axios');\n" + fill("axios.get(a);"), "session.py": "import requests\ns = requests.Session()\n" + fill("s.get(a)\n"),
		"http.rb": fill("Net::HTTP.new(a)\n"), "client.go": "package a\nimport \"net/http\"\nfunc f() {\n" + fill("_ = http.Client{}\n") + "}\n", "url.java": "import java.net.URL;\nclass A { void f() {" + fill("u.openConnection();") + "}}",
		"verify.py": "import jwt\ndef f():\n" + fill(" jwt.decode(a,verify=False);jwt.decode(a,k)\n"), "header.js": "const jwt = require('jsonwebtoken');\n" + fill("a=jwt.decode(b,{complete:true});\n"),
		"open.go": "package a\nfunc f() {\n" + fill("http.Client{}\n") + "}\n", "deep.go": "package a\nvar x = " + fill("("),
	} {
		start := time.Now()
		report := scanFS(t, fstest.MapFS{name: {Data: []byte(text)[:min(len(text), 1<<20)]}})
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("%s took %v, %d files, %v", name, took, len(report.Files), report.Unparsed)
		}
	}
}

func deepPython() string {
	var b strings.Builder
	for i := 0; b.Len() < 1<<18-2000; i++ {
		b.WriteString(strings.Repeat(" ", min(i, 1000)) + "if a:\n")
	}
	return b.String() + strings.Repeat(" ", 1001) + "b\n"
}

func FuzzScanPrintsNoLiteral(f *testing.F) {
	for _, rule := range Rules() {
		for _, lang := range rule.Languages {
			files, err := filepath.Glob(filepath.Join("testdata", rule.ID, string(lang), "faulty*"))
			if err != nil {
				f.Fatal(err)
			}
			for _, name := range files {
				text, err := os.ReadFile(name)
				if err != nil {
					f.Fatal(err)
				}
				f.Add(filepath.Ext(name), string(text))
			}
		}
	}
	f.Fuzz(func(t *testing.T, ext, text string) {
		report, err := Scan(t.Context(), fstest.MapFS{"a" + ext: {Data: []byte(text)}}, Config{})
		if err != nil && fs.ValidPath("a"+ext) {
			t.Fatal(err)
		}
		for _, h := range report.Holes {
			if h.Line < 1 || h.Column < 1 || len(h.Code) > maxCode || strings.ContainsAny(h.Code, "\n\x1b") || strings.Contains(h.Code, "hunter2") {
				t.Errorf("%+v", h)
			}
		}
	})
}

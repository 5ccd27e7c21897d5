package source

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
	"unicode/utf8"
)

// Language is one that the package reads.
type Language string

// The languages.
const (
	Python     Language = "python"
	JavaScript Language = "javascript"
	TypeScript Language = "typescript"
	Go         Language = "go"
	Ruby       Language = "ruby"
	Java       Language = "java"
)

var languages = map[string]Language{
	".py": Python, ".js": JavaScript, ".mjs": JavaScript, ".cjs": JavaScript, ".jsx": JavaScript,
	".ts": TypeScript, ".mts": TypeScript, ".cts": TypeScript, ".tsx": TypeScript,
	".go": Go, ".rb": Ruby, ".ru": Ruby, ".rake": Ruby, ".java": Java,
}

func languageOf(name string) (Language, bool) {
	lang, ok := languages[strings.ToLower(path.Ext(name))]
	return lang, ok
}

// The directories that hold no code of the running service.
var (
	foreign = words("vendor node_modules bower_components site-packages dist-packages third_party third-party venv virtualenv")
	built   = words("build dist out target bin obj __pycache__ coverage htmlcov generated gen")
	tests   = words("test tests testing testdata test-data __tests__ __mocks__ spec specs fixtures mocks e2e cypress features integration-tests testutil testutils testhelper test_helpers test-utils")
)

func words(list string) map[string]bool {
	set := make(map[string]bool)
	for _, w := range strings.Fields(list) {
		set[w] = true
	}
	return set
}

func skipDirectory(fsys fs.FS, where, name string) string {
	lower := strings.ToLower(name)
	switch {
	case where == ".":
		return ""
	case strings.HasPrefix(name, "."):
		return "hidden"
	case foreign[lower]:
		return "somebody else's code"
	case built[lower]:
		return "built or generated"
	case tests[lower]:
		return "tests"
	}
	if _, err := fs.Stat(fsys, path.Join(where, "pyvenv.cfg")); err == nil {
		return "somebody else's code"
	}
	return ""
}

func skipFile(d fs.DirEntry) string {
	name := d.Name()
	base := strings.TrimSuffix(name, path.Ext(name))
	has := func(suffixes ...string) bool {
		for _, s := range suffixes {
			if strings.HasSuffix(base, s) {
				return true
			}
		}
		return false
	}
	switch {
	case !d.Type().IsRegular():
		return "not a regular file"
	case strings.HasPrefix(name, "test_"), name == "conftest.py", name == "tests.py", has("_test", ".test", ".spec", "_spec", ".e2e", ".stories", ".cy"),
		strings.HasSuffix(name, ".java") && has("Test", "Tests", "IT", "TestCase"):
		return "tests"
	case has(".min", ".bundle", ".pb", "_pb", "_pb2", "_pb2_grpc", ".generated", "_gen", ".gen", ".d"), strings.HasPrefix(name, "zz_generated"):
		return "built or generated"
	}
	return ""
}

func skipText(text string, limit int64, lang Language) string {
	head := text[:min(len(text), 2048)]
	switch {
	case int64(len(text)) > limit:
		return fmt.Sprintf("larger than %d bytes", limit)
	case !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0:
		return "not text"
	case strings.Contains(head, "DO NOT EDIT") && strings.Contains(head, "enerated"), strings.Contains(head, "@generated"):
		return "built or generated"
	case (lang == JavaScript || lang == TypeScript) && len(text) > 4096 && len(text)/(1+strings.Count(text, "\n")) > 250:
		return "minified"
	}
	return ""
}

package source

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
)

// Config bounds a scan. The zero value is sensible.
type Config struct {
	MaxFiles int   // source files read; 0 is 20,000
	MaxBytes int64 // of one file; larger ones are skipped; 0 is 1 MiB
	MaxHoles int   // reported; 0 is 1,000
}

func (c Config) withDefaults() Config {
	c.MaxFiles = cmp.Or(c.MaxFiles, 20_000)
	c.MaxBytes = cmp.Or(c.MaxBytes, 1<<20)
	c.MaxHoles = cmp.Or(c.MaxHoles, 1_000)
	return c
}

// Hole is one finding.
type Hole struct {
	Rule   string // id of the rule
	Probe  string // the audit's probe with the same concern
	File   string // path below the scanned directory, with slashes
	Line   int    // from 1
	Column int    // from 1, in bytes
	Code   string // the line, at most 160 bytes, its comment removed, its literals "[redacted]" unless known to be harmless
	Why    string // what goes wrong in production
	Fix    string // what to do, as an order
}

// Skip is something that was not judged, and why.
type Skip struct{ Path, Why string }

// Report is what a scan saw.
type Report struct {
	Holes    []Hole           // by file and line
	Files    map[Language]int // read and judged
	Skipped  map[string]int   // by reason: directories and files that were not read
	Examples []Skip           // the first hundred of Skipped
	Unparsed []Skip           // files that do not parse and so were not judged; at most a thousand
	Partial  string           // why the scan ended early; "" when it did not
}

// Scan reads the files below the root of fsys and judges them by [Rules]. It fails only when the root
// cannot be read or ctx ends, and then the report holds what was seen so far; a file that cannot be
// read or parsed is named in the report.
func Scan(ctx context.Context, fsys fs.FS, config Config) (Report, error) {
	s := scan{fsys: fsys, Config: config.withDefaults(), rules: Rules(), facts: make(map[fact]bool), places: make(map[string]place)}
	s.report.Files = make(map[Language]int)
	s.report.Skipped = make(map[string]int)
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return s.visit(name, d, err)
	})
	s.finish()
	if err != nil {
		return s.report, fmt.Errorf("scan source: %w", err)
	}
	return s.report, nil
}

type scan struct {
	Config
	fsys    fs.FS
	rules   []Rule
	report  Report
	facts   map[fact]bool // true of the whole project
	pending []pendingHole
	read    int
	places  map[string]place // of a directory's packages of JavaScript
}

// pendingHole is reported at the end, unless a fact from another file excuses it, and if it needs one
// only with that.
type pendingHole struct {
	Hole
	finding
}

func (s *scan) visit(name string, d fs.DirEntry, err error) error {
	switch {
	case err != nil && name == ".":
		return err
	case err != nil:
		s.skip(name, "cannot be read")
		return nil
	case d.IsDir():
		if why := skipDirectory(s.fsys, name, d.Name()); why != "" {
			s.skip(name, why)
			return fs.SkipDir
		}
		return nil
	}
	lang, ok := languageOf(d.Name())
	if !ok {
		return nil // no source of ours; counting pictures says nothing
	}
	if why := skipFile(d); why != "" {
		s.skip(name, why)
		return nil
	}
	if s.read >= s.MaxFiles {
		s.report.Partial = fmt.Sprintf("more than %d files", s.MaxFiles)
		return fs.SkipAll
	}
	s.read++
	return s.file(name, lang)
}

func (s *scan) skip(name, why string) {
	s.report.Skipped[why]++
	if len(s.report.Examples) < 100 {
		s.report.Examples = append(s.report.Examples, Skip{name, why})
	}
}

func (s *scan) file(name string, lang Language) error {
	text, err := s.text(name)
	if err != nil {
		s.skip(name, "cannot be read")
		return nil
	}
	if why := skipText(text, s.MaxBytes, lang); why != "" {
		s.skip(name, why)
		return nil
	}
	f, err := parse(name, lang, text)
	if err != nil {
		if len(s.report.Unparsed) < 1000 {
			s.report.Unparsed = append(s.report.Unparsed, Skip{name, err.Error()})
		}
		return nil
	}
	if lang == JavaScript || lang == TypeScript {
		f.place = s.place(path.Dir(name))
	}
	s.report.Files[lang]++
	s.judge(f)
	return nil
}

// text reads no more than the largest file and one byte, by which it is known to be larger.
func (s *scan) text(name string) (string, error) {
	r, err := s.fsys.Open(name)
	if err != nil {
		return "", err
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, s.MaxBytes+1))
	return string(text), err
}

// maxPerRule is how often one rule may speak of one file.
const maxPerRule = 50

func (s *scan) judge(f *file) {
	for _, found := range f.facts() {
		s.facts[found] = true
	}
	for _, rule := range s.rules {
		if !slices.Contains(rule.Languages, f.lang) {
			continue
		}
		n := 0
		rule.check(f, func(at finding) {
			if n++; n > maxPerRule || len(s.pending) >= 2*s.MaxHoles {
				return
			}
			s.pending = append(s.pending, pendingHole{f.hole(rule, at), at})
		})
	}
}

func (s *scan) finish() {
	for _, p := range s.pending {
		if !s.facts[p.unless] && (p.onlyIf == "" || s.facts[p.onlyIf]) {
			s.report.Holes = append(s.report.Holes, p.Hole)
		}
	}
	slices.SortFunc(s.report.Holes, func(a, b Hole) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Rule, b.Rule))
	})
	s.report.Holes = slices.CompactFunc(s.report.Holes, func(a, b Hole) bool {
		return a.File == b.File && a.Line == b.Line && a.Rule == b.Rule
	})
	if len(s.report.Holes) > s.MaxHoles {
		s.report.Holes = s.report.Holes[:s.MaxHoles]
		s.report.Partial = fmt.Sprintf("more than %d holes", s.MaxHoles)
	}
}

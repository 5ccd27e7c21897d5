package alert

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// The bounds of what [Parse] reads. Windows end at a day because measurements are kept for a day.
const (
	MaxFile   = 256 << 10 // bytes
	MaxRules  = 500
	MinWindow = 10 * time.Second
	MaxWindow = day

	maxDepth     = 64 // of brackets and of indentation
	maxName      = 100
	maxReceivers = 20
)

// Fault is one thing that is wrong with a file of rules. As an error it reads "alerts.yaml:3:14: condition: ...".
type Fault struct {
	File    string `json:"file"`
	Line    int    `json:"line"` // where it begins; lines and columns count from 1
	Column  int    `json:"column"`
	Key     string `json:"key"`     // condition, notify...; "" when it is about the whole
	Problem string `json:"problem"` // what is wrong
	Example string `json:"example"` // what would be right; "" where nothing short is
}

// Error implements error.
func (f Fault) Error() string {
	text := fmt.Sprintf("%s:%d:%d: ", f.File, f.Line, f.Column)
	if f.Key != "" {
		text += f.Key + ": "
	}
	text += f.Problem
	if f.Example != "" {
		text += ", for example " + f.Example
	}
	return text
}

// Parse reads rules as operators write them: a list of rules, as the production-readiness document has it, or a whole
// gantry.yaml, of which the key alerts is read and nothing else. It returns the rules that are sound and every fault of
// the others, in the order of the file; file is the name that faults give. Whether somebody answers to the names under
// notify is for [CheckReceivers].
func Parse(file string, text []byte) ([]Rule, []Fault) {
	p := &reader{file: file}
	if list, ok := p.list(text); ok {
		p.rules(list)
	}
	slices.SortStableFunc(p.faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return p.found, p.faults
}

// CheckReceivers returns a fault for every name under notify that is not among the receivers.
func CheckReceivers(file string, rules []Rule, receivers []string) []Fault {
	p := &reader{file: file}
	for _, r := range rules {
		for _, name := range r.Notify {
			if !r.Disabled && !slices.Contains(receivers, name) {
				p.fault(at(r.NotifyAt), "notify", fmt.Sprintf("%q is no receiver%s", name, near(name, receivers)), strings.Join(receivers, ", "))
			}
		}
	}
	return p.faults
}

// reader collects what it reads and what is wrong.
type reader struct {
	file   string
	found  []Rule
	faults []Fault
}

// at is where a fault is.
type at Position

func (p *reader) fault(where at, key, problem, example string) {
	p.faults = append(p.faults, Fault{File: p.file, Line: max(1, where.Line), Column: max(1, where.Column), Key: key, Problem: problem, Example: example})
}

func place(n ast.Node) at {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return at{t.Position.Line, t.Position.Column}
	}
	return at{1, 1}
}

// list finds the list of rules; false when there is none, or the text is no YAML.
func (p *reader) list(text []byte) (*ast.SequenceNode, bool) {
	switch {
	case len(text) > MaxFile:
		p.fault(at{}, "", fmt.Sprintf("is larger than %d KiB", MaxFile>>10), "")
		return nil, false
	case !utf8.Valid(text):
		p.fault(at{}, "", "is not UTF-8", "")
		return nil, false
	case tooDeep(text):
		p.fault(at{}, "", fmt.Sprintf("is nested more than %d deep", maxDepth), "")
		return nil, false
	}
	tree, err := parse(text)
	if err != nil {
		p.syntax(err)
		return nil, false
	}
	return p.body(tree)
}

// parse never panics: the library can, on what no person wrote.
func parse(text []byte) (tree *ast.File, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("yaml: %v", v)
		}
	}()
	return parser.ParseBytes(text, 0)
}

// tooDeep is asked first because the library's recursion has no bound of its own. Brackets in quotes count too.
func tooDeep(text []byte) bool {
	depth := 0
	for line := range strings.Lines(string(text)) {
		if len(line)-len(strings.TrimLeft(line, " -?")) > 4*maxDepth {
			return true
		}
		for _, c := range line {
			switch c {
			case '[', '{':
				depth++
			case ']', '}':
				depth = max(0, depth-1)
			}
			if depth > maxDepth {
				return true
			}
		}
	}
	return false
}

// syntax tells of an error of the parser without the source text that it would print: a whole gantry.yaml may hold what
// a log should not.
func (p *reader) syntax(err error) {
	where, message := at{}, "is not valid YAML"
	if positioned, ok := errors.AsType[yaml.Error](err); ok {
		if t := positioned.GetToken(); t != nil && t.Position != nil {
			where = at{t.Position.Line, t.Position.Column}
		}
		if strings.Contains(positioned.GetMessage(), "already defined") {
			message = "the key stands twice"
		}
	}
	p.fault(where, "", message, "")
}

const listExample = "- name: High Error Rate"

func (p *reader) body(tree *ast.File) (*ast.SequenceNode, bool) {
	if len(tree.Docs) > 1 {
		where := place(tree.Docs[1])
		if t := tree.Docs[1].Start; t != nil {
			where = at{t.Position.Line, t.Position.Column}
		}
		p.fault(where, "", "must be one YAML document", "")
		return nil, false
	}
	if len(tree.Docs) == 0 || isNothing(tree.Docs[0].Body) {
		return nil, false
	}
	body := tree.Docs[0].Body
	if entries, ok := mapping(body); ok {
		i := slices.IndexFunc(entries, func(e *ast.MappingValueNode) bool { return keyOf(e) == "alerts" })
		if i < 0 || isNothing(entries[i].Value) {
			return nil, false
		}
		body = entries[i].Value
	}
	list, ok := body.(*ast.SequenceNode)
	if !ok {
		p.fault(place(body), "", "must be a list of rules", listExample)
		return nil, false
	}
	if n := fancy(list); n != nil {
		p.fault(place(n), "", "rules have no anchors, aliases and tags", "")
		return nil, false
	}
	return list, true
}

func isNothing(n ast.Node) bool {
	if n == nil {
		return true
	}
	_, null := n.(*ast.NullNode)
	return null
}

// fancy returns a node that nothing here needs, and that can make a few bytes stand for gigabytes.
func fancy(n ast.Node) (found ast.Node) {
	ast.Walk(visitor(func(n ast.Node) {
		switch n.Type() {
		case ast.AliasType, ast.AnchorType, ast.TagType, ast.MergeKeyType:
			if found == nil {
				found = n
			}
		}
	}), n)
	return found
}

type visitor func(ast.Node)

// Visit implements ast.Visitor.
func (v visitor) Visit(n ast.Node) ast.Visitor { v(n); return v }

func mapping(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

func keyOf(e *ast.MappingValueNode) string {
	if s, ok := e.Key.(*ast.StringNode); ok {
		return s.Value
	}
	return e.Key.String()
}

func (p *reader) rules(list *ast.SequenceNode) {
	if len(list.Values) > MaxRules {
		p.fault(place(list.Values[MaxRules]), "", fmt.Sprintf("there are more than %d rules", MaxRules), "")
		return
	}
	lines := make(map[string]int)
	for _, n := range list.Values {
		entries, ok := mapping(n)
		if !ok || len(entries) == 0 {
			p.fault(place(n), "", "must be a rule", "name: High Error Rate")
			continue
		}
		before := len(p.faults)
		r := p.rule(entries)
		if first, twice := lines[Anchor(r.Name)]; twice && r.Name != "" {
			p.fault(at{r.Line, r.Column}, "name", fmt.Sprintf("%q is the name of the rule in line %d too", r.Name, first), "")
		} else {
			lines[Anchor(r.Name)] = r.Line
		}
		if len(p.faults) == before {
			p.found = append(p.found, r)
		}
	}
}

// value is a value of a rule as it stands in the file.
type value struct {
	at
	text string
	node ast.Node
}

var ruleKeys = []string{"name", "condition", "severity", "notify", "for", "window", "windows", "runbook", "enabled"}

func (p *reader) rule(entries []*ast.MappingValueNode) Rule {
	values := make(map[string]value)
	start := place(entries[0].Key)
	for _, e := range entries {
		key := keyOf(e)
		if !slices.Contains(ruleKeys, key) {
			p.fault(place(e.Key), "", fmt.Sprintf("%q is not a key of a rule%s", clip(key, maxName), near(key, ruleKeys)), strings.Join(ruleKeys, ", "))
			continue
		}
		v := value{at: place(e.Value), node: e.Value}
		if key != "notify" && key != "windows" {
			var ok bool
			if v.text, ok = p.scalar(key, e.Value); !ok {
				continue
			}
		}
		values[key] = v
	}
	r := Rule{Line: start.Line, Column: start.Column}
	r.Name = p.name(start, values)
	if v, ok := values["enabled"]; ok && p.isOff(v) {
		r.Disabled = true
		return r
	}
	p.required(start, values, "condition", "condition: error_rate > 1%")
	p.required(start, values, "severity", "severity: high")
	p.required(start, values, "notify", "notify: oncall, slack")
	r.Severity = p.severity(values)
	r.Notify, r.NotifyAt = p.receivers(values)
	r.Runbook = p.runbook(values)
	p.condition(&r, values)
	return r
}

// scalar reads a text, a number or a word; what a person left empty is a fault.
func (p *reader) scalar(key string, n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return strings.TrimSpace(n.Value), true
	case *ast.LiteralNode:
		if key == "condition" {
			p.fault(place(n), key, "must stand in one line, and begin with a signal", "error_rate > 1%")
			return "", false
		}
		return strings.TrimSpace(n.Value.Value), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	case *ast.NullNode:
		p.fault(place(n), key, "is empty", "")
		return "", false
	}
	p.fault(place(n), key, "must be one value", "")
	return "", false
}

func (p *reader) required(start at, values map[string]value, key, example string) {
	if _, ok := values[key]; !ok && !p.faultAbout(key, start) {
		p.fault(start, key, "is missing", example)
	}
}

// faultAbout says that a key of the rule that begins at start was found wanting already.
func (p *reader) faultAbout(key string, start at) bool {
	return slices.ContainsFunc(p.faults, func(f Fault) bool { return f.Key == key && f.Line >= start.Line })
}

func (p *reader) name(start at, values map[string]value) string {
	p.required(start, values, "name", "name: High Error Rate")
	v, ok := values["name"]
	switch {
	case !ok:
	case utf8.RuneCountInString(v.text) > maxName || strings.ContainsFunc(v.text, func(r rune) bool { return !unicode.IsPrint(r) }):
		p.fault(v.at, "name", fmt.Sprintf("must be at most %d letters in one line", maxName), "")
	case !strings.ContainsFunc(v.text, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }):
		p.fault(v.at, "name", "has neither a letter nor a digit", "name: High Error Rate")
	default:
		return v.text
	}
	return ""
}

func (p *reader) isOff(v value) bool {
	switch v.text {
	case "true":
	case "false":
		return true
	default:
		p.fault(v.at, "enabled", "is neither true nor false", "enabled: false")
	}
	return false
}

func (p *reader) severity(values map[string]value) Severity {
	all := []string{string(Critical), string(High), string(Medium), string(Low)}
	v, ok := values["severity"]
	if ok && !slices.Contains(all, v.text) {
		p.fault(v.at, "severity", fmt.Sprintf("%q is no severity%s", clip(v.text, maxName), near(v.text, all)), strings.Join(all, ", "))
	}
	return Severity(v.text)
}

// words reads a list, written as one or as text with commas.
func (p *reader) words(key string, n ast.Node) []value {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		text, _ := p.scalar(key, n)
		var all []value
		for word := range strings.SplitSeq(text, ",") {
			all = append(all, value{at: place(n), text: strings.TrimSpace(word)})
		}
		return all
	}
	var all []value
	for _, item := range list.Values {
		if text, ok := p.scalar(key, item); ok {
			all = append(all, value{at: place(item), text: text})
		}
	}
	return all
}

var receiverName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,31}$`)

func (p *reader) receivers(values map[string]value) ([]string, Position) {
	v, ok := values["notify"]
	if !ok {
		return nil, Position{}
	}
	var names []string
	for _, word := range p.words("notify", v.node) {
		switch {
		case word.text == "" && p.faultAbout("notify", v.at):
		case !receiverName.MatchString(word.text):
			p.fault(word.at, "notify", fmt.Sprintf("%q is not the name of a receiver", clip(word.text, maxName)), "notify: oncall, slack")
		case slices.Contains(names, word.text):
			p.fault(word.at, "notify", fmt.Sprintf("%q stands twice", word.text), "")
		default:
			names = append(names, word.text)
		}
	}
	if len(names) > maxReceivers {
		p.fault(v.at, "notify", fmt.Sprintf("names more than %d receivers", maxReceivers), "")
	}
	if len(names) == 0 && !p.faultAbout("notify", v.at) {
		p.fault(v.at, "notify", "names nobody", "notify: oncall, slack")
	}
	return names, Position(v.at)
}

func (p *reader) runbook(values map[string]value) string {
	v, ok := values["runbook"]
	if !ok {
		return ""
	}
	u, err := url.Parse(v.text)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || len(v.text) > 1000 {
		p.fault(v.at, "runbook", "is not an http or https address", "https://wiki.example/runbooks/errors")
	}
	return v.text
}

// near proposes the name that was meant.
func near(name string, names []string) string {
	best, distance := "", 3
	for _, one := range names {
		if d := edits(strings.ToLower(name), one); d < distance && d < len(one)/2+1 {
			best, distance = one, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// edits counts the letters that must be changed, added, taken away or swapped with a neighbour; of long texts only
// that it is many.
func edits(a, b string) int {
	if len(a) > 2*maxName {
		return len(a)
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

package config

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Fault is one thing that is wrong, in words an operator can act on. It never holds the value.
type Fault struct {
	ID      string `json:"id"`      // stable: config.E001, or config.W001 for a warning
	Name    string `json:"name"`    // the variable or key
	Source  string `json:"source"`  // "environment", ".env:12", "gantry.yaml:3:5", "" when unset
	Problem string `json:"problem"` // what is wrong
	Example string `json:"example"` // what would be right
}

// IsWarning says that the process starts in spite of it.
func (f Fault) IsWarning() bool { return strings.HasPrefix(f.ID, "config.W") }

// Report is everything that Load found.
type Report struct {
	Faults []Fault `json:"faults"`
}

// OK says that there is no error; there may be warnings.
func (r Report) OK() bool { return len(r.Errors()) == 0 }

// Errors returns the faults that prevent a start.
func (r Report) Errors() []Fault {
	return slices.DeleteFunc(slices.Clone(r.Faults), Fault.IsWarning)
}

// Warnings returns the others.
func (r Report) Warnings() []Fault {
	return slices.DeleteFunc(slices.Clone(r.Faults), func(f Fault) bool { return !f.IsWarning() })
}

func (r *Report) sort() {
	slices.SortStableFunc(r.Faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(btoi(a.IsWarning()), btoi(b.IsWarning())), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Source, b.Source))
	})
	r.Faults = slices.Compact(r.Faults)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// WriteText prints the report for people: a block for each fault, then what it comes to.
func (r Report) WriteText(w io.Writer) error {
	var b strings.Builder
	for _, f := range r.Faults {
		kind := "error"
		if f.IsWarning() {
			kind = "warning"
		}
		fmt.Fprintf(&b, "%-7s %s  %s", kind, f.ID, f.Name)
		if f.Source != "" {
			fmt.Fprintf(&b, "  (%s)", f.Source)
		}
		fmt.Fprintf(&b, "\n        %s\n", f.Problem)
		if f.Example != "" {
			fmt.Fprintf(&b, "        for example: %s\n", f.Example)
		}
	}
	errs, warns := len(r.Errors()), len(r.Warnings())
	switch {
	case errs > 0:
		fmt.Fprintf(&b, "\n%s, %s: gantry will not start.\n", count(errs, "error"), count(warns, "warning"))
	case warns > 0:
		fmt.Fprintf(&b, "\nno errors, %s: gantry will start.\n", count(warns, "warning"))
	default:
		b.WriteString("configuration is good.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// WriteJSON prints the report for programs: {"ok": bool, "faults": [...]}.
func (r Report) WriteJSON(w io.Writer) error {
	faults := r.Faults
	if faults == nil {
		faults = []Fault{}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(struct {
		OK     bool    `json:"ok"`
		Faults []Fault `json:"faults"`
	}{r.OK(), faults})
}

// The ids. A number is never used again for another meaning.
const (
	idMissing     = "config.E001" // must be set
	idInvalid     = "config.E002" // cannot be read
	idRange       = "config.E003" // out of range
	idWeakSecret  = "config.E010" // SECRET_KEY
	idPlaceholder = "config.E011" // still the example
	idUnsafe      = "config.E012" // not allowed in this environment
	idConflict    = "config.E013" // two settings contradict
	idBothFile    = "config.E014" // NAME and NAME_FILE
	idSecretFile  = "config.E015" // NAME_FILE cannot be used
	idUnknown     = "config.E020" // unknown name or key
	idSyntax      = "config.E021" // file cannot be parsed
	idDuplicate   = "config.E022" // the same name twice
	idRoute       = "config.E030" // route
	idAlert       = "config.E031" // rule of an alert
	idReceiver    = "config.E032" // receiver of alerts
	idLater       = "config.E040" // not in this release
	idNearMiss    = "config.W001" // looks like one of ours
	idPolicy      = "config.W002" // allowed, not advised
	idNoEffect    = "config.W003" // understood, not used yet
)

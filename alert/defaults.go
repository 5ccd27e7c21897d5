package alert

import (
	_ "embed"
	"slices"
)

// defaults.yaml is in the operators' own form, so that it is an example that cannot go out of date.
//
//go:embed defaults.yaml
var defaults []byte

// Defaults returns the rules of the production-readiness document, those about what else wakes people at night, and the
// burn rates of its success criteria.
func Defaults() []Rule {
	rules, faults := Parse("defaults.yaml", defaults)
	if len(faults) > 0 {
		panic(faults[0]) // the file is a part of the program
	}
	for i := range rules {
		rules[i].Line, rules[i].Column, rules[i].NotifyAt = 0, 0, Position{}
	}
	return rules
}

// WithDefaults returns the defaults and the operator's own rules. One that has the name of a default stands in its
// place; a disabled one takes it away.
func WithDefaults(own []Rule) []Rule {
	all := slices.DeleteFunc(Defaults(), func(d Rule) bool {
		return slices.ContainsFunc(own, func(r Rule) bool { return Anchor(r.Name) == Anchor(d.Name) })
	})
	return slices.DeleteFunc(append(all, own...), func(r Rule) bool { return r.Disabled })
}

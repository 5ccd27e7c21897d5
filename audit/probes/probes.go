// Package probes is the catalogue: every question that an audit asks, one value each, a file a family.
//
// Begin with [All]. The surprise: the documentation of a probe is part of its value, so that what is printed,
// what docs/probes.md says and what is sent cannot drift apart unseen.
package probes

import (
	"cmp"
	"slices"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

// prefixes of the ids, in the order of the catalogue.
var prefixes = []string{"ID", "AZ", "JWT", "CFG", "RL", "LIM", "DAT", "HLT", "VAL", "ERR", "TRN", "OBS", "PERF", "LCH"}

// All probes, in the order of the catalogue.
func All() []audit.Probe {
	list := slices.Concat(
		identity(), operations(), authorization(), bypass(),
		signature(), algorithm(), keyConfusion(), keyID(), headerKey(), encrypted(), serialisation(),
		claims(), tokenForm(), tokenSize(), decryption(), weakSecret(), keyHygiene(), logout(),
		debugMode(), exposure(), cookieSecret(), leaks(), banners(),
		abuse(), login(), slowness(), sizes(), stress(), writes(), concurrency(), lists(), lifecycle(),
		validation(), errorAnswers(), transport(), crossOrigin(), caching(), parsing(),
		observability(), performance(), launch(),
	)
	slices.SortFunc(list, func(a, b audit.Probe) int {
		return cmp.Or(cmp.Compare(place(a.ID), place(b.ID)), strings.Compare(a.ID, b.ID))
	})
	return list
}

func place(id string) int {
	prefix, _, _ := strings.Cut(id, "-")
	return slices.Index(prefixes, prefix)
}

// Find a probe by its id.
func Find(id string) (audit.Probe, bool) {
	i := slices.IndexFunc(All(), func(p audit.Probe) bool { return p.ID == id })
	if i < 0 {
		return audit.Probe{}, false
	}
	return All()[i], true
}

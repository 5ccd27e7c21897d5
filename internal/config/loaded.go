package config

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

// Loaded is what was read, for people to look at. No secret is in it.
type Loaded struct {
	// Settings are those that were set, in the order of docs/configuration.md, and gantry.yaml last. All others have
	// their defaults.
	Settings []Setting
	// Hash is the same for processes that are set alike, to their secrets: it is keyed by SECRET_KEY, so that nobody can
	// try out secrets on it. Without SECRET_KEY secrets do not count.
	Hash string
}

// Setting is one of them. Source is where it came from: environment, or FILE:LINE.
type Setting struct{ Name, Value, Source string }

// userinfo is the part of an address that may hold a password.
var userinfo = regexp.MustCompile(`://[^/?#@\s]*@`)

func (l *loader) loaded() {
	root := l.read["SECRET_KEY"]
	sum := hmac.New(sha256.New, []byte(root))
	var all []Setting
	for _, s := range settings {
		text, source := l.lookup(s.name)
		if s.secret {
			text, source = l.read[s.name], l.source(s.name)
		}
		if source == "" {
			continue
		}
		if !s.secret || root != "" {
			fmt.Fprintf(sum, "%s=%q\n", s.name, text)
		}
		if s.secret {
			text = redacted
		}
		all = append(all, Setting{s.name, userinfo.ReplaceAllString(text, "://"+redacted+"@"), source})
	}
	if l.yamlText != "" {
		fmt.Fprintf(sum, "%q\n", l.yamlText)
		c := &l.cfg
		all = append(all, Setting{l.yamlName, fmt.Sprintf("%d routes, %d plans, %d lines", len(c.Routes), len(c.Limits.Plans), strings.Count(l.yamlText, "\n")), l.yamlName})
	}
	l.cfg.Loaded = Loaded{Settings: all, Hash: hex.EncodeToString(sum.Sum(nil)[:6])}
}

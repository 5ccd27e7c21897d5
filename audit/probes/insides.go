package probes

import (
	"regexp"
)

// What a health answer must not tell a stranger.
var insides = []struct {
	name    string
	pattern *regexp.Regexp
}{
	{"a connection string", regexp.MustCompile(`(?i)\b(?:postgres(?:ql)?|mysql|mongodb(?:\+srv)?|redis|rediss|amqp)://`)},
	{"a private address", regexp.MustCompile(`\b(?:10\.\d{1,3}|172\.(?:1[6-9]|2\d|3[01])|192\.168)\.\d{1,3}\.\d{1,3}\b`)},
	{"a version", regexp.MustCompile(`(?i)"[a-z_]*version"\s*:\s*"v?\d+\.\d+`)},
	{"a file path", regexp.MustCompile(`(?:/usr/|/var/|/home/|/srv/|/etc/|[A-Z]:\\\\)[\w./\\-]{3,}`)},
	{"a secret", regexp.MustCompile(`(?i)"[a-z_]*(?:secret|password|token|api_?key)"\s*:\s*"[^"]{4,}"`)},
}

// tellsInsides names what a public answer gives away, or nothing.
func tellsInsides(body []byte) string {
	for _, i := range insides {
		if i.pattern.Match(body) {
			return i.name
		}
	}
	return ""
}

package probes

import (
	"context"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"math"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

func leaks() []audit.Probe {
	return []audit.Probe{
		{
			ID: "CFG-05", Title: "Secrets or internals in answers", Severity: audit.High, Mode: audit.Passive, Category: audit.Configuration, Confirms: true,
			Sends:  "nothing: every answer so far is searched for private keys, credentials of AWS, Google, Stripe, Slack, GitHub, GitLab, npm and SendGrid, connection strings with a password, and private addresses",
			Passes: "none is found",
			Fails:  "one is, and its checksum or its randomness is that of a real one; private addresses alone are a low failure",
			Guard:  "what the audit itself sent, documentation's examples and placeholders do not count, nor do private addresses of a target that has one; four characters and the length are shown",
			Refs:   []string{"CWE-200", "OWASP API3:2023"},
			Why:    "Whoever may call the API holds a key to something behind it.",
			Fix:    "Answer with types that name their fields, never with whole objects.",
			Run:    leaksInAnswers,
		},
	}
}

// leak is a kind of secret: how it looks, and how a real one is told from a look-alike.
type leak struct {
	name    string
	pattern *regexp.Regexp
	real    func(match string) bool
}

// minEntropy in bits a character: below it a string is a placeholder.
const minEntropy = 3.5

// Google's AIza keys are missing on purpose: browsers' keys look the same and are public.
func leakKinds() []leak {
	return []leak{
		{"private key", regexp.MustCompile(`-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----[A-Za-z0-9+/=\s\\]{100,}`), realKey},
		{"AWS access key", regexp.MustCompile(`\b(?:AKIA|ASIA)[A-Z2-7]{16}\b`), notExample},
		{"Google client secret", regexp.MustCompile(`\bGOCSPX-[A-Za-z0-9_-]{28}\b`), randomEnough},
		{"Stripe secret key", regexp.MustCompile(`\b[sr]k_live_[A-Za-z0-9]{24,}\b`), randomEnough},
		{"Slack token", regexp.MustCompile(`\bxox[baprs]-\d{9,14}-[A-Za-z0-9-]{20,}\b`), randomEnough},
		{"GitHub token", regexp.MustCompile(`\bgh[pousr]_[A-Za-z0-9]{36}\b`), checksummed},
		{"npm token", regexp.MustCompile(`\bnpm_[A-Za-z0-9]{36}\b`), checksummed},
		{"GitLab token", regexp.MustCompile(`\bglpat-[A-Za-z0-9_-]{20}\b`), randomEnough},
		{"SendGrid key", regexp.MustCompile(`\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}`), randomEnough},
		{
			"connection string",
			regexp.MustCompile(`\b(?:postgres(?:ql)?|mysql|mariadb|mongodb(?:\+srv)?|rediss?|amqps?|mssql|clickhouse)(?:\+\w+)?://[^\s:/@"'<>]*:[^\s/@"'<>]{4,}@[\w.-]+`),
			realConnection,
		},
	}
}

// entropy of a string by the frequency of its bytes, in bits a character.
func entropy(s string) float64 {
	var count [256]int
	for i := range len(s) {
		count[s[i]]++
	}
	bits := 0.0
	for _, n := range count {
		if n > 0 {
			p := float64(n) / float64(len(s))
			bits -= p * math.Log2(p)
		}
	}
	return bits
}

// randomEnough looks at what follows the prefix.
func randomEnough(match string) bool {
	rest := match
	if _, after, found := strings.Cut(match, "_live_"); found {
		rest = after
	} else if _, after, found := strings.Cut(match, "-"); found {
		rest = after
	}
	return entropy(rest) >= minEntropy
}

func notExample(match string) bool {
	return !strings.Contains(match, "EXAMPLE") && entropy(match) >= minEntropy
}

// realKey wants the first lines to be the base64 of something random.
func realKey(match string) bool {
	_, body, _ := strings.Cut(strings.TrimPrefix(match, "-----BEGIN "), "-----")
	body = strings.NewReplacer(`\n`, "", `\r`, "", "\n", "", "\r", "", " ", "", `\`, "").Replace(body)
	if len(body) < 96 {
		return false
	}
	_, err := base64.StdEncoding.DecodeString(body[:96])
	return err == nil && entropy(body[:96]) >= minEntropy
}

// checksummed verifies the end of a token of GitHub's form: the CRC-32 of the thirty random characters, in base 62.
func checksummed(match string) bool {
	_, rest, _ := strings.Cut(match, "_")
	return len(rest) == 36 && base62(crc32.ChecksumIEEE([]byte(rest[:30]))) == rest[30:]
}

// base62 of six digits, 0-9A-Za-z.
func base62(n uint32) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	out := make([]byte, 6)
	for i := 5; i >= 0; i-- {
		out[i] = digits[n%62]
		n /= 62
	}
	return string(out)
}

var placeholder = regexp.MustCompile(`(?i)^(?:pass(?:word|wd)?|pwd|secret|user(?:name)?|changeme|example|your.*|my.?pass.*|x+|\*+|\.+|<.*|\{.*|\$.*|%.*|\[.*|redacted|hidden)$`)

// realConnection rejects what documentation shows.
func realConnection(match string) bool {
	u, err := url.Parse(match)
	if err != nil || u.User == nil {
		return false
	}
	password, _ := u.User.Password()
	host := strings.ToLower(u.Hostname())
	documented := host == "example.com" || host == "host" || host == "hostname" || strings.HasSuffix(host, ".example") || strings.HasSuffix(host, ".example.com")
	return !documented && !placeholder.MatchString(password)
}

func leaksInAnswers(_ context.Context, s *audit.Session) (audit.Verdict, error) {
	history := s.History()
	var last *audit.Exchange
	read := 0
	for _, x := range history {
		if x.Status == 0 {
			continue
		}
		read, last = read+1, x
		if name, match := leaked(s, x); match != "" {
			s.Hide(match)
			return audit.Failed("%s holds a %s: %s… (%d characters)", x, name, match[:4], len(match)).With(withheld(x)), nil
		}
	}
	if read < 5 {
		return audit.Unproven("there were only %d answers to search", read), nil
	}
	if x, address := internalAddress(s, history); x != nil {
		return audit.Failed("%s shows the private address %s", x, address).As(audit.Low).With(x), nil
	}
	return audit.Passed("no secrets and no private addresses in %d answers", read).With(last), nil
}

// leaked gives the first secret in an answer that the audit did not send.
func leaked(s *audit.Session, x *audit.Exchange) (name, match string) {
	answer := answerText(x)
	for _, k := range leakKinds() {
		for _, m := range k.pattern.FindAllString(answer, 20) {
			if k.real(m) && !sent(s, x, m) {
				return k.name, m
			}
		}
	}
	return "", ""
}

// answerText is headers and body as one text.
func answerText(x *audit.Exchange) string {
	var b strings.Builder
	for name, values := range x.Header {
		for _, v := range values {
			fmt.Fprintf(&b, "%s: %s\n", name, v)
		}
	}
	b.Write(x.Body)
	return b.String()
}

// sent says whether the answer only repeats what was in the request, or one of the credentials given.
func sent(s *audit.Session, x *audit.Exchange, match string) bool {
	r := x.Request
	if strings.Contains(r.Path+"\n"+string(r.Body)+"\n"+r.Token+"\n"+x.Raw, match) {
		return true
	}
	for _, values := range r.Header {
		if slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, match) }) {
			return true
		}
	}
	t := s.Target()
	return slices.ContainsFunc([]string{t.Token, t.TokenB, t.AdminToken, t.RefreshToken, t.IDToken, t.JWTKey}, func(known string) bool {
		return known != "" && (strings.Contains(known, match) || strings.Contains(match, known))
	})
}

var dottedQuad = regexp.MustCompile(`(?:^|[^\d.\w])((?:10|172|192)(?:\.\d{1,3}){3})(?:[^\d.\w]|$)`)

// internalAddress finds a private address in an answer, of a target that is not at one itself.
func internalAddress(s *audit.Session, history []*audit.Exchange) (*audit.Exchange, string) {
	if s.Target().Local() {
		return nil, ""
	}
	for _, x := range history {
		for _, m := range dottedQuad.FindAllStringSubmatch(answerText(x), 20) {
			ip, err := netip.ParseAddr(m[1])
			if err == nil && ip.IsPrivate() && !sent(s, x, m[1]) {
				return x, m[1]
			}
		}
	}
	return nil, ""
}

package source

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// secretDefault finds keys that sign or encrypt and whose value stands in the code: assigned, given as
// the default of a setting, or passed to a function that signs.
func secretDefault(f *file, found func(finding)) {
	if developmentOnly(f.path) {
		return
	}
	for i := range f.tokens {
		if at := f.defaulted(i); at >= 0 && !f.inDevelopment(at) {
			found(finding{at: at})
		}
	}
	for _, c := range f.calls {
		if at := f.secretArgument(c); at >= 0 && !f.inDevelopment(at) {
			found(finding{at: at})
		}
	}
}

var development = regexp.MustCompile(`(^|/)(settings|config|environments|conf)(/|[._-])(dev|development|local|test|testing|ci)\.`)

// developmentOnly are settings that production never loads.
func developmentOnly(path string) bool { return development.MatchString(path) }

// inDevelopment says that the code is in a branch for development: "if DEBUG:".
func (f *file) inDevelopment(at int) bool {
	return slices.ContainsFunc(f.blocks, func(b block) bool {
		return b.word == "if" && b.from <= at && at < b.to && !f.mentions(b.head.from, b.head.to, "not") &&
			f.mentions(b.head.from, b.head.to, "DEBUG", "debug", "TESTING", "development", "local", "dev", "test")
	})
}

// defaulted looks at the literal at i: is it the whole value of a secret's name, or its fallback?
func (f *file) defaulted(i int) int {
	if t := f.tok(i); t.kind != str || t.live {
		return -1
	}
	if privateKey.MatchString(f.tok(i).text) {
		return i
	}
	if f.lang == Java {
		if at := f.annotated(i); at >= 0 {
			return at
		}
	}
	if f.lang == Go && f.structTag(i) {
		return i
	}
	name := f.nameFor(i)
	if name == "" || !secretName(name) || !plausible(name, f.tok(i).text) || !f.ends(i+1) {
		return -1
	}
	return i
}

// privateKey needs no name to be known: the first line of PEM and, so that a text about keys is none,
// some of what follows it.
var privateKey = regexp.MustCompile(`^\s*-----BEGIN (RSA |EC |OPENSSH )?PRIVATE KEY-----(\\[rn]|\s)+[A-Za-z0-9+/]{20}`)

// nameFor is the name that the literal at i is the value or the fallback of.
func (f *file) nameFor(i int) string {
	at := i - 1
	for f.is(at, "(") && f.is(at-1, "byte", "]") || f.is(at, "byte", "]", "[") && f.lang == Go { // []byte("x")
		at--
	}
	switch {
	case f.is(at, "||", "??", "or"):
		return f.leftOf(at)
	case f.is(at, "=", ":=", "||=", "??=", "+="):
		if f.is(at, "+=") {
			return ""
		}
		return f.target(at)
	case f.lang == Java: // x of: x != null ? x : "y"
		if f.is(at, ":") && f.is(at-2, "?") {
			return f.tok(at - 1).text
		}
		return ""
	case f.is(at, ":", "=>"):
		return f.keyName(at)
	case f.lang == Ruby && f.is(at, "{"): // ENV.fetch("X") { "y" }
		return f.leftOf(at)
	}
	return ""
}

// keyName is the key before ":" in an object or dict. A key of one plain word is a secret's only where
// the call around it says so: session({secret: "x"}).
func (f *file) keyName(colon int) string {
	key := f.tok(colon - 1)
	if key.kind > str || f.is(colon-2, "?") {
		return ""
	}
	if f.lang == Go && !f.is(colon-2, "{", ",") {
		return ""
	}
	name := key.text
	if parts := split(name); len(parts) > 1 {
		return name
	}
	if !strings.EqualFold(name, "secret") {
		return ""
	}
	for j := colon; j > max(0, colon-120); j-- {
		if m := f.tok(j).match; m >= 0 && m < j {
			j = m
			continue
		}
		if f.is(j, "(") || f.lang == Ruby && f.tok(j).first {
			around := strings.ToLower(f.source(max(0, j-4), j+1))
			if f.lang == Ruby {
				around = strings.ToLower(f.source(j, colon))
			}
			for _, w := range []string{"session", "jwt", "cookie", "auth", "strategy", "register"} {
				if strings.Contains(around, w) {
					return "session_secret"
				}
			}
			return ""
		}
	}
	return ""
}

// leftOf is the name at the end of the expression left of an operator: process.env.X, os.environ.get("X").
func (f *file) leftOf(op int) string {
	j := op - 1
	if f.is(j, "!") { // of TypeScript
		j--
	}
	for f.is(j, ")", "]") && f.tok(j).match >= 0 {
		open := f.tok(j).match
		if text, ok := f.literal(open + 1); ok {
			return text
		}
		j = open - 1
	}
	if f.tok(j).kind == word {
		return f.tok(j).text
	}
	return ""
}

// ends says that a value is over here.
func (f *file) ends(i int) bool {
	t := f.tok(i)
	for f.is(i, ")") && f.lang == Go { // of []byte("x")
		i++
		t = f.tok(i)
	}
	return t.first || i >= len(f.tokens) || f.is(i, ";", ",", ")", "}", "]", "as", "if", "unless", ".") && !(f.is(i, ".") && f.is(i+1, "format", "join", "replace"))
}

// placeholderValue is @Value("${jwt.secret:default}").
var placeholderValue = regexp.MustCompile(`^\$\{([\w.-]+):([^{}]+)\}$`)

func (f *file) annotated(i int) int {
	m := placeholderValue.FindStringSubmatch(f.tok(i).text)
	if m != nil && secretName(m[1]) && plausible(m[1], m[2]) {
		return i
	}
	if f.is(i-1, "=") && f.is(i-2, "defaultValue") { // @ConfigProperty(name = "jwt.secret", defaultValue = "x")
		for j := i - 3; j > max(0, i-12); j-- {
			if name, ok := f.literal(j); ok && f.is(j-2, "name") && secretName(name) && plausible(name, f.tok(i).text) {
				return i
			}
		}
	}
	return -1
}

// tagged is a struct's tag with a default: `env:"JWT_SECRET" envDefault:"x"`.
var (
	tagName    = regexp.MustCompile(`(?:env|envconfig|mapstructure|name):"([^",]+)`)
	tagDefault = regexp.MustCompile(`(?:envDefault|default):"([^"]+)"`)
)

func (f *file) structTag(i int) bool {
	text := f.tok(i).text
	name, value := tagName.FindStringSubmatch(text), tagDefault.FindStringSubmatch(text)
	return name != nil && value != nil && secretName(name[1]) && plausible(name[1], value[1])
}

// getters are calls whose second argument is used when the first is not set.
var getters = words("get getenv fetch env str string config getordefault setdefault getproperty lookup getenvordefault getenvdefault envordefault envor getstring default bytes set getstr mustgetenv or")

// secretArgument returns the literal in c that is a default or a key.
func (f *file) secretArgument(c call) int {
	first, ok := c.positional(0)
	if !ok {
		return f.secretKeyword(c)
	}
	name, named := f.literal(first.from)
	lower := strings.ToLower(strings.ReplaceAll(c.name, "_", ""))
	if named && first.to == first.from+1 && secretName(name) && (getters[lower] || strings.Contains(lower, "getenv") || strings.Contains(lower, "envor")) {
		value, ok := c.keyword("default")
		if !ok {
			value, ok = c.keyword("fallback")
		}
		if !ok && c.name != "set" || c.name == "set" && f.lang == Ruby {
			value, ok = c.positional(1)
		}
		if ok && f.lone(value) && plausible(name, f.tok(value.from).text) {
			return value.from
		}
	}
	if at := f.fallback(c, first); at >= 0 {
		return at
	}
	if at := f.signingKey(c); at >= 0 {
		return at
	}
	return f.secretKeyword(c)
}

// fallback is cmp.Or(os.Getenv("X"), "y"), Optional.ofNullable(System.getenv("X")).orElse("y") and
// z.string().default("y") under the name of a secret.
func (f *file) fallback(c call, first arg) int {
	switch {
	case c.path == "cmp.Or" && len(c.args) > 1:
		last := c.args[len(c.args)-1]
		name, ok := f.literal(first.to - 2)
		if ok && secretName(name) && f.lone(last) && plausible(name, f.tok(last.from).text) {
			return last.from
		}
	case c.name == "orElse" && f.lone(first):
		for j := c.root; j < c.at; j++ {
			if name, ok := f.literal(j); ok && secretName(name) && plausible(name, f.tok(first.from).text) {
				return first.from
			}
		}
	case c.name == "default" && f.lone(first) && f.is(c.root-1, ":") && f.lang != Python:
		name := f.tok(c.root - 2).text
		if secretName(name) && plausible(name, f.tok(first.from).text) {
			return first.from
		}
	}
	return -1
}

// signingKey is the key of a call that signs or verifies, written out.
func (f *file) signingKey(c call) int {
	n := -1
	switch {
	case strings.HasSuffix("."+c.path, ".jwt.encode") && f.lang == Python, strings.HasSuffix("."+c.path, ".jwt.decode") && f.lang == Python,
		c.path == "jsonwebtoken.sign", c.path == "jsonwebtoken.verify", c.path == "jwt-simple.encode", c.path == "jwt-simple.decode",
		c.path == "JWT.encode" && f.lang == Ruby, c.path == "JWT.decode" && f.lang == Ruby:
		n = 1
	case c.path == "crypto.createHmac", c.path == "OpenSSL.HMAC.digest", c.path == "OpenSSL.HMAC.hexdigest", c.path == "crypto/hmac.New":
		n = 1
	case c.path == "hmac.new" && f.lang == Python:
		n = 0
	case c.name == "SignedString" && f.lang == Go, strings.HasSuffix(c.path, "Algorithm.HMAC256"), strings.HasSuffix(c.path, "Algorithm.HMAC512"), strings.HasSuffix(c.path, "Algorithm.HMAC384"),
		strings.HasSuffix(c.path, "Keys.hmacShaKeyFor"), strings.HasSuffix(c.path, "sessions.NewCookieStore"):
		n = 0
	case c.name == "signWith" && f.imported("io.jsonwebtoken"):
		n = 1
	}
	a, ok := c.positional(n)
	if n < 0 || !ok {
		return -1
	}
	at := a.from
	if f.is(at, "[") && f.is(at+1, "]") && f.is(at+2, "byte") && f.is(at+3, "(") {
		at += 4
	}
	if text, ok := f.literal(at); ok && (at+1 == a.to || f.is(at+1, ")", ".")) && plausible("key", text) {
		return at
	}
	return -1
}

// secretKeyword is secret_key="x" among the arguments.
func (f *file) secretKeyword(c call) int {
	for _, a := range c.args {
		if a.name != "" && f.lone(a) && (secretName(a.name) || a.name == "secret" && strings.Contains(strings.ToLower(f.source(c.root, c.to)), "session")) &&
			plausible(a.name, f.tok(a.from).text) {
			return a.from
		}
	}
	return -1
}

// lone says that the argument is one literal.
func (f *file) lone(a arg) bool {
	_, ok := f.literal(a.from)
	return ok && a.to == a.from+1
}

// split cuts a name into its words: jwtSecretKey, JWT_SECRET_KEY and jwt.secret-key alike.
func split(name string) []string {
	var parts []string
	var b strings.Builder
	flush := func() {
		if b.Len() > 0 {
			parts = append(parts, strings.ToLower(b.String()))
			b.Reset()
		}
	}
	var before rune
	for _, r := range name {
		switch {
		case !unicode.IsLetter(r) && !unicode.IsDigit(r):
			flush()
		case unicode.IsUpper(r) && unicode.IsLower(before):
			flush()
			b.WriteRune(r)
		default:
			b.WriteRune(r)
		}
		before = r
	}
	flush()
	return parts
}

var (
	secretWords = words("secret secrets secretkey jwtsecret sessionsecret signingkey secretorkey")
	keyOwners   = words("secret signing sign hmac encryption encrypt jwt")
	notSecret   = words("public publishable name id arn path file header env field param ref version label title message url placeholder prefix weak missing invalid")
)

// secretName says that a name is of a key that signs or encrypts. SECRET_KEY_FILE, secretName and
// storageKey are none.
func secretName(name string) bool {
	if len(name) > 80 || strings.ContainsAny(name, " /:") {
		return false
	}
	parts := split(name)
	if len(parts) == 0 || slices.ContainsFunc(parts, func(p string) bool { return notSecret[p] }) {
		return false
	}
	last := parts[len(parts)-1]
	if last == "base" && len(parts) > 1 { // secret_key_base
		parts = parts[:len(parts)-1]
		last = parts[len(parts)-1]
	}
	switch {
	case secretWords[last]:
		return len(parts) > 1 || len(last) > len("secrets") || name == strings.ToUpper(name)
	case last == "key":
		// A cookieKey and a sessionKey are as often a name as a secret.
		return name == "APP_KEY" || slices.ContainsFunc(parts[:len(parts)-1], func(p string) bool { return keyOwners[p] })
	}
	return false
}

var (
	envName   = regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)+$`)
	code      = regexp.MustCompile(`^[A-Z]{2,6}-[0-9]{1,4}$`) // of an error, a rule, a ticket
	reference = regexp.MustCompile(`^[a-z][a-z0-9_]*([.-][a-z0-9_-]+)*\.[a-z0-9_-]+$|^(/|\./|\.\./|~/|arn:|https?://|vault:|ssm:|file:|env:|op://)`)
)

// plausible says that a literal could be the secret of that name: not empty, not the name of a setting,
// a path, a template or a text for people.
func plausible(name, value string) bool {
	squeeze := func(s string) string { return strings.Join(split(s), "") }
	trimmed := strings.TrimSpace(value)
	switch {
	case len(trimmed) < 3 || len(value) > 4096:
		return false
	case squeeze(value) == squeeze(name) && value != "secret" && !strings.Contains(strings.ToLower(value), "-secret"):
		return false
	case envName.MatchString(value), code.MatchString(value), reference.MatchString(value):
		return false
	case strings.HasPrefix(value, "${"), strings.HasPrefix(value, "{{"), strings.HasPrefix(value, "%"), strings.HasPrefix(value, "<"), strings.HasPrefix(value, "-----BEGIN PUBLIC"):
		return false
	case strings.HasSuffix(trimmed, ":"), strings.HasSuffix(trimmed, "."), strings.HasSuffix(trimmed, "?"):
		return false
	case strings.Count(trimmed, " ") > 12:
		return false
	}
	switch strings.ToLower(value) {
	case "null", "none", "nil", "undefined", "string", "required", "true", "false", "password", "text", "hidden":
		return false
	}
	return true
}

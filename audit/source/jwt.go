package source

import (
	"slices"
	"strings"
)

// notVerified finds tokens that are read without a look at their signature. A decode whose function also
// verifies is how a key is chosen by its id, and sound; but not in the branch that a failed verification
// leads to.
func notVerified(f *file, found func(finding)) {
	judge := map[Language]func(*file, call) (decodes, verifies bool){
		Python: jwtPython, JavaScript: jwtJS, TypeScript: jwtJS, Go: jwtGo, Ruby: jwtRuby, Java: jwtJava,
	}[f.lang]
	if f.lang == Go {
		skipCheckGo(f, found)
	}
	verified := make(map[int]bool)
	var decodes []call
	for _, c := range f.calls {
		d, v := judge(f, c)
		if d {
			decodes = append(decodes, c)
		}
		if v {
			verified[c.at] = true
		}
	}
	verifies := func(o call) bool { return verified[o.at] }
	for _, c := range decodes {
		if f.inBlock(c.at, "except", "catch", "rescue") || len(verified) == 0 || !f.beside(c, verifies) && !f.callersAll(c, verifies) {
			found(finding{at: c.at})
		}
	}
}

// callersAll says that the function of c is called in this file, and that beside each such call there is
// one that satisfies ok.
func (f *file) callersAll(c call, ok func(call) bool) bool {
	if c.fn < 0 || f.functions[c.fn].name == "" || !f.spend(len(f.calls)) {
		return false
	}
	name, callers := f.functions[c.fn].name, 0
	for _, caller := range f.calls {
		if caller.name == name && !f.related(caller.fn, c.fn) {
			callers++
			if !f.beside(caller, ok) {
				return false
			}
		}
	}
	return callers > 0
}

func jwtPython(f *file, c call) (decodes, verifies bool) {
	switch {
	case !f.imported("jwt", "jose", "authlib", "base64"):
		return false, false
	case strings.HasSuffix(c.path, "jwt.get_unverified_claims"), strings.HasSuffix(c.path, "jws.get_unverified_claims"):
		return true, false
	case c.name == "b64decode" || c.name == "urlsafe_b64decode":
		return f.secondPart(c), false
	case c.name != "decode" && c.name != "decode_complete" || !strings.Contains("."+c.path, "jwt.") && !strings.Contains(c.path, "PyJWT"):
		return false, false
	}
	off := f.switchedOff(c)
	return off, !off
}

// switchedOff says that verify=False or options with verify_signature False are given, directly or by the
// name of a dict in the same file.
func (f *file) switchedOff(c call) bool {
	if a, ok := c.keyword("verify"); ok && f.only(a, "False") {
		return true
	}
	a, ok := c.keyword("options")
	if !ok {
		return false
	}
	from, to := a.from, a.to
	if a.to == a.from+1 && f.tok(a.from).kind == word {
		from, to = f.assigned(f.tok(a.from).text)
	}
	v, ok := f.property(from, to, "verify_signature")
	return ok && f.only(v, "False")
}

// assigned finds NAME = {...} and returns the tokens of the value.
func (f *file) assigned(name string) (from, to int) {
	if !f.spend(len(f.tokens)) {
		return 0, 0
	}
	for i := range f.tokens {
		if f.is(i, "=") && f.is(i-1, name) && f.tok(i+1).match > i {
			return i + 1, f.tok(i+1).match + 1
		}
	}
	return 0, 0
}

// secondPart says that what is decoded is token.split(".")[1], a payload taken by hand.
func (f *file) secondPart(c call) bool {
	for i := c.from; i+6 < c.to+7 && i < c.to; i++ {
		if dot, ok := f.literal(i + 2); f.is(i, "split") && ok && dot == "." && f.is(i+3, ")") && f.is(i+4, "[", "?.") &&
			(f.is(i+5, "1") || f.is(i+6, "1")) {
			return true
		}
	}
	return false
}

func jwtJS(f *file, c call) (decodes, verifies bool) {
	switch c.path {
	case "jsonwebtoken.decode":
		return !f.headerOnly(c) && f.place != inBrowser, false
	case "jsonwebtoken.verify":
		key, ok := c.positional(1)
		off := ok && f.only(key, "null", "undefined", "false")
		return off, !off
	case "jwt-simple.decode":
		off, ok := c.positional(2)
		decodes = ok && f.only(off, "true")
		return decodes, !decodes
	case "jose.decodeJwt", "jose.UnsecuredJWT.decode", "jwt-decode", "jwt-decode.jwtDecode", "jwt-decode.default", "jwt-decode.jwt_decode":
		return f.server(), false
	case "jws.decode":
		return true, false
	case "jose.jwtVerify", "jose.compactVerify", "jws.verify":
		return false, true
	case "atob", "Buffer.from":
		return f.secondPart(c) && f.server(), false
	}
	return false, strings.HasSuffix(c.path, ".verifyToken") || c.path == "verifyToken" || c.path == "authenticateRequest"
}

// headerOnly says that of decode(token, {complete: true}) nothing but the header is looked at, which
// names the key to verify with.
func (f *file) headerOnly(c call) bool {
	options, ok := c.positional(1)
	if !ok || !f.mentions(options.from, options.to, "complete") {
		return false
	}
	end := c.to + 1 // after the bracket
	if f.is(end, ".", "?.") {
		return f.is(end+1, "header")
	}
	if !f.is(c.root-1, "=") {
		return false
	}
	if f.is(c.root-2, "}") { // const { header } = ...
		return !f.mentions(f.tok(c.root-2).match, c.root-2, "payload")
	}
	if !f.spend(len(f.tokens)) {
		return true
	}
	name := f.tok(c.root - 2).text
	header := false
	for i := end; i < len(f.tokens); i++ {
		if !f.is(i, name) || f.owner[i] != c.fn {
			continue
		}
		switch {
		case f.is(i+1, ".", "?.") && f.is(i+2, "header"):
			header = true
		case f.is(i+1, ".", "?.", ",", ")") && !(f.is(i-1, "!", "(") && f.is(i+1, ")", "||", "&&")):
			return false
		}
	}
	return header
}

func jwtGo(f *file, c call) (decodes, verifies bool) {
	switch c.name {
	case "ParseUnverified", "UnsafeClaimsWithoutVerification", "UnsafePayloadWithoutVerification":
		return true, false
	case "ParseInsecure":
		return f.imported("github.com/lestrrat-go/jwx"), false
	case "WithVerify":
		a, ok := c.positional(0)
		return ok && f.only(a, "false") && f.imported("github.com/lestrrat-go/jwx"), false
	case "Parse", "ParseWithClaims", "Verify", "Claims", "VerifySignature":
		return false, slices.ContainsFunc(f.packages, func(p string) bool {
			return strings.Contains(p, "jwt") || strings.Contains(p, "jose") || strings.Contains(p, "oidc")
		})
	}
	return false, false
}

// skipCheckGo finds oidc.Config{InsecureSkipSignatureCheck: true}.
func skipCheckGo(f *file, found func(finding)) {
	for i := range f.tokens {
		if f.is(i, "InsecureSkipSignatureCheck") && f.is(i+1, ":", "=") && f.is(i+2, "true") {
			found(finding{at: i})
		}
	}
}

func jwtRuby(f *file, c call) (decodes, verifies bool) {
	switch {
	case c.path == "JWT.decode":
		third, ok := c.positional(2)
		off := ok && f.only(third, "false")
		return off, !off
	case c.path == "JSON.JWT.decode":
		off := f.mentions(c.from, c.to, "skip_verification")
		return off, !off
	case c.name == "unverified_payload":
		return true, false
	}
	return false, c.name == "verify!" || c.name == "verify_signature!"
}

func jwtJava(f *file, c call) (decodes, verifies bool) {
	switch c.path {
	case "com.auth0.jwt.JWT.decode", "JWT.decode":
		return f.imported("com.auth0.jwt"), false
	case "com.nimbusds.jwt.SignedJWT.parse", "com.nimbusds.jwt.JWTParser.parse", "SignedJWT.parse":
		claims := func(o call) bool { return o.name == "getJWTClaimsSet" || o.name == "getPayload" }
		return f.imported("com.nimbusds") && (f.is(c.to+2, "getJWTClaimsSet") || f.beside(c, claims)), false
	}
	switch c.name {
	case "parseClaimsJwt", "parsePlaintextJwt", "parseUnsecuredClaims", "parseUnsecuredContent":
		return f.imported("io.jsonwebtoken"), false
	case "parse":
		accepted := f.is(c.to+1, ".") && f.is(c.to+2, "accept")
		return strings.HasPrefix(c.path, "io.jsonwebtoken.Jwts.parser") && len(c.args) == 1 && !accepted, accepted
	case "setSkipSignatureVerification":
		return f.imported("org.jose4j"), false
	case "verify", "verifySignature", "parseClaimsJws", "parseSignedClaims", "process", "setVerificationKey", "setVerificationKeyResolver":
		return false, true
	}
	return false, false
}

// algorithmNone finds "none" among the algorithms of a call that has to do with tokens.
func algorithmNone(f *file, found func(finding)) {
	if f.lang == Go {
		noneGo(f, found)
		return
	}
	for _, c := range f.calls {
		if at := f.none(c); at >= 0 {
			found(finding{at: at})
		}
	}
}

func noneGo(f *file, found func(finding)) {
	jwt := slices.ContainsFunc(f.packages, func(p string) bool { return strings.Contains(p, "jwt") })
	for i := range f.tokens {
		if jwt && f.is(i, "UnsafeAllowNoneSignatureType", "SigningMethodNone") && f.is(i-1, ".") {
			found(finding{at: i})
		}
	}
	for _, c := range f.calls {
		if c.name == "WithValidMethods" {
			if i := f.noneIn(c.from, c.to); i >= 0 {
				found(finding{at: i})
			}
		}
	}
}

// none returns the token in c that allows no signature, or -1.
func (f *file) none(c call) int {
	switch f.lang {
	case Python:
		if strings.Contains("."+c.path, "jwt.") {
			for _, name := range []string{"algorithms", "algorithm"} {
				if a, ok := c.keyword(name); ok {
					return f.noneIn(a.from, a.to)
				}
			}
		}
	case JavaScript, TypeScript:
		if strings.Contains(c.path, "jsonwebtoken") || strings.Contains(c.path, "express-jwt") || strings.HasPrefix(c.path, "jose.") || strings.Contains(c.path, "koa-jwt") || strings.Contains(c.path, "fast-jwt") {
			if a, ok := f.property(c.from, c.to, "algorithms", "algorithm"); ok {
				return f.noneIn(a.from, a.to)
			}
		}
	case Ruby:
		if a, ok := c.positional(2); ok && c.path == "JWT.encode" {
			return f.noneIn(a.from, a.to)
		}
		if a, ok := f.property(c.from, c.to, "algorithm", "algorithms"); ok && c.path == "JWT.decode" {
			return f.noneIn(a.from, a.to)
		}
	case Java:
		if c.path == "com.auth0.jwt.algorithms.Algorithm.none" || c.name == "unsecured" && strings.HasPrefix(c.path, "io.jsonwebtoken.Jwts.parser") {
			return c.at
		}
		if f.imported("org.jose4j") && c.name == "AlgorithmConstraints" && f.mentions(c.from, c.to, "PERMIT", "WHITELIST") && f.mentions(c.from, c.to, "NONE") {
			return c.at
		}
	}
	return -1
}

func (f *file) noneIn(from, to int) int {
	for i := from; i < to; i++ {
		if text, ok := f.literal(i); ok && strings.EqualFold(text, "none") {
			return i
		}
	}
	return -1
}

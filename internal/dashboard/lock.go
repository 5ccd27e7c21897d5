package dashboard

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gantryhq/gantry/problem"
)

// Rules of the lock on the admin port.
//
//   - With an admin token, everything but the login page and what it is drawn with needs the token, as a bearer token or
//     by a session that it opened. A session reads everything; it changes things by the page's own forms only, so a
//     script needs the token itself.
//   - Without one the port is on loopback. Then the danger is a page elsewhere whose name is pointed at 127.0.0.1: only
//     names of this machine are answered to.
//   - Either way nothing is changed by a request that a browser says comes from another origin, and forms carry a token.
const (
	sessionLife  = 12 * time.Hour
	maxForm      = 8 << 10 // bytes
	maxEnded     = 1024    // sessions that were logged out of and have not run out
	triesAll     = 60      // a minute
	triesEach    = 5       // a minute from one address, or one IPv6 /64
	sessionBytes = 16 + 8 + sha256.Size
)

type lock struct {
	token  func() Secret
	keys   func() [][]byte
	secure func(*http.Request) bool
	cross  *http.CrossOriginProtection
	now    func() time.Time
	tries  throttle

	mu    sync.Mutex
	ended map[sessionID]time.Time
}

func newLock(cfg Config) *lock {
	l := &lock{
		token: cfg.Token, keys: cfg.Keys, secure: cfg.Secure, cross: http.NewCrossOriginProtection(),
		now: time.Now, ended: map[sessionID]time.Time{},
	}
	if l.keys == nil {
		key := make([]byte, 32)
		_, _ = rand.Read(key) // never fails (crypto/rand)
		l.keys = func() [][]byte { return [][]byte{key} }
	}
	if l.secure == nil {
		l.secure = func(r *http.Request) bool { return r.TLS != nil }
	}
	return l
}

// closed says that a token is needed.
func (l *lock) closed() bool { return l.token != nil && !l.token().IsZero() }

// pass is how a request got in.
type pass struct {
	bearer  bool
	session sessionID // zero while nobody has to log in
}

type passKey struct{}

func passOf(r *http.Request) pass {
	p, _ := r.Context().Value(passKey{}).(pass)
	return p
}

// Protect is the lock around all of the admin port.
func (d *Dashboard) Protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l := d.lock
		switch {
		case !l.closed() && !IsOwnName(r.Host):
			problem.Write(w, r, problem.Misdirected)
		case l.cross.Check(r) != nil:
			problem.Write(w, r, problem.Forbidden.With("The request comes from another site."))
		case strings.HasPrefix(r.URL.Path, "/assets/"), r.URL.Path == "/login":
			next.ServeHTTP(w, r)
		default:
			p, ok := l.admit(r)
			if !ok {
				d.turnAway(w, r)
				return
			}
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), passKey{}, p)))
		}
	})
}

// admit says whether and how a request may come in.
func (l *lock) admit(r *http.Request) (pass, bool) {
	if token, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); found && l.closed() {
		return pass{bearer: true}, l.token().Matches(token)
	}
	if !l.closed() {
		return pass{}, true
	}
	id, ok := l.session(r)
	return pass{session: id}, ok && !(isWrite(r) && strings.HasPrefix(r.URL.Path, "/api/"))
}

func isWrite(r *http.Request) bool { return r.Method != http.MethodGet && r.Method != http.MethodHead }

// IsOwnName says that a Host header names this machine and can name no other.
func IsOwnName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback() || strings.EqualFold(host, "localhost")
}

// turnAway sends a person to the login page and tells everybody else what is missing.
func (d *Dashboard) turnAway(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != "/" || isWrite(r):
		w.Header().Set("WWW-Authenticate", `Bearer realm="gantry admin"`)
		problem.Write(w, r, problem.Unauthenticated)
	case r.Header.Get("Sec-Fetch-Site") == "cross-site":
		// A link elsewhere, in an alert's message say, comes without the cookie (SameSite=Strict), though there may be a
		// session. A step from a page of our own has it.
		d.say(w, http.StatusOK, plainPage{Title: "Dashboard", Bounce: true})
	default:
		http.Redirect(w, r, "/login", http.StatusSeeOther)
	}
}

// plainPage is a page with a sentence or the login form.
type plainPage struct {
	Title, Text, Build string
	Login, Bounce      bool
}

func (d *Dashboard) say(w http.ResponseWriter, status int, p plainPage) {
	p.Build = build
	setPageHeaders(w.Header())
	w.WriteHeader(status)
	if err := d.page.ExecuteTemplate(w, "plain", p); err != nil {
		d.log.Debug("dashboard", "error", err)
	}
}

func (d *Dashboard) loginPage(w http.ResponseWriter, r *http.Request) {
	if _, ok := d.lock.admit(r); ok {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	d.say(w, http.StatusOK, plainPage{Title: "Log in", Login: true})
}

// login opens a session. Every try counts, before the token is looked at.
func (d *Dashboard) login(w http.ResponseWriter, r *http.Request) {
	l := d.lock
	if !l.closed() {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	if wait := l.tries.take(peer(r), l.now()); wait > 0 {
		w.Header().Set("Retry-After", seconds(wait))
		d.say(w, http.StatusTooManyRequests, plainPage{Title: "Log in", Login: true, Text: "Too many tries. Wait " + seconds(wait) + " seconds."})
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if !l.token().Matches(r.PostFormValue("token")) {
		d.log.Warn("dashboard login refused", "address", peer(r))
		d.say(w, http.StatusUnauthorized, plainPage{Title: "Log in", Login: true, Text: "That is not the admin token."})
		return
	}
	d.log.Info("dashboard login", "address", peer(r))
	http.SetCookie(w, l.cookie(r, l.open(), int(sessionLife.Seconds())))
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (d *Dashboard) logout(w http.ResponseWriter, r *http.Request) {
	d.lock.end(passOf(r).session)
	http.SetCookie(w, d.lock.cookie(r, "", -1))
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

// posted guards what a form of the page changes: the form's token must be that of the session. Who sends the bearer
// token needs none, because no browser adds that by itself.
func (d *Dashboard) posted(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if p := passOf(r); !p.bearer && !d.lock.isFormToken(p.session, r.PostFormValue("form")) {
			d.say(w, http.StatusForbidden, plainPage{Title: "Refused", Text: "This form is out of date, or was not made by this page. Nothing was changed."})
			return
		}
		next(w, r)
	})
}

// sessionID names a session. A session is a signed cookie and nothing is kept of it, so that a restart, or another
// instance with the same keys, goes on with it.
type sessionID [16]byte

// cookieName is not __Host- prefixed: browsers refuse that without TLS, which a tunnel to loopback has not.
const cookieName = "gantry_admin"

func (l *lock) cookie(r *http.Request, value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: cookieName, Value: value, Path: "/", MaxAge: maxAge,
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: l.secure(r),
	}
}

// open makes the cookie of a new session: its id, when it ends, and a signature over both.
func (l *lock) open() string {
	b := make([]byte, 16, sessionBytes)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	b = binary.BigEndian.AppendUint64(b, uint64(l.now().Add(sessionLife).Unix()))
	return base64.RawURLEncoding.EncodeToString(append(b, sign(l.keys()[0], "session", b)...))
}

// session is the one that a request's cookie proves.
func (l *lock) session(r *http.Request) (id sessionID, ok bool) {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return id, false
	}
	b, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil || len(b) != sessionBytes || !l.signed("session", b[:24], b[24:]) {
		return id, false
	}
	id = sessionID(b[:16])
	ends := time.Unix(int64(binary.BigEndian.Uint64(b[16:24])), 0)
	l.mu.Lock()
	defer l.mu.Unlock()
	_, over := l.ended[id]
	return id, !over && l.now().Before(ends)
}

// end remembers that a session was logged out of, for as long as its cookie would be good. When there are too many
// the oldest is forgotten.
func (l *lock) end(id sessionID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	oldest := id
	for other, until := range l.ended {
		if now.After(until) {
			delete(l.ended, other)
		} else if oldest == id || until.Before(l.ended[oldest]) {
			oldest = other
		}
	}
	if len(l.ended) >= maxEnded {
		delete(l.ended, oldest)
	}
	l.ended[id] = now.Add(sessionLife)
}

// formToken proves that a form was made for the session of r.
func (l *lock) formToken(r *http.Request) string {
	id := passOf(r).session
	return base64.RawURLEncoding.EncodeToString(sign(l.keys()[0], "form", id[:]))
}

func (l *lock) isFormToken(id sessionID, token string) bool {
	mac, err := base64.RawURLEncoding.DecodeString(token)
	return err == nil && l.signed("form", id[:], mac)
}

func (l *lock) signed(purpose string, text, mac []byte) bool {
	for _, key := range l.keys() {
		if hmac.Equal(sign(key, purpose, text), mac) {
			return true
		}
	}
	return false
}

func sign(key []byte, purpose string, text []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(purpose + " "))
	mac.Write(text)
	return mac.Sum(nil)
}

// throttle counts logins by the minute. The limit on all of them bounds its memory.
type throttle struct {
	mu    sync.Mutex
	began time.Time
	all   int
	each  map[netip.Prefix]int
}

// take counts a try, and says how long to wait when there were too many.
func (t *throttle) take(from netip.Addr, now time.Time) (wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.began) >= time.Minute {
		t.began, t.all, t.each = now, 0, map[netip.Prefix]int{}
	}
	bits := 32
	if from.Is6() {
		bits = 64
	}
	net, _ := from.Prefix(bits) // the zero Prefix for what is no address
	if t.all >= triesAll || t.each[net] >= triesEach {
		return t.began.Add(time.Minute).Sub(now)
	}
	t.all++
	t.each[net]++
	return 0
}

func peer(r *http.Request) netip.Addr {
	ap, _ := netip.ParseAddrPort(r.RemoteAddr)
	return ap.Addr().Unmap()
}

func seconds(d time.Duration) string { return strconv.FormatInt(problem.RetrySeconds(d), 10) }

// Package demo is a small, honestly bad API of the kind that gets audited: it works, its tests pass, and it is not
// ready for anybody.
//
// Begin with [Start]. The surprise: nothing in it is contrived. Each hole is one that real services ship: tokens are
// decoded and not verified, cookies are signed with the framework's default secret, every request opens a database
// connection of its own and asks once per row, nothing is limited, nothing has a deadline, and health is always well.
package demo

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the database of the bad API

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
)

// defaultSecret is the one that the framework's template comes with.
const defaultSecret = "django-insecure-change-this-in-production"

// rows of the orders table.
const rows = 400

// API is the running bad API, and the issuer of the tokens that it does not verify.
type API struct {
	URL    string
	Issuer string // an OpenID Connect issuer on loopback
	Key    *rsa.PrivateKey
	dir    string
	server *http.Server
	stop   context.CancelFunc
}

// Audience of the tokens.
const Audience = "shop"

const keyID = "shop-1"

// Token of a user, as the issuer signs it.
func (a *API) Token(user string) (string, error) {
	now := time.Now().Unix()
	header := []byte(`{"alg":"RS256","typ":"JWT","kid":"` + keyID + `"}`)
	claims := jws.With([]byte(`{}`), map[string]any{
		"iss": a.Issuer, "aud": Audience, "sub": user, "iat": now, "nbf": now, "exp": now + 3600,
	})
	return jws.Sign(header, claims, "RS256", a.Key)
}

// Start the API on a free port of loopback.
func Start(ctx context.Context) (_ *API, err error) {
	a := &API{}
	if a.dir, err = os.MkdirTemp("", "gantry-demo-"); err != nil {
		return nil, err
	}
	if err := a.fill(ctx); err != nil {
		os.RemoveAll(a.dir)
		return nil, err
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		os.RemoveAll(a.dir)
		return nil, err
	}
	base, stop := context.WithCancel(context.WithoutCancel(ctx))
	a.URL, a.stop = "http://"+ln.Addr().String(), stop
	a.Issuer = a.URL + "/auth"
	if a.Key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return nil, errors.Join(err, ln.Close(), os.RemoveAll(a.dir))
	}
	a.server = &http.Server{Handler: a.routes(), BaseContext: func(net.Listener) context.Context { return base }}
	go a.server.Serve(ln)
	return a, nil
}

// Close ends it and removes its database.
func (a *API) Close() {
	a.stop()
	a.server.Close()
	os.RemoveAll(a.dir)
}

func (a *API) file() string { return filepath.Join(a.dir, "shop.db") }

func (a *API) fill(ctx context.Context) error {
	db, err := sql.Open("sqlite", a.file())
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, `CREATE TABLE customers(id INTEGER PRIMARY KEY, name TEXT);
		CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INTEGER, total INTEGER);`); err != nil {
		return fmt.Errorf("demo database: %w", err)
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for i := 1; i <= rows; i++ {
		if _, err := tx.ExecContext(ctx, `INSERT INTO customers VALUES (?, ?)`, i, fmt.Sprint("Customer ", i)); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO orders VALUES (?, ?, ?)`, i, i, i*7); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func (a *API) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, map[string]any{"status": "ok"}) })
	mux.HandleFunc("GET /api/me", known(me))
	mux.HandleFunc("GET /api/orders", known(a.orders))
	mux.HandleFunc("POST /api/orders", known(a.create))
	mux.HandleFunc("GET /api/report", known(report))
	mux.HandleFunc("GET /auth/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]any{"issuer": a.Issuer, "jwks_uri": a.Issuer + "/jwks.json"})
	})
	mux.HandleFunc("GET /auth/jwks.json", a.jwks)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { answer(w, 404, map[string]any{"detail": "Not found."}) })
	return mux
}

func (a *API) jwks(w http.ResponseWriter, _ *http.Request) {
	jwk, err := audit.JWK(&a.Key.PublicKey)
	if err != nil {
		answer(w, 500, map[string]any{"detail": err.Error()})
		return
	}
	jwk["kid"], jwk["use"], jwk["alg"] = keyID, "sig", "RS256"
	answer(w, 200, map[string]any{"keys": []any{jwk}})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Server", "WSGIServer/0.2 CPython/3.11.2")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// known reads who calls from the token's payload. It never looks at the signature.
func known(h func(http.ResponseWriter, *http.Request, map[string]any)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		claims, err := decode(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		if err != nil {
			answer(w, 401, map[string]any{"detail": "Authentication credentials were not provided."})
			return
		}
		h(w, r, claims)
	}
}

func decode(token string) (claims map[string]any, err error) {
	parts := strings.Split(token, ".")
	if len(parts) < 2 {
		return nil, fmt.Errorf("not a token")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	if err == nil && claims["sub"] == nil {
		err = fmt.Errorf("no subject")
	}
	return claims, err
}

// me says who the caller claims to be, and starts a session whose cookie is signed with the default secret.
func me(w http.ResponseWriter, _ *http.Request, claims map[string]any) {
	user := fmt.Sprint(claims["sub"])
	http.SetCookie(w, &http.Cookie{Name: "sessionid", Value: sign(user), Path: "/", HttpOnly: true})
	answer(w, 200, map[string]any{"id": user, "role": claims["role"], "plan": "free"})
}

// sign is what django.contrib.sessions.backends.signed_cookies makes of a session.
func sign(value string) string {
	stamped := base64.RawURLEncoding.EncodeToString([]byte(`{"u":"`+value+`"}`)) + ":" + base62(time.Now().Unix())
	key := sha256.Sum256([]byte("django.contrib.sessions.backends.signed_cookies" + "signer" + defaultSecret))
	mac := hmac.New(sha256.New, key[:])
	mac.Write([]byte(stamped))
	return stamped + ":" + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func base62(n int64) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	text := ""
	for ; n > 0; n /= 62 {
		text = string(digits[n%62]) + text
	}
	return text
}

// orders opens a connection for this request, and asks for each row's customer by itself.
func (a *API) orders(w http.ResponseWriter, r *http.Request, _ map[string]any) {
	db, err := sql.Open("sqlite", a.file())
	if err != nil {
		panic(err)
	}
	defer db.Close()
	limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil {
		limit = 50
	}
	list, err := db.QueryContext(r.Context(), `SELECT id, customer, total FROM orders LIMIT ?`, limit)
	if err != nil {
		panic(err)
	}
	orders := []map[string]any{}
	for list.Next() {
		var id, customer, total int
		if err := list.Scan(&id, &customer, &total); err != nil {
			panic(err)
		}
		orders = append(orders, map[string]any{"id": id, "customer": customer, "total": total})
	}
	list.Close()
	for _, o := range orders {
		var name string
		if err := db.QueryRowContext(r.Context(), `SELECT name FROM customers WHERE id = ?`, o["customer"]).Scan(&name); err != nil {
			panic(err)
		}
		o["customer"] = name
	}
	answer(w, 200, map[string]any{"orders": orders})
}

// create takes whatever comes, of any size, and fails with a trace of its insides on what it did not expect.
func (a *API) create(w http.ResponseWriter, r *http.Request, _ map[string]any) {
	var order struct{ Customer, Total int }
	if err := json.NewDecoder(r.Body).Decode(&order); err != nil {
		answer(w, 500, map[string]any{"detail": "Traceback (most recent call last):\n  File \"/srv/shop/api/views.py\", line 81, in create\n    order = json.loads(request.body)\njson.decoder.JSONDecodeError: " + err.Error()})
		return
	}
	answer(w, 201, map[string]any{"id": rows + 1, "customer": order.Customer, "total": order.Total})
}

// report waits for a partner that does not answer. There is no deadline.
func report(w http.ResponseWriter, r *http.Request, _ map[string]any) {
	select {
	case <-time.After(2 * time.Minute):
		answer(w, 200, map[string]any{"report": "done"})
	case <-r.Context().Done():
	}
}

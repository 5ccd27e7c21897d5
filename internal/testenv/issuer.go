// Package testenv gives tests real servers to talk to: begin with [NewIssuer]. Everything it starts
// ends with the test. It is for tests only.
package testenv

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// IssuerFault is a way for an issuer to be broken.
type IssuerFault int

// The faults. All but IssuerHealthy apply to every document the issuer serves.
const (
	IssuerHealthy   IssuerFault = iota
	IssuerDown                  // the connection is closed without an answer
	IssuerHangs                 // the request is never answered
	IssuerDrips                 // one byte a second, without end
	IssuerFails                 // 500
	IssuerMoves                 // 302 to a good copy of the document
	IssuerSendsHTML             // 200 with a page
	IssuerSendsHuge             // a good document followed by 10 MiB of space
	IssuerIsEmpty               // 200 with no keys
)

// Issuer is a token issuer: a web server with keys, OIDC discovery, and faults on demand. Its
// methods may be called from any goroutine.
type Issuer struct {
	// URL is the "iss" of its tokens; its documents are below it.
	URL string

	t         testing.TB
	transport http.RoundTripper
	closed    chan struct{}
	fetches   atomic.Int64
	metadata  atomic.Int64
	followed  atomic.Int64

	mu         sync.Mutex
	keys       []issuerKey // published; the last one signs
	encryption *issuerKey  // published, for those who encrypt; nil without
	made       int
	fault      IssuerFault
	maxAge     time.Duration
	claimsTo   string // the issuer that the discovery document names
}

type issuerKey struct {
	kid     string
	private *rsa.PrivateKey
}

// Making a key takes a good part of a second under the race detector, so all issuers of a test
// process begin with the same few.
var issuerKeys = [...]func() *rsa.PrivateKey{
	sync.OnceValue(newRSA), sync.OnceValue(newRSA), sync.OnceValue(newRSA),
}

func newRSA() *rsa.PrivateKey {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) // the system's random source never fails
	}
	return private
}

// NewIssuer starts an issuer on a free loopback port; it ends with the test.
func NewIssuer(t testing.TB) *Issuer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("issuer: %v", err)
	}
	return serveIssuer(t, listener, "http://"+listener.Addr().String(), nil)
}

// NewTLSIssuer starts an issuer at https://host, listening on address. Who verifies its tokens must find
// address under that name, and trust the certificate in certFile.
func NewTLSIssuer(t testing.TB, host, address string) (i *Issuer, certFile string) {
	t.Helper()
	certFile, keyFile, _ := Certificate(t, t.TempDir(), time.Now().Add(time.Hour), host)
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatalf("issuer: %v", err)
	}
	listener, err := tls.Listen("tcp", address, &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Skipf("an issuer at %s, as Clerk's is, needs that port: %v", address, err)
	}
	return serveIssuer(t, listener, "https://"+host, nil), certFile
}

// NewBubbleIssuer starts an issuer for use inside a testing/synctest bubble, where real connections
// would stop the clock. It is reached through [Issuer.Transport] only.
func NewBubbleIssuer(t testing.TB) *Issuer {
	t.Helper()
	listener := newPipeListener()
	transport := &http.Transport{DialContext: listener.dial, DisableKeepAlives: true}
	return serveIssuer(t, listener, "http://issuer.localhost", transport)
}

func serveIssuer(t testing.TB, listener net.Listener, url string, transport http.RoundTripper) *Issuer {
	i := &Issuer{URL: url, t: t, transport: transport, closed: make(chan struct{}), claimsTo: url}
	i.Rotate()
	server := &http.Server{Handler: i.routes(), ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // ErrServerClosed
	}()
	t.Cleanup(func() {
		close(i.closed)
		_ = server.Close()
		<-done
	})
	return i
}

// Transport reaches the issuer; nil means that any transport does.
func (i *Issuer) Transport() http.RoundTripper { return i.transport }

// JWKSURL is where the keys are.
func (i *Issuer) JWKSURL() string { return i.URL + "/.well-known/jwks.json" }

// Fetches counts the requests for keys so far, Discoveries those for the discovery document, and
// Followed those that came by way of a redirect.
func (i *Issuer) Fetches() int     { return int(i.fetches.Load()) }
func (i *Issuer) Discoveries() int { return int(i.metadata.Load()) }
func (i *Issuer) Followed() int    { return int(i.followed.Load()) }

// Break makes the issuer answer with fault from the next request on.
func (i *Issuer) Break(fault IssuerFault) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fault = fault
}

// SetMaxAge makes the issuer send Cache-Control: max-age with the keys; 0 sends none.
func (i *Issuer) SetMaxAge(age time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.maxAge = age
}

// Impersonate makes the discovery document name another issuer.
func (i *Issuer) Impersonate(issuer string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.claimsTo = issuer
}

// Rotate publishes a new key beside the others, signs with it from now on, and returns its id.
func (i *Issuer) Rotate() string {
	i.mu.Lock()
	kid := fmt.Sprintf("key-%d", i.made+1)
	i.mu.Unlock()
	i.AddKey(kid)
	return kid
}

// AddKey is Rotate with an id of the caller's choice.
func (i *Issuer) AddKey(kid string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	private := issuerKeys[min(i.made, len(issuerKeys)-1)]
	if i.made >= len(issuerKeys) {
		private = newRSA
	}
	i.made++
	i.keys = append(i.keys, issuerKey{kid: kid, private: private()})
}

// PublishEncryptionKey puts a key beside the others that is for those who encrypt to the issuer, and signs nothing.
func (i *Issuer) PublishEncryptionKey() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.encryption = &issuerKey{kid: "encryption", private: issuerKeys[len(issuerKeys)-1]()}
}

// RemoveKey takes a key out of the published set. The last key there is signs.
func (i *Issuer) RemoveKey(kid string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	var rest []issuerKey
	for _, key := range i.keys {
		if key.kid != kid {
			rest = append(rest, key)
		}
	}
	i.keys = rest
}

// Mint returns a token that is valid for a minute, with claims put over the usual ones; a nil value
// leaves a claim out.
func (i *Issuer) Mint(claims map[string]any) string {
	now := time.Now().Unix()
	all := map[string]any{
		"iss": i.URL, "sub": "user_1", "sid": "sess_1", "iat": now, "nbf": now, "exp": now + 60,
	}
	for name, value := range claims {
		all[name] = value
		if value == nil {
			delete(all, name)
		}
	}
	payload, err := json.Marshal(all)
	if err != nil {
		i.t.Fatalf("mint: %v", err)
	}
	return i.Sign(fmt.Sprintf(`{"alg":"RS256","kid":%q,"typ":"JWT"}`, i.signer().kid), string(payload))
}

// Sign makes a compact token of any header and payload, with an RS256 signature of the current key.
func (i *Issuer) Sign(header, payload string) string {
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(header)) + "." + encode([]byte(payload))
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(nil, i.signer().private, crypto.SHA256, digest[:])
	if err != nil {
		i.t.Fatalf("sign: %v", err)
	}
	return signed + "." + encode(signature)
}

func (i *Issuer) signer() issuerKey {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.keys[len(i.keys)-1]
}

// JWKS returns the published keys as they are served.
func (i *Issuer) JWKS() []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	encode := base64.RawURLEncoding.EncodeToString
	jwk := func(key issuerKey, use, alg string) map[string]string {
		return map[string]string{
			"kty": "RSA", "use": use, "alg": alg, "kid": key.kid,
			"n": encode(key.private.N.Bytes()), "e": encode(big.NewInt(int64(key.private.E)).Bytes()),
		}
	}
	keys := []map[string]string{}
	for _, key := range i.keys {
		keys = append(keys, jwk(key, "sig", "RS256"))
	}
	if i.encryption != nil {
		keys = append(keys, jwk(*i.encryption, "enc", "RSA-OAEP-256"))
	}
	text, _ := json.Marshal(map[string]any{"keys": keys}) // strings always marshal
	return text
}

// PEM returns the public key that verifies what is signed now, for a verifier without network.
func (i *Issuer) PEM() string {
	der, err := x509.MarshalPKIXPublicKey(&i.signer().private.PublicKey)
	if err != nil {
		i.t.Fatalf("public key: %v", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// PrivatePEM returns the key that signs now, for a program that mints tokens of its own.
func (i *Issuer) PrivatePEM() string {
	der, err := x509.MarshalPKCS8PrivateKey(i.signer().private)
	if err != nil {
		i.t.Fatalf("private key: %v", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func (i *Issuer) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/jwks.json", func(w http.ResponseWriter, r *http.Request) {
		i.fetches.Add(1)
		i.serve(w, r, i.JWKS())
	})
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		i.metadata.Add(1)
		i.mu.Lock()
		issuer := i.claimsTo
		i.mu.Unlock()
		i.serve(w, r, fmt.Appendf(nil, `{"issuer":%q,"jwks_uri":%q}`, issuer, i.JWKSURL()))
	})
	mux.HandleFunc("GET /moved", func(w http.ResponseWriter, _ *http.Request) {
		i.followed.Add(1)
		_, _ = w.Write(i.JWKS())
	})
	return mux
}

// serve answers with document, or as the fault of the moment has it.
func (i *Issuer) serve(w http.ResponseWriter, r *http.Request, document []byte) {
	i.mu.Lock()
	fault, maxAge := i.fault, i.maxAge
	i.mu.Unlock()
	if maxAge > 0 {
		w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(maxAge.Seconds())))
	}
	switch fault {
	case IssuerDown:
		panic(http.ErrAbortHandler)
	case IssuerHangs:
		i.wait(r.Context(), nil)
	case IssuerDrips:
		i.drip(w, r)
	case IssuerFails:
		http.Error(w, "no", http.StatusInternalServerError)
	case IssuerMoves:
		http.Redirect(w, r, "/moved", http.StatusFound)
	case IssuerSendsHTML:
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<!doctype html><title>Login</title>")
	case IssuerSendsHuge:
		_, err := w.Write(document)
		for chunk, n := bytes.Repeat([]byte{' '}, 1<<16), 0; n < 160 && err == nil; n++ {
			_, err = w.Write(chunk)
		}
	case IssuerIsEmpty:
		_, _ = io.WriteString(w, `{"keys":[]}`)
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(document)
	}
}

func (i *Issuer) drip(w http.ResponseWriter, r *http.Request) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for i.wait(r.Context(), ticker.C) {
		_, _ = io.WriteString(w, " ")
		_ = http.NewResponseController(w).Flush()
	}
}

// wait returns true at the next tick, and false when the client or the test is gone.
func (i *Issuer) wait(ctx context.Context, tick <-chan time.Time) bool {
	select {
	case <-tick:
		return true
	case <-ctx.Done():
	case <-i.closed:
	}
	return false
}

// pipeListener is a net.Listener without a network.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept waits for the next dial.
func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and dial.
func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr returns a name that nobody can dial.
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

package probes

import (
	"bytes"
	"compress/flate"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"time"

	"github.com/gantryhq/gantry/audit"
)

func decryption() []audit.Probe {
	return []audit.Probe{
		{
			ID: "JWT-23", Title: "Encrypted token that makes the verifier work", Severity: audit.High, Mode: audit.Active, Category: audit.Identity,
			NeedsCredential: true, Confirms: true,
			Sends:  "five-part tokens with `alg: PBES2-HS256+A128KW` and `p2c` of a thousand and a million, ten million only when a million was felt; where a public RSA key is known, `zip: DEF` around 1 MiB and 64 MiB of blanks",
			Passes: "refused, in a time that does not follow p2c or the size of the plaintext",
			Fails:  "the time grows at least fivefold and by at least a second, the server answers 5xx, or it goes down",
			Guard:  "one request a size, and it stops at growth; what failed is sent once more between two small ones",
			Knobs:  []string{"--token", "--protected-path", "--jwks"},
			Refs:   []string{"CVE-2023-50658", "CVE-2024-28176", "RFC 8725 section 2.7", "CWE-400"},
			Why:    "One small request with a large number in it keeps a core busy for as long as a stranger likes.",
			Fix:    "Disable PBES2, or cap p2c at 10,000 and the size of a decompressed plaintext.",
			Run:    encryptedToken,
		},
	}
}

// heavy is a pair of tokens of which the second asks for far more work than the first.
type heavy struct {
	name         string
	small, large string
	more         string // asks for ten times the work of large; empty when there is no such token
}

func encryptedToken(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	list := []heavy{{"p2c", pbes2(s, 1_000), pbes2(s, 1_000_000), pbes2(s, 10_000_000)}}
	bomb, err := zipBomb(ctx, s)
	if err != nil {
		return audit.Verdict{}, err
	}
	if bomb.small != "" {
		list = append(list, bomb)
	}
	message := ""
	var last *audit.Exchange
	for _, h := range list {
		v, err := weigh(ctx, s, h)
		if err != nil || v.Outcome != audit.Pass {
			return v, err
		}
		message, last = message+v.Message+"; ", v.Evidence[0]
	}
	if len(list) == 1 {
		message += "compressed plaintext was not tried, for want of a public RSA key; "
	}
	return audit.Passed("%s", message[:len(message)-2]).With(last), nil
}

// pbes2 is a token whose key must be derived with p2c rounds before anything in it can be found false (RFC 7518
// section 4.8). Everything after the header is noise.
func pbes2(s *audit.Session, p2c int) string {
	noise := make([]byte, 16+40+16+32+16)
	random := s.Rand()
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	b64 := base64.RawURLEncoding.EncodeToString
	header := fmt.Sprintf(`{"alg":"PBES2-HS256+A128KW","enc":"A128CBC-HS256","p2c":%d,"p2s":"%s"}`, p2c, b64(noise[:16]))
	return b64([]byte(header)) + "." + b64(noise[16:56]) + "." + b64(noise[56:72]) + "." + b64(noise[72:104]) + "." + b64(noise[104:])
}

// weigh compares the time of the two.
func weigh(ctx context.Context, s *audit.Session, h heavy) (audit.Verdict, error) {
	small, err := heft(ctx, s, h.small, "small "+h.name)
	if err != nil {
		return audit.Verdict{}, err
	}
	large, err := heft(ctx, s, h.large, "large "+h.name)
	if err != nil {
		return audit.Verdict{}, err
	}
	if grows(small, large, 50*time.Millisecond) && !grows(small, large, time.Second) && h.more != "" {
		if large, err = heft(ctx, s, h.more, "larger "+h.name); err != nil {
			return audit.Verdict{}, err
		}
	}
	if !brokeDown(small) && !brokeDown(large) && !grows(small, large, time.Second) {
		return audit.Passed("%s: %s for the small one (%d), %s for the large", h.name, rounded(small.Took), small.Status, rounded(large.Took)).With(large), nil
	}
	return reweigh(ctx, s, h, large)
}

// heft sends a token once. A target that goes down over it is a failure, so the end of the connection is no error here.
func heft(ctx context.Context, s *audit.Session, token, label string) (*audit.Exchange, error) {
	return s.Do(ctx, audit.Request{Path: s.Calibration().Path, Token: token, Label: label, Timeout: 2 * hang})
}

// brokeDown leaves out a connection that was closed on a token of many kilobytes: that is how some servers refuse its size.
func brokeDown(x *audit.Exchange) bool {
	return x.Status >= 500 || x.TimedOut() || x.Status == 0 && len(x.Request.Token) < 8<<10
}

func grows(small, large *audit.Exchange, atLeast time.Duration) bool {
	return large.Took >= 5*small.Took && large.Took-small.Took >= atLeast
}

func rounded(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// reweigh repeats what broke or grew, with the valid token and a small one before it.
func reweigh(ctx context.Context, s *audit.Session, h heavy, first *audit.Exchange) (audit.Verdict, error) {
	if err := s.Control(ctx); err != nil {
		return audit.Verdict{}, fmt.Errorf("after an encrypted token (%s): %w", h.name, err)
	}
	small, err := heft(ctx, s, h.small, "small "+h.name)
	if err != nil {
		return audit.Verdict{}, err
	}
	if brokeDown(small) {
		return audit.Failed("an encrypted token is answered like this: %s", small).With(small, first), nil
	}
	again, err := heft(ctx, s, first.Request.Token, first.Request.Label)
	switch {
	case err != nil:
		return audit.Verdict{}, err
	case brokeDown(first) && brokeDown(again):
		return audit.Failed("an encrypted token breaks the server: %s", again).With(again), nil
	case grows(small, again, time.Second):
		return audit.Failed("the time to refuse an encrypted token follows its %s: %s, then %s", h.name, rounded(small.Took), rounded(again.Took)).
			With(small, again).Measured("smallMs", small.Took.Milliseconds()).Measured("largeMs", again.Took.Milliseconds()), nil
	}
	return audit.Unproven("once and not again: %s", first).With(first, again), nil
}

// zipBomb is made with the target's public RSA key, if it has one that may encrypt.
func zipBomb(ctx context.Context, s *audit.Session) (heavy, error) {
	set, err := keySet(ctx, s)
	if err != nil {
		return heavy{}, ctx.Err() // without a key there is no bomb
	}
	for _, k := range set.Keys {
		public, ok := k.Public.(*rsa.PublicKey)
		if !ok || k.Use == "sig" || public.N.BitLen() < 2048 {
			continue
		}
		small, err := zipped(public, k.Kid, 1<<20)
		if err != nil {
			return heavy{}, err
		}
		large, err := zipped(public, k.Kid, 64<<20)
		return heavy{name: "compressed plaintext", small: small, large: large}, err
	}
	return heavy{}, nil
}

// zipped encrypts size blanks, compressed, to the key: RSA-OAEP-256, A256GCM, zip DEF (RFC 7516 section 4.1.3).
func zipped(public *rsa.PublicKey, kid string, size int64) (string, error) {
	var plain bytes.Buffer
	w, err := flate.NewWriter(&plain, flate.BestCompression)
	if err != nil {
		return "", err
	}
	if _, err := io.CopyN(w, blanks{}, size); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	secret := make([]byte, 32+12)
	rand.Read(secret)
	key, nonce := secret[:32], secret[32:]
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, key, nil)
	if err != nil {
		return "", err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return "", err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return "", err
	}
	b64 := base64.RawURLEncoding.EncodeToString
	header := b64(fmt.Appendf(nil, `{"alg":"RSA-OAEP-256","enc":"A256GCM","zip":"DEF","cty":"JWT",%s}`, jsonMember("kid", kid)))
	sealed := gcm.Seal(nil, nonce, plain.Bytes(), []byte(header))
	body, tag := sealed[:len(sealed)-16], sealed[len(sealed)-16:]
	return header + "." + b64(wrapped) + "." + b64(nonce) + "." + b64(body) + "." + b64(tag), nil
}

// blanks without end.
type blanks struct{}

func (blanks) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

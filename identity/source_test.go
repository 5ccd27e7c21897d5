package identity_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantryhq/gantry/identity"
	"github.com/gantryhq/gantry/internal/testenv"
)

// These tests run in a bubble: its clock moves only when everything waits, so hours pass at once
// and every duration measured is exact.

// bubble starts an issuer and a verifier of its tokens. With run, the verifier refreshes its keys in
// the background, and has tried once when body begins.
func bubble(t *testing.T, run bool, body func(*testing.T, *testenv.Issuer, *identity.Verifier)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		issuer := testenv.NewBubbleIssuer(t)
		v := newVerifier(t, issuer, identity.Issuer{})
		if run {
			running(t, v)
			synctest.Wait()
		}
		body(t, issuer, v)
	})
}

func newVerifier(t *testing.T, issuer *testenv.Issuer, rules identity.Issuer) *identity.Verifier {
	t.Helper()
	rules.URL = issuer.URL
	v, err := identity.New([]identity.Issuer{rules}, identity.Config{Transport: issuer.Transport()})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// running runs v until the test ends, and waits for it then.
func running(t *testing.T, v *identity.Verifier) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- v.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

// accepted says whether token passes, by the cache or by verification, as the middleware does it.
func accepted(t *testing.T, v *identity.Verifier, token string) bool {
	t.Helper()
	return verdict(t, v, token) == nil
}

// verdict is accepted with the reason why not. No caller may wait for more than a second.
func verdict(t *testing.T, v *identity.Verifier, token string) error {
	t.Helper()
	if _, ok := v.Cached(token); ok {
		return nil
	}
	start := time.Now()
	_, err := v.Verify(t.Context(), token)
	if waited := time.Since(start); waited > time.Second {
		t.Errorf("a request waited %v, want at most 1s", waited)
	}
	return err
}

func isUnavailable(err error) bool {
	unavailable, ok := errors.AsType[*identity.Unavailable](err)
	return ok && unavailable.RetryAfter >= time.Second && unavailable.RetryAfter <= 30*time.Second
}

func isRefused(err error, reason identity.Reason) bool {
	refusal, ok := errors.AsType[*identity.Refusal](err)
	return ok && refusal.Reason == reason
}

// withKid is a token of an unknown key; what it is signed with does not matter.
func withKid(issuer *testenv.Issuer, kid string) string {
	now := time.Now().Unix()
	return issuer.Sign(fmt.Sprintf(`{"alg":"RS256","kid":%q}`, kid),
		fmt.Sprintf(`{"iss":%q,"sub":"u","exp":%d}`, issuer.URL, now+3600))
}

// forger makes tokens with as many different key ids as one likes, without signing each.
func forger(issuer *testenv.Issuer) func(n int) string {
	token := withKid(issuer, "x")
	_, rest, _ := strings.Cut(token, ".")
	return func(n int) string { return encode(fmt.Sprintf(`{"alg":"RS256","kid":"random-%d"}`, n)) + "." + rest }
}

func TestUnknownKeysCauseFewFetches(t *testing.T) {
	bubble(t, true, func(t *testing.T, issuer *testenv.Issuer, v *identity.Verifier) {
		valid, forged := issuer.Mint(map[string]any{"exp": time.Now().Unix() + 3600}), forger(issuer)
		before := issuer.Fetches()
		for n := range 10_000 { // in 29 seconds
			if err := verdict(t, v, forged(n)); !isRefused(err, identity.UnknownKey) {
				t.Fatalf("token %d: %v, want it refused for its key", n, err)
			}
			if !accepted(t, v, valid) {
				t.Fatal("the valid caller is refused")
			}
			time.Sleep(2900 * time.Microsecond)
		}
		if got := issuer.Fetches() - before; got > 2 {
			t.Errorf("%d fetches for 10,000 unknown keys, want 2 at most", got)
		}
	})
}

func TestUnknownKeysFromManyCallersShareOneFetch(t *testing.T) {
	for name, run := range map[string]bool{"with Run": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, run, func(t *testing.T, issuer *testenv.Issuer, v *identity.Verifier) {
				before, forged := issuer.Fetches(), forger(issuer)
				var callers sync.WaitGroup
				for n := range 1000 {
					callers.Go(func() { _ = verdict(t, v, forged(n)) })
				}
				callers.Wait()
				if got := issuer.Fetches() - before; got != 1 {
					t.Errorf("%d fetches, want 1", got)
				}
			})
		})
	}
}

func TestARepeatedUnknownKeyIsAskedForOnceIn30Seconds(t *testing.T) {
	bubble(t, true, func(t *testing.T, issuer *testenv.Issuer, v *identity.Verifier) {
		before, token := issuer.Fetches(), withKid(issuer, "retired")
		const seconds = 300
		for range seconds {
			if err := verdict(t, v, token); !isRefused(err, identity.UnknownKey) {
				t.Fatalf("%v, want it refused for its key", err)
			}
			time.Sleep(time.Second)
		}
		if got, want := issuer.Fetches()-before, seconds/30; got > want {
			t.Errorf("%d fetches in %d s, want %d at most", got, seconds, want)
		}
	})
}

func TestAForgedSignatureNeverCausesAFetch(t *testing.T) {
	bubble(t, true, func(t *testing.T, issuer *testenv.Issuer, v *identity.Verifier) {
		before, token := issuer.Fetches(), issuer.Mint(nil)
		forged := token[:len(token)-8] + "AAAAAAAA"
		for range 100 {
			if err := verdict(t, v, forged); !isRefused(err, identity.BadSignature) {
				t.Fatalf("%v, want a bad signature", err)
			}
		}
		if got := issuer.Fetches() - before; got != 0 {
			t.Errorf("%d fetches, want none", got)
		}
	})
}

var outages = map[string]testenv.IssuerFault{
	"down": testenv.IssuerDown, "hanging": testenv.IssuerHangs, "dripping": testenv.IssuerDrips,
	"500": testenv.IssuerFails, "302": testenv.IssuerMoves, "HTML": testenv.IssuerSendsHTML,
	"10 MiB": testenv.IssuerSendsHuge, "empty set": testenv.IssuerIsEmpty,
}

func TestKnownKeysOutliveAnOutage(t *testing.T) {
	for name, fault := range outages {
		for _, run := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, Run %v", name, run), func(t *testing.T) {
				bubble(t, run, func(t *testing.T, issuer *testenv.Issuer, v *identity.Verifier) {
					if !accepted(t, v, issuer.Mint(nil)) {
						t.Fatal("a good token is refused before the outage")
					}
					issuer.Break(fault)
					throughOutage(t, issuer, v)
					issuer.Break(testenv.IssuerHealthy)
					time.Sleep(time.Minute + 5*time.Second) // the longest pause between attempts
					if err := verdict(t, v, withKid(issuer, "unknown")); !isRefused(err, identity.UnknownKey) {
						t.Errorf("an unknown key after the outage: %v", err)
					}
					if st := v.Status()[0]; st.LastError != "" || st.Stale {
						t.Errorf("status after the outage = %+v", st)
					}
				})
			})
		}
	}
}

// throughOutage spends five hours with a broken issuer.
func throughOutage(t *testing.T, issuer *testenv.Issuer, v *identity.Verifier) {
	t.Helper()
	for minute := 0; minute < 5*60; minute += 5 {
		if err := verdict(t, v, issuer.Mint(map[string]any{"sub": fmt.Sprint("user_", minute)})); err != nil {
			t.Fatalf("minute %d: a known key: %v", minute, err)
		}
		if minute > 90 {
			if err := verdict(t, v, withKid(issuer, fmt.Sprint("new-", minute))); !isUnavailable(err) {
				t.Fatalf("minute %d: an unknown key: %v, want it unavailable", minute, err)
			}
		}
		time.Sleep(5 * time.Minute)
	}
	if st := v.Status()[0]; !st.Stale || st.LastError == "" || st.Keys != 1 {
		t.Errorf("status in the outage = %+v", st)
	}
	if got := issuer.Followed(); got != 0 {
		t.Errorf("%d redirects followed, want none", got)
	}
}

func TestNobodyWaitsForAHangingIssuer(t *testing.T) {
	bubble(t, true, func(t *testing.T, issuer *testenv.Issuer, v *identity.Verifier) {
		valid := issuer.Mint(map[string]any{"exp": time.Now().Unix() + 3600})
		issuer.Break(testenv.IssuerHangs)
		start, forged := time.Now(), forger(issuer)
		var callers sync.WaitGroup
		for n := range 200 {
			callers.Go(func() {
				if err := verdict(t, v, forged(n)); !isUnavailable(err) {
					t.Errorf("%v, want it unavailable", err)
				}
			})
		}
		callers.Go(func() {
			if before := time.Now(); !accepted(t, v, valid) || time.Since(before) != 0 {
				t.Errorf("the valid caller waited %v", time.Since(before))
			}
		})
		callers.Wait()
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("they waited %v, want the one second", waited)
		}
		late := time.Now()
		if err := verdict(t, v, forged(1000)); !isUnavailable(err) || time.Since(late) != 0 {
			t.Errorf("a late caller waited %v and got %v, want an answer at once", time.Since(late), err)
		}
	})
}

// What a fetch has just ruled out needs no second look, even while the next one is slow.
func TestAnAbsentKeyIsRefusedDuringASlowRefresh(t *testing.T) {
	bubble(t, false, func(t *testing.T, issuer *testenv.Issuer, v *identity.Verifier) {
		token := withKid(issuer, "unknown")
		if err := verdict(t, v, token); !isRefused(err, identity.UnknownKey) {
			t.Fatalf("%v, want it refused for its key", err)
		}
		issuer.Break(testenv.IssuerHangs)
		ended := make(chan error)
		go func() { ended <- v.Refresh(t.Context()) }()
		synctest.Wait()
		start := time.Now()
		if err := verdict(t, v, token); !isRefused(err, identity.UnknownKey) || time.Since(start) != 0 {
			t.Errorf("%v after %v, want it refused for its key at once", err, time.Since(start))
		}
		<-ended
	})
}

// A key that is gone stops verifying within the soft TTL, however busy it is.
func TestARemovedKeyDiesUnderConstantTraffic(t *testing.T) {
	for name, c := range map[string]struct {
		run    bool
		maxAge time.Duration
	}{
		"with Run":                   {true, 0},
		"with Run, max-age a year":   {true, 365 * 24 * time.Hour},
		"without Run":                {false, 0},
		"without Run, max-age a day": {false, 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, c.run, func(t *testing.T, issuer *testenv.Issuer, v *identity.Verifier) {
				issuer.SetMaxAge(c.maxAge)
				exp := map[string]any{"exp": time.Now().Unix() + 12*3600}
				token := issuer.Mint(exp)
				if !accepted(t, v, token) {
					t.Fatal("a good token is refused")
				}
				time.Sleep(11 * time.Minute) // let the first max-age take effect
				issuer.Rotate()
				issuer.RemoveKey("key-1")
				removed := time.Now()
				for accepted(t, v, token) {
					if time.Since(removed) > time.Hour {
						t.Fatal("the token is still accepted an hour after its key was removed")
					}
					time.Sleep(time.Second)
				}
				if !accepted(t, v, issuer.Mint(exp)) {
					t.Error("the new key is not accepted")
				}
				time.Sleep(time.Minute)
				if err := verdict(t, v, token); !isRefused(err, identity.UnknownKey) {
					t.Errorf("later: %v, want it refused for its key", err)
				}
			})
		})
	}
}

// What a key verified stays known while the key stays, through any number of refreshes.
func TestARefreshKeepsTheCache(t *testing.T) {
	bubble(t, true, func(t *testing.T, issuer *testenv.Issuer, v *identity.Verifier) {
		token := issuer.Mint(map[string]any{"exp": time.Now().Unix() + 12*3600})
		if !accepted(t, v, token) {
			t.Fatal("a good token is refused")
		}
		before := issuer.Fetches()
		for range 4 * 60 {
			time.Sleep(time.Minute)
			if _, ok := v.Cached(token); !ok {
				t.Fatal("the token is forgotten")
			}
		}
		if got := issuer.Fetches() - before; got < 20 || got > 28 {
			t.Errorf("%d refreshes in 4 hours, want one in about 10 minutes", got)
		}
	})
}

func TestANewKeyIsFoundWithoutARestart(t *testing.T) {
	bubble(t, true, func(t *testing.T, issuer *testenv.Issuer, v *identity.Verifier) {
		_ = verdict(t, v, withKid(issuer, "used up")) // the worst case: the fetch has just been spent
		time.Sleep(time.Millisecond)
		issuer.Rotate()
		rotated := time.Now()
		token := issuer.Mint(map[string]any{"exp": time.Now().Unix() + 3600})
		for !accepted(t, v, token) {
			if time.Since(rotated) > 30*time.Second {
				t.Fatal("the new key is not known 30 s after the rotation")
			}
			time.Sleep(250 * time.Millisecond)
		}
	})
}

func TestKeysThatNeverCameAre503(t *testing.T) {
	for name, fault := range outages {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				issuer := testenv.NewBubbleIssuer(t)
				issuer.Break(fault)
				v := newVerifier(t, issuer, identity.Issuer{})
				running(t, v)
				token := issuer.Mint(map[string]any{"exp": time.Now().Unix() + 3600})
				for range 600 {
					if err := verdict(t, v, token); !isUnavailable(err) {
						t.Fatalf("%v, want it unavailable", err)
					}
					time.Sleep(time.Second)
				}
				if st := v.Status()[0]; st.Keys != 0 || st.LastError == "" {
					t.Errorf("status = %+v", st)
				}
				if got := issuer.Fetches(); got < 10 || got > 60 {
					t.Errorf("%d attempts in 10 minutes, want more and more patient ones", got)
				}
				issuer.Break(testenv.IssuerHealthy)
				time.Sleep(time.Minute + 5*time.Second)
				if !accepted(t, v, issuer.Mint(nil)) {
					t.Error("a good token is refused after the outage")
				}
			})
		})
	}
}

func TestKeysOlderThanADayAre503(t *testing.T) {
	for _, run := range []bool{true, false} {
		bubble(t, run, func(t *testing.T, issuer *testenv.Issuer, v *identity.Verifier) {
			token := issuer.Mint(map[string]any{"exp": time.Now().Unix() + 48*3600})
			if !accepted(t, v, token) {
				t.Fatal("a good token is refused")
			}
			issuer.Break(testenv.IssuerFails)
			last := time.Now() // the fetch has taken no time in here
			for time.Since(last) <= 24*time.Hour-time.Minute {
				if err := verdict(t, v, token); err != nil {
					t.Fatalf("after %v: %v", time.Since(last), err)
				}
				time.Sleep(time.Minute)
			}
			time.Sleep(2 * time.Minute)
			if err := verdict(t, v, token); !isUnavailable(err) {
				t.Errorf("after a day: %v, want it unavailable", err)
			}
			if st := v.Status()[0]; st.Keys != 0 {
				t.Errorf("status after a day = %+v, want no keys", st)
			}
			issuer.Break(testenv.IssuerHealthy)
			time.Sleep(time.Minute + 5*time.Second)
			if !accepted(t, v, token) {
				t.Error("a good token is refused after the outage")
			}
		})
	}
}

// Two issuers may use the same key id; each answers for its own tokens only.
func TestKeyIDsBelongToTheirIssuer(t *testing.T) {
	a, b := testenv.NewIssuer(t), testenv.NewIssuer(t)
	b.Rotate()
	b.RemoveKey("key-1")
	b.RemoveKey("key-2")
	b.AddKey("key-1") // the name of a's key, and not its key
	v, err := identity.New([]identity.Issuer{{URL: a.URL}, {URL: b.URL}}, identity.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, issuer := range []*testenv.Issuer{a, b} {
		if p, err := v.Verify(t.Context(), issuer.Mint(nil)); err != nil || p.Issuer != issuer.URL {
			t.Errorf("%s: %v, %v", issuer.URL, p, err)
		}
	}
	if _, err := v.Verify(t.Context(), a.Mint(map[string]any{"iss": b.URL})); !isRefused(err, identity.BadSignature) {
		t.Errorf("a token of a in b's name: %v, want a bad signature", err)
	}
}

func TestDiscoveryMustNameTheVeryIssuer(t *testing.T) {
	for _, named := range []string{"", "http://evil.localhost", "http://issuer.localhost/", "http://ISSUER.localhost"} {
		synctest.Test(t, func(t *testing.T) {
			issuer := testenv.NewBubbleIssuer(t)
			v := newVerifier(t, issuer, identity.Issuer{Profile: identity.OIDC, Audience: "api"})
			token := issuer.Mint(map[string]any{"aud": "api"})
			issuer.Impersonate(named)
			if err := v.Refresh(t.Context()); err == nil || issuer.Fetches() != 0 {
				t.Errorf("%q: Refresh = %v after %d fetches, want an error before the first", named, err, issuer.Fetches())
			}
			if err := verdict(t, v, token); !isUnavailable(err) {
				t.Errorf("%q: %v, want it unavailable", named, err)
			}
			issuer.Impersonate(issuer.URL)
			time.Sleep(31 * time.Second)
			if err := verdict(t, v, token); err != nil {
				t.Errorf("after the repair: %v", err)
			}
		})
	}
}

func TestDiscoveryIsReadOnceAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := testenv.NewBubbleIssuer(t)
		v := newVerifier(t, issuer, identity.Issuer{Profile: identity.OIDC, Audience: "api"})
		running(t, v)
		time.Sleep(4*time.Hour + 30*time.Minute)
		if got := issuer.Discoveries(); got < 4 || got > 5 {
			t.Errorf("%d readings in 4.5 hours, want 4 or 5", got)
		}
		if got := issuer.Fetches(); got < 24 {
			t.Errorf("%d fetches of keys in 4.5 hours, want one in about 10 minutes", got)
		}
	})
}

func TestRunEndsAtOnceEvenInTheMiddleOfAFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := testenv.NewBubbleIssuer(t)
		issuer.Break(testenv.IssuerHangs)
		v := newVerifier(t, issuer, identity.Issuer{})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		if err := v.Run(ctx); err != nil || time.Since(start) != time.Second {
			t.Errorf("Run = %v after %v, want nil after 1s", err, time.Since(start))
		}
		if err := verdict(t, v, issuer.Mint(nil)); !isUnavailable(err) {
			t.Errorf("after Run: %v, want it unavailable", err)
		}
	})
}

func TestRefreshTellsWhatIsWrong(t *testing.T) {
	want := map[string]string{
		"down": "unreachable", "hanging": "timeout", "dripping": "timeout", "500": "bad-status",
		"302": "bad-status", "HTML": "bad-keys", "10 MiB": "too-large", "empty set": "bad-keys",
	}
	for name, fault := range outages {
		bubble(t, false, func(t *testing.T, issuer *testenv.Issuer, v *identity.Verifier) {
			issuer.Break(fault)
			start := time.Now()
			err := v.Refresh(t.Context())
			if got := v.Status()[0].LastError; err == nil || got != want[name] {
				t.Errorf("%s: Refresh = %v, kind %q, want kind %q", name, err, got, want[name])
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("%s: the attempt took %v, want 5s at most", name, took)
			}
		})
	}
}

// On a real network, with the transport that production uses.
func TestKeysComeOverARealConnection(t *testing.T) {
	issuer := testenv.NewIssuer(t)
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	v := newVerifier(t, issuer, identity.Issuer{})
	if err := v.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !accepted(t, v, issuer.Mint(nil)) {
		t.Error("a good token is refused")
	}
	issuer.Break(testenv.IssuerMoves)
	if err := v.Refresh(t.Context()); err == nil || issuer.Followed() != 0 {
		t.Errorf("Refresh = %v, %d redirects followed, want an error and none", err, issuer.Followed())
	}
	issuer.Break(testenv.IssuerSendsHuge)
	if err := v.Refresh(t.Context()); err == nil {
		t.Error("10 MiB are read")
	}
}

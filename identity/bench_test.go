package identity

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// clerkToken is of the size and kind that browsers send.
func clerkToken(b *testing.B, n int) string {
	return mint(b, time.Now(), map[string]any{
		"sub": fmt.Sprintf("user_2abcdefghijklmnopqrstuv%04d", n), "sid": "sess_2abcdefghijklmnopqrstuvwxyz",
		"azp": "https://app.example.com", "exp": time.Now().Unix() + 3600, "v": 2, "fva": []int{7, -1},
		"jti": "0123456789abcdef", "pla": "o:pro", "sts": "active", "fea": "o:dashboard,o:teams",
		"o": map[string]any{"id": "org_2abc", "slg": "acme", "rol": "admin", "per": "manage,read", "fpm": "3,2"},
	})
}

func BenchmarkCachedHit(b *testing.B) {
	v := staticVerifier(b, Config{})
	tokens := make([]string, 1000)
	for n := range tokens {
		tokens[n] = clerkToken(b, n)
		if _, err := v.Verify(b.Context(), tokens[n]); err != nil {
			b.Fatal(err)
		}
	}
	fresh := make([]string, len(tokens)) // as from the wire: equal, but not the same memory
	for n := range tokens {
		fresh[n] = strings.Clone(tokens[n])
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if _, ok := v.Cached(fresh[n%len(fresh)]); !ok {
			b.Fatal("not known")
		}
		n++
	}
}

func BenchmarkCachedHitParallel(b *testing.B) {
	v := staticVerifier(b, Config{})
	token := clerkToken(b, 0)
	if _, err := v.Verify(b.Context(), token); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			v.Cached(token)
		}
	})
}

func BenchmarkVerifyMiss(b *testing.B) {
	v := staticVerifier(b, Config{CacheEntries: -1})
	token := clerkToken(b, 0)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRefuse(b *testing.B) {
	v := staticVerifier(b, Config{})
	token := clerkToken(b, 0)
	for name, garbage := range map[string]string{
		"1MiBOfDots":   strings.Repeat(".", 1<<20),
		"8KiBOfDots":   strings.Repeat(".", 8<<10),
		"8KiBOneDot":   strings.Repeat("a", 8000) + ".b.c",
		"Forged":       token[:len(token)-4] + "AAAA",
		"DeepClaims":   segment(testHeader) + "." + segment(strings.Repeat(`{"a":`, 1000)) + ".c2ln",
		"ManyClaims":   segment(testHeader) + "." + segment("{"+manyNames(500)+"}") + ".c2ln",
		"Expired":      mint(b, time.Now().Add(-time.Hour), nil),
		"UnknownIssue": mint(b, time.Now(), map[string]any{"iss": "https://evil.test"}),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), garbage); err == nil {
					b.Fatal("accepted")
				}
			}
		})
	}
}

package rollout

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestBucketsAreThoseOfHMAC(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		salt := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "salt")
		key := rapid.StringN(0, 300, -1).Draw(t, "key")
		mac := hmac.New(sha256.New, salt)
		mac.Write([]byte(key))
		// floor(x * 10000 / 2^64), exactly
		x := new(big.Int).SetUint64(binary.BigEndian.Uint64(mac.Sum(nil)))
		want := x.Mul(x, big.NewInt(10_000)).Rsh(x, 64).Int64()
		buckets := NewBuckets(salt)
		for range 2 { // the second time with a hasher that was used
			if got := buckets.Of(key); int64(got) != want {
				t.Fatalf("Of(%q) = %d, want %d", key, got, want)
			}
		}
	})
}

func TestBucketsAreEven(t *testing.T) {
	buckets, seen := NewBuckets([]byte("salt")), make([]float64, 100)
	const n = 200_000
	for i := range n {
		seen[buckets.Of(fmt.Sprint("user_", i))/100]++
	}
	chi := 0.0
	for _, count := range seen {
		chi += (count - n/100) * (count - n/100) / (n / 100)
	}
	// 99 degrees of freedom: mean 99, standard deviation 14.
	if limit := 99 + 5*math.Sqrt(2*99); chi > limit {
		t.Errorf("chi squared over 100 classes = %.0f, want it below %.0f", chi, limit)
	}
}

func TestNobodyAtZeroAndEverybodyAtAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bucket := NewBuckets(rapid.SliceOf(rapid.Byte()).Draw(t, "salt")).Of(rapid.String().Draw(t, "caller"))
		if bucket < 0 || bucket >= All {
			t.Fatalf("bucket = %d, want 0 to 9999", bucket)
		}
		if got := Choose(0, bucket); got != Stable {
			t.Errorf("at 0 %% bucket %d goes to %v", bucket, got)
		}
		if got := Choose(All, bucket); got != Candidate {
			t.Errorf("at 100 %% bucket %d goes to %v", bucket, got)
		}
		if got := Choose(Launch{}.Weight, bucket); got != Stable {
			t.Errorf("without a launch bucket %d goes to %v", bucket, got)
		}
	})
}

func TestWhoIsInStaysInWhileWeightsRise(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bucket := NewBuckets([]byte("salt")).Of(rapid.String().Draw(t, "caller"))
		low := BasisPoints(rapid.Int32Range(0, int32(All)).Draw(t, "low"))
		high := BasisPoints(rapid.Int32Range(int32(low), int32(All)).Draw(t, "high"))
		if Choose(low, bucket) == Candidate && Choose(high, bucket) != Candidate {
			t.Errorf("bucket %d is in at %v and out at %v", bucket, low, high)
		}
	})
}

func TestANewLaunchPicksOtherUsersFirst(t *testing.T) {
	first, second := NewBuckets([]byte("launch 1")), NewBuckets([]byte("launch 2"))
	const n, weight = 20_000, 1000
	both := 0
	for i := range n {
		user := fmt.Sprint("user_", i)
		if Choose(weight, first.Of(user)) == Candidate && Choose(weight, second.Of(user)) == Candidate {
			both++
		}
	}
	// 10 % of 10 %, give or take five standard deviations (14).
	if both < 200-70 || both > 200+70 {
		t.Errorf("%d of %d users are among the first 10 %% of both launches, want about 200", both, n)
	}
}

func TestPercentages(t *testing.T) {
	for in, want := range map[string]BasisPoints{
		"0": 0, "10": 1000, "10%": 1000, "0.25 %": 25, "0.5": 50, "99.99%": 9999, "100": All, "2.": 200, " 7 ": 700,
	} {
		got, err := ParsePercent(in)
		if err != nil || got != want {
			t.Errorf("ParsePercent(%q) = %d, %v, want %d", in, got, err, want)
		}
		if again, err := ParsePercent(got.String()); err != nil || again != got {
			t.Errorf("ParsePercent(%q) = %d, %v, want %d", got.String(), again, err, got)
		}
	}
	for _, in := range []string{"", "%", "-1", "+1", "100.01", "101", "0.001", "1e1", "ten", ".5", "1.-5", "NaN", "10%%"} {
		if got, err := ParsePercent(in); err == nil {
			t.Errorf("ParsePercent(%q) = %d, want an error", in, got)
		}
	}
}

func TestChoosingAndCountingDoNotAllocate(t *testing.T) {
	buckets, meter := NewBuckets([]byte("salt")), NewMeter(1)
	for _, key := range []string{"user_2abcdefghijklmnopqrstuvwxyz", strings.Repeat("long", 1000)} {
		got := testing.AllocsPerRun(1000, func() {
			caller := buckets.Of(key)
			meter.Count(Choose(1000, caller), caller, Outcome{Failed: caller%2 == 0, Slow: true})
		})
		if got != 0 {
			t.Errorf("a request of a caller of %d bytes costs %v allocations, want 0", len(key), got)
		}
	}
}

func BenchmarkBucket(b *testing.B) {
	buckets := NewBuckets([]byte("0123456789abcdef0123456789abcdef"))
	b.ReportAllocs()
	for b.Loop() {
		buckets.Of("user_2abcdefghijklmnopqrstuvwxyz")
	}
}

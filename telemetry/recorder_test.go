package telemetry

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func keep(rec *Recorder, r *Request) { rec.Record(r.Outcome, func(q *Request) { *q = *r }) }

func TestARequestIsFoundAsItWas(t *testing.T) {
	rec := NewRecorder(RecorderConfig{})
	want := request("A", 429)
	want.Decision = "quota:user"
	keep(rec, want)
	keep(rec, request("B", 200))
	got, ok := rec.Find("A")
	if !ok {
		t.Fatal("it is not found")
	}
	if diff := cmp.Diff(*want, got, cmp.AllowUnexported(Items[Step]{}, Items[Limit]{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if _, ok := rec.Find("C"); ok {
		t.Error("a request that never was is found")
	}
}

func TestTheJSONOfARequestComesBackAsItWas(t *testing.T) {
	want := request("A", 200)
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Request
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Steps.All(), got.Steps.All()); diff != "" || got.Duration != want.Duration || got.Limits.All()[0] != want.Limits.All()[0] {
		t.Errorf("%s: %s", text, diff)
	}
	for _, secret := range []string{want.SpanID, want.CallID} {
		if strings.Contains(string(text), secret) {
			t.Errorf("the JSON has %q: %s", secret, text)
		}
	}
}

// TestOneKindOfAnswerDoesNotPushOutAnother floods the recorder with good answers and with refusals.
func TestOneKindOfAnswerDoesNotPushOutAnother(t *testing.T) {
	rec := NewRecorder(RecorderConfig{Size: 64})
	keep(rec, request("failed", 500))
	slow := request("slow", 200)
	slow.Duration = 2000 * ms
	keep(rec, slow)
	refused := request("refused", 401)
	refused.Decision = "token:expired"
	keep(rec, refused)
	for i := range 10_000 {
		keep(rec, request(fmt.Sprint("fine", i), 200))
	}
	for _, id := range []string{"failed", "slow", "refused", "fine9999", "fine9996"} {
		if _, ok := rec.Find(id); !ok {
			t.Errorf("%s is forgotten", id)
		}
	}
	if _, ok := rec.Find("fine9995"); ok {
		t.Error("more good answers are kept than a sixteenth of 64")
	}
	for i := range 10_000 {
		refused.ID = fmt.Sprint("refused", i)
		keep(rec, refused)
	}
	if _, ok := rec.Find("failed"); !ok {
		t.Error("refusals push out what failed")
	}
	if _, ok := rec.Find("refused"); ok {
		t.Error("the first of 10,001 refusals is still there: the ring has no end")
	}
}

func TestTheLastRequestsComeNewestFirst(t *testing.T) {
	rec := NewRecorder(RecorderConfig{})
	for i, status := range []int{200, 429, 500, 404, 401} {
		r := request(fmt.Sprint(i), status)
		r.Start = start.Add(time.Duration(i) * time.Second)
		if status == 429 || status == 401 {
			r.Decision = "the door's"
		}
		keep(rec, r)
	}
	ids := func(list []Request) (s string) {
		for _, r := range list {
			s += r.ID
		}
		return s
	}
	if got := ids(rec.Last(3, false)); got != "432" {
		t.Errorf("the last three are %s, want 432", got)
	}
	if got := ids(rec.Last(20, true)); got != "421" {
		t.Errorf("the last refused are %s, want 421: an upstream's own 404 is no refusal", got)
	}
}

func TestTheRecordersMemoryIsFixed(t *testing.T) {
	rec := NewRecorder(RecorderConfig{})
	if n := rec.Bytes(); n > 8<<20 {
		t.Errorf("4,096 requests take %d bytes, want at most 8 MiB", n)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 3 * 4096 {
		r := request(fmt.Sprint(i), 200+300*(i%2))
		r.Path = "/" + strings.Repeat("x", 30_000)
		r.Host, r.Method = strings.Repeat("h", 30_000), strings.Repeat("M", 30_000)
		keep(rec, r)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 1<<20 {
		t.Errorf("long paths keep %d bytes alive beside the ring", grown)
	}
	r, _ := rec.Find(fmt.Sprint(3*4096 - 1))
	if len(r.Path) > maxPath+3 || len(r.Host) > maxHost+3 || r.TraceID == "" {
		t.Errorf("a path of %d and a host of %d bytes are kept", len(r.Path), len(r.Host))
	}
}

func TestRecordingAllocatesNothing(t *testing.T) {
	rec, r := NewRecorder(RecorderConfig{}), request("A", 200)
	if n := testing.AllocsPerRun(1000, func() { keep(rec, r) }); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
}

func TestManyMayRecordAndReadAtOnce(t *testing.T) {
	rec := NewRecorder(RecorderConfig{Size: 16})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 500 {
				keep(rec, request(fmt.Sprint(i), 200+i*50))
				rec.Find("1")
				rec.Last(math.MaxInt, true)
			}
		})
	}
	all.Wait()
}

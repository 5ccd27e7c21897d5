package probes

import (
	"testing"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/load"
)

// The default load must be enough to pass: three windows of 34 s at 20 requests a second with no failure.
func TestDefaultLoadCanProveTheSuccessCriteria(t *testing.T) {
	p := audit.Policy{}.WithDefaults()
	n := int64(p.Rate * 3 * p.LoadWindow.Seconds())
	window := load.Window{Sent: n / 3, Answered: n / 3, Served: n / 3}
	for range n / 3 {
		window.Latency.Record(3 * time.Millisecond)
	}
	all := window
	all.Sent, all.Answered, all.Served = n, n, n
	if v := judgeLoad(p, load.Result{Window: all}, window); v.Outcome != audit.Pass {
		t.Errorf("none of %d failed: %s (%s), want pass", n, v.Outcome, v.Message)
	}
	all.Failed, all.Served = n/200, n-n/200
	if v := judgeLoad(p, load.Result{Window: all}, window); v.Outcome != audit.Fail {
		t.Errorf("1 of 200 failed: %s (%s), want fail", v.Outcome, v.Message)
	}
	all.Failed, all.Served = 2, n-2
	if v := judgeLoad(p, load.Result{Window: all}, window); v.Outcome != audit.Inconclusive {
		t.Errorf("2 of %d failed: %s (%s), want inconclusive", n, v.Outcome, v.Message)
	}
}

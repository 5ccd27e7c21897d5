package observe_test

import (
	"errors"
	"testing"

	"github.com/gantryhq/gantry/audit/observe"
)

func TestTheZeroVerdictIsUnknown(t *testing.T) {
	var v observe.Verdict
	if v.Outcome != observe.Unknown || v.Outcome.String() != "unknown" {
		t.Errorf("the zero outcome is %v, want unknown", v.Outcome)
	}
	if got := observe.Pass.String() + " " + observe.Fail.String(); got != "pass fail" {
		t.Errorf("outcomes are named %q, want pass fail", got)
	}
}

func TestRedactTakesTheSecretOut(t *testing.T) {
	err := errors.New("login of bob with s3cret: s3cret is wrong")
	if got, want := observe.Redact(err, "s3cret"), "login of bob with [redacted]: [redacted] is wrong"; got != want {
		t.Errorf("Redact = %q, want %q", got, want)
	}
	if got := observe.Redact(err, ""); got != err.Error() {
		t.Errorf("Redact without a secret = %q, want the text", got)
	}
}

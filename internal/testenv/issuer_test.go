package testenv_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantryhq/gantry/internal/testenv"
	"go.uber.org/goleak"
)

// fetch gets a document of the issuer with a patience of three and a half seconds.
func fetch(t *testing.T, issuer *testenv.Issuer, path string) (int, string, error) {
	t.Helper()
	client := &http.Client{
		Transport:     issuer.Transport(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, issuer.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Close = true
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

const jwksPath = "/.well-known/jwks.json"

func keyIDs(t *testing.T, text string) string {
	t.Helper()
	var set struct{ Keys []struct{ Kid string } }
	if err := json.Unmarshal([]byte(text), &set); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, key := range set.Keys {
		ids = append(ids, key.Kid)
	}
	return strings.Join(ids, " ")
}

func TestIssuerServesAndRotatesItsKeys(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	issuer := testenv.NewIssuer(t)
	issuer.Rotate()
	if _, text, err := fetch(t, issuer, jwksPath); err != nil || keyIDs(t, text) != "key-1 key-2" {
		t.Errorf("keys = %s, %v", text, err)
	}
	issuer.RemoveKey("key-1")
	if _, text, err := fetch(t, issuer, jwksPath); err != nil || keyIDs(t, text) != "key-2" {
		t.Errorf("keys after the removal = %s, %v", text, err)
	}
	if _, text, err := fetch(t, issuer, "/.well-known/openid-configuration"); err != nil || !strings.Contains(text, `"issuer":"`+issuer.URL+`"`) {
		t.Errorf("discovery = %s, %v", text, err)
	}
	if f, d := issuer.Fetches(), issuer.Discoveries(); f != 2 || d != 1 {
		t.Errorf("%d fetches, %d discoveries, want 2 and 1", f, d)
	}
}

func TestIssuerFaultsAreWhatTheySay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := testenv.NewBubbleIssuer(t)
		for fault, want := range map[testenv.IssuerFault]func(int, string, error) bool{
			testenv.IssuerHealthy:   func(s int, _ string, err error) bool { return s == 200 && err == nil },
			testenv.IssuerDown:      func(_ int, _ string, err error) bool { return errors.Is(err, io.EOF) },
			testenv.IssuerHangs:     func(s int, _ string, err error) bool { return s == 0 && errors.Is(err, context.DeadlineExceeded) },
			testenv.IssuerDrips:     func(s int, text string, err error) bool { return s == 200 && len(text) == 3 && err != nil },
			testenv.IssuerFails:     func(s int, _ string, _ error) bool { return s == 500 },
			testenv.IssuerMoves:     func(s int, _ string, _ error) bool { return s == 302 },
			testenv.IssuerSendsHTML: func(s int, text string, _ error) bool { return s == 200 && strings.HasPrefix(text, "<!doctype") },
			testenv.IssuerSendsHuge: func(s int, text string, _ error) bool { return s == 200 && len(text) > 10<<20 },
			testenv.IssuerIsEmpty:   func(s int, text string, _ error) bool { return s == 200 && text == `{"keys":[]}` },
		} {
			issuer.Break(fault)
			if status, text, err := fetch(t, issuer, jwksPath); !want(status, text, err) {
				t.Errorf("fault %d: %d, %d bytes, %v", fault, status, len(text), err)
			}
		}
	})
}

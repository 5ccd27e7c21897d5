package probes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/audit/jws"
)

func writes() []audit.Probe {
	return []audit.Probe{
		{
			ID: "VAL-05", Title: "Mass assignment", Severity: audit.High, Mode: audit.Active, Category: audit.Validation,
			Sends:        "creates an object of its own with `role`, `is_admin`, `owner_id`, `balance`, `id` and `created_at` added, and reads it back",
			Passes:       "refused, or none of them is kept",
			Fails:        "a value is read back that the client had no business setting",
			Inconclusive: "no recipe `create`",
			Guard:        "its own object, deleted afterwards; what the API sets by itself is known from an object created without them",
			Knobs:        []string{"--active", "recipe create"},
			Refs:         []string{"OWASP API3:2023", "CWE-915", "ASVS 15.3.3"},
			Why:          "Whoever reads the API's answers can make themselves an administrator.",
			Fix:          "Bind requests to types that have only what a client may set.",
			Run:          massAssignment,
		},
		{
			ID: "VAL-06", Title: "Server-side request forgery in URL fields", Severity: audit.Critical, Mode: audit.Active,
			Category: audit.Validation, Confirms: true,
			Sends:        "the recipe `create` with each URL field pointing at the audit's own listener, then at a redirect of it to loopback",
			Passes:       "no call, or a call that gantry.yaml declares",
			Fails:        "the API calls the listener (high), or follows its redirect to loopback (critical)",
			Inconclusive: "no recipe has a URL field, or the target cannot reach the listener",
			Guard:        "the audit's own listener only, never a metadata address; a name unique to each lure",
			Knobs:        []string{"--active", "--callback", "recipe create"},
			Refs:         []string{"OWASP API7:2023", "CWE-918"},
			Why:          "The API fetches what an attacker names, from inside the network: metadata, databases, admin pages.",
			Fix:          "Allow a list of hosts; resolve, check the address, then connect to that address; follow no redirects.",
			Run:          forgedRequests,
		},
	}
}

// extras are members that no client may set, with values that nobody else would.
var extras = map[string]any{
	"role": "gantry-admin", "is_admin": true, "owner_id": 987654321, "balance": 987654321, "created_at": "1999-12-31T23:59:59Z",
	"id": 987654321,
}

func massAssignment(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	w := newWriter(s, "create")
	if w == nil || w.recipe.Read == "" {
		return noRecipe(s, "create"), nil
	}
	defer w.clean(ctx)
	plain, err := w.write(ctx, w.request("", 0))
	if err != nil {
		return audit.Verdict{}, err
	}
	if !plain.OK() {
		return audit.Unproven("the recipe create is answered %d", plain.Status).With(plain), nil
	}
	r := w.request("", 1)
	r.Body, r.Label = jws.With(r.Body, extras), "members added that no client may set"
	x, err := w.write(ctx, r)
	if err != nil {
		return audit.Verdict{}, err
	}
	if !x.OK() {
		if x.Status >= 500 {
			return audit.Unproven("the added members make it answer %d", x.Status).With(x), nil
		}
		return audit.Passed("members that no client may set are refused (%d)", x.Status).With(x), nil
	}
	back, err := w.read(ctx, idOf(x))
	if err != nil {
		return audit.Verdict{}, err
	}
	return judgeAssignment(x, back), nil
}

func judgeAssignment(x, back *audit.Exchange) audit.Verdict {
	kept := []string{}
	for _, name := range []string{"role", "is_admin", "owner_id", "balance", "id", "created_at"} {
		if got, ok := field(back.Body, name); ok && fmt.Sprint(got) == fmt.Sprint(extras[name]) {
			kept = append(kept, name)
		}
	}
	switch {
	case len(kept) > 0:
		return audit.Failed("a client can set %v", kept).With(x, back)
	case !back.OK():
		return audit.Unproven("what was created could not be read back (%d)", back.Status).With(x, back)
	}
	return audit.Passed("members that no client may set are dropped").With(x, back)
}

// urlFields are members whose value the server may fetch.
var urlFields = regexp.MustCompile(`(?i)"([a-z0-9_]*(?:url|uri|callback|webhook|image|avatar|link|endpoint|feed)[a-z0-9_]*)"\s*:\s*"`)

func forgedRequests(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	w := newWriter(s, "create")
	if w == nil {
		return noRecipe(s, "create"), nil
	}
	fields := urlFields.FindAllStringSubmatch(w.recipe.Body, -1)
	if len(fields) == 0 {
		return audit.Unproven("the recipe create has no member that looks like a URL").Unlock("a URL member in audit.recipes.create"), nil
	}
	listener, err := s.Callback(ctx)
	if err != nil {
		return audit.Verdict{}, err
	}
	if !s.Target().Local() && isLoopback(listener.Host()) {
		return audit.Unproven("the target cannot reach the audit's listener on loopback").Unlock("--callback"), nil
	}
	defer w.clean(ctx)
	var last *audit.Exchange
	for i, f := range fields[:min(len(fields), 5)] {
		v, x, err := lure(ctx, w, listener, f[1], i)
		if err != nil || v.Outcome == audit.Fail {
			return v, err
		}
		last = x
	}
	if last.Status >= 400 && last.Status != http.StatusUnprocessableEntity && last.Status != http.StatusBadRequest {
		return audit.Unproven("the recipe create is answered %d", last.Status).With(last), nil
	}
	return audit.Passed("no URL member makes the API call out").With(last), nil
}

// lure puts the listener's address in one field, and watches.
func lure(ctx context.Context, w *writer, listener *audit.Callback, name string, n int) (audit.Verdict, *audit.Exchange, error) {
	wait := min(3*time.Second, w.s.Policy().Deadline)
	inner := w.s.Nonce(1000 + n)
	outer := w.s.Nonce(2000 + n)
	target := listener.Lure(inner, nil)
	address := listener.Lure(outer, func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, target, http.StatusFound) })
	r := w.request("", n)
	r.Body, r.Label = replaceMember(r.Body, name, address), name+" points at the audit's listener"
	x, err := w.write(ctx, r)
	if err != nil {
		return audit.Verdict{}, nil, err
	}
	if len(listener.Wait(ctx, outer, wait)) == 0 {
		return audit.Verdict{}, x, nil
	}
	if why := w.s.Declared(); why != "" {
		return audit.Verdict{}, x, nil
	}
	if len(listener.Wait(ctx, inner, wait)) > 0 {
		return audit.Failed("%s makes the API call out, and it follows a redirect to %s", name, listener.Host()).With(x), x, nil
	}
	return audit.Failed("%s makes the API call out", name).As(audit.High).With(x), x, nil
}

func replaceMember(body []byte, name, value string) []byte {
	pattern := regexp.MustCompile(`("` + regexp.QuoteMeta(name) + `"\s*:\s*)"(?:[^"\\]|\\.)*"`)
	text, err := json.Marshal(value)
	if err != nil {
		return body
	}
	return pattern.ReplaceAllFunc(body, func(m []byte) []byte {
		head, _, _ := bytes.Cut(m, []byte(":"))
		return append(append(bytes.Clone(head), ':'), text...)
	})
}

func isLoopback(hostPort string) bool {
	addr, err := netip.ParseAddrPort(hostPort)
	return err == nil && addr.Addr().IsLoopback()
}

package identity

import (
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// principalOf verifies a token with the given claims beside the usual ones.
func principalOf(t *testing.T, more string) (*Principal, error) {
	t.Helper()
	v := staticVerifier(t, Config{Now: atNoon})
	return v.Verify(t.Context(), sign(t, testHeader,
		`{"iss":"`+testURL+`","sub":"user_1","exp":1900000000`+more+`}`))
}

func TestBothClaimVersionsGiveOneOrganisation(t *testing.T) {
	want := &Org{
		ID: "org_1", Slug: "acme", Role: "admin",
		Permissions: []string{"dashboard:manage", "dashboard:read", "teams:read"},
	}
	for version, claims := range map[string]string{
		"1": `,"org_id":"org_1","org_slug":"acme","org_role":"org:admin",
			"org_permissions":["org:dashboard:manage","org:dashboard:read","org:teams:read"]`,
		"2": `,"v":2,"fea":"o:dashboard,o:teams","o":{"id":"org_1","slg":"acme","rol":"admin","per":"manage,read","fpm":"3,2"}`,
	} {
		p, err := principalOf(t, claims)
		if err != nil {
			t.Fatalf("version %s: %v", version, err)
		}
		if diff := cmp.Diff(p.Org, want); diff != "" {
			t.Errorf("version %s (-got +want):\n%s", version, diff)
		}
	}
}

// The map has an entry for each feature of the organisation; the user's own do not count.
func TestUserFeaturesHaveNoPermissions(t *testing.T) {
	p, err := principalOf(t, `,"v":2,"fea":"u:beta,o:dashboard,uo:teams","o":{"id":"o1","per":"manage,read","fpm":"1,2"}`)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p.Org.Permissions, []string{"dashboard:manage", "teams:read"}); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(p.Features, []string{"u:beta", "o:dashboard", "uo:teams"}); diff != "" {
		t.Error(diff)
	}
}

func TestOddOrganisationsGrantNothing(t *testing.T) {
	for claims, want := range map[string]*Org{
		``:                               nil,
		`,"o":{"id":"o1"}`:               nil, // not version 2
		`,"v":2,"org_id":"o1"`:           nil,
		`,"v":2,"o":null`:                nil,
		`,"org_id":null,"org_role":null`: nil,
		`,"v":2,"o":{"id":"o1"}`:         {ID: "o1"},
		`,"v":"2","org_id":"o1"`:         {ID: "o1"},
		`,"v":2,"fea":"o:a","o":{"id":"o1","per":"r","fpm":"x"}`:     {ID: "o1"},
		`,"v":2,"fea":"o:a","o":{"id":"o1","per":"r","fpm":"-1"}`:    {ID: "o1"},
		`,"v":2,"fea":"o:a","o":{"id":"o1","per":"r","fpm":"0x1"}`:   {ID: "o1"},
		`,"v":2,"fea":"o:a","o":{"id":"o1","per":"r","fpm":"0"}`:     {ID: "o1"},
		`,"v":2,"fea":"o:a","o":{"id":"o1","per":"r","fpm":"2"}`:     {ID: "o1"},
		`,"v":2,"fea":"o:a","o":{"id":"o1","fpm":"1"}`:               {ID: "o1"},
		`,"v":2,"o":{"id":"o1","per":"r","fpm":"1"}`:                 {ID: "o1"},
		`,"v":2,"fea":"a","o":{"id":"o1","per":"r","fpm":"1"}`:       {ID: "o1"},
		`,"v":2,"fea":"o:a,o:b","o":{"id":"o1","per":"r","fpm":"1"}`: {ID: "o1", Permissions: []string{"a:r"}},
		`,"v":2,"fea":"o:a","o":{"id":"o1","per":"r","fpm":"1,1"}`:   {ID: "o1", Permissions: []string{"a:r"}},
	} {
		p, err := principalOf(t, claims)
		if err != nil {
			t.Errorf("%s: %v", claims, err)
			continue
		}
		if diff := cmp.Diff(p.Org, want); diff != "" {
			t.Errorf("%s (-got +want):\n%s", claims, diff)
		}
	}
}

func TestMistypedClerkClaimsAreRefused(t *testing.T) {
	for _, claims := range []string{
		`,"org_id":7`, `,"org_id":"a b"`, `,"org_permissions":"org:a:b"`, `,"org_id":"o","org_permissions":[7]`,
		`,"v":2,"o":[]`, `,"v":2,"o":{}`, `,"v":2,"o":{"id":"o\n"}`, `,"v":2,"o":{"id":"o","per":[]}`,
		`,"pla":{}`, `,"pla":"u:\r\nfree"`, `,"fea":[]`, `,"fva":5`, `,"fva":[1]`, `,"fva":[1,2,3]`,
		`,"fva":[-2,0]`, `,"fva":["1",0]`, `,"fva":[1e12,0]`, `,"act":"x"`, `,"act":{}`, `,"act":{"sub":""}`,
	} {
		if p, err := principalOf(t, claims); err == nil {
			t.Errorf("%s gives %+v, want a refusal", claims, p)
		} else if got := reasonOf(t, err); got != BadClaims {
			t.Errorf("%s: %v, want %v", claims, got, BadClaims)
		}
	}
}

// A missing factor age must never read as "verified just now".
func TestUnknownFactorAgesAreNil(t *testing.T) {
	minutes := func(n int) *time.Duration { d := time.Duration(n) * time.Minute; return &d }
	for claims, want := range map[string][2]*time.Duration{
		``:                {nil, nil},
		`,"fva":null`:     {nil, nil},
		`,"fva":[-1,-1]`:  {nil, nil},
		`,"fva":[7,-1]`:   {minutes(7), nil},
		`,"fva":[0,0]`:    {minutes(0), minutes(0)},
		`,"fva":[1440,3]`: {minutes(1440), minutes(3)},
	} {
		p, err := principalOf(t, claims)
		if err != nil {
			t.Fatalf("%s: %v", claims, err)
		}
		if diff := cmp.Diff([2]*time.Duration{p.FirstFactorAge, p.SecondFactorAge}, want); diff != "" {
			t.Errorf("%s (-got +want):\n%s", claims, diff)
		}
	}
}

func TestPrincipalCarriesWhatTheTokenSays(t *testing.T) {
	more := `,"sid":"sess_1","azp":"https://app.test","jti":"t1","aud":["a","b"],"iat":1700000000.5,
		"pla":"o:pro","email":"a@b.test","name":"Zoë \u0041","act":{"iss":"https://d.test","sid":"s9","sub":"u9"}`
	p, err := principalOf(t, more)
	if err != nil {
		t.Fatal(err)
	}
	want := &Principal{
		Issuer: testURL, Subject: "user_1", SessionID: "sess_1", AuthorizedParty: "https://app.test",
		TokenID: "t1", Audience: []string{"a", "b"}, Plan: "o:pro", Email: "a@b.test", Name: "Zoë A",
		IssuedAt:  time.Unix(1_700_000_000, 5e8).UTC(),
		ExpiresAt: time.Unix(1_900_000_000, 0).UTC(),
		Actor:     &Actor{Issuer: "https://d.test", SessionID: "s9", Subject: "u9"},
		Claims:    []byte(`{"iss":"` + testURL + `","sub":"user_1","exp":1900000000` + more + `}`),
	}
	if diff := cmp.Diff(p, want); diff != "" {
		t.Errorf("principal (-got +want):\n%s", diff)
	}
}

func TestDoubtfulAddressesAndNamesAreLeftOut(t *testing.T) {
	for claims, want := range map[string]string{
		`,"email":"a@b.test"`:                         "a@b.test",
		`,"email":"a@b.test","email_verified":true`:   "a@b.test",
		`,"email":"a@b.test","email_verified":"true"`: "a@b.test",
		`,"email":"a@b.test","email_verified":false`:  "",
		`,"email":"a@b.test","email_verified":null`:   "",
		`,"email":"a@b.test\r\nBcc: x"`:               "",
		`,"email":7`:                                  "",
	} {
		p, err := principalOf(t, claims)
		if err != nil || p.Email != want {
			t.Errorf("%s: Email = %q, %v, want %q", claims, p.Email, err, want)
		}
	}
}

// The bits against a naive reading of the documentation: write each number in base 2, turn it round.
func TestPermissionBitsFollowTheDocumentation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		verbs := rapid.SliceOfN(rapid.StringMatching(`[a-z]{1,4}`), 0, 80).Draw(t, "verbs")
		features := rapid.SliceOfN(rapid.StringMatching(`[a-z]{1,4}`), 0, 5).Draw(t, "features")
		var maps, want []string
		for _, feature := range features {
			digits := rapid.StringMatching(`[01]{1,80}`).Draw(t, "bits")
			number, _ := new(big.Int).SetString(digits, 2)
			maps = append(maps, number.String())
			bits := []byte(digits)
			slices.Reverse(bits)
			for j, bit := range bits {
				if bit == '1' && j < len(verbs) {
					want = append(want, fmt.Sprintf("%s:%s", feature, verbs[j]))
				}
			}
		}
		if diff := cmp.Diff(permissions(features, verbs, maps), want); diff != "" {
			t.Fatalf("maps %v (-got +want):\n%s", maps, diff)
		}
	})
}

// A list of features may be long, but the token bounds what comes of it.
func TestPermissionsAreBoundedByTheToken(t *testing.T) {
	var features, verbs, maps []string
	for n := range 200 {
		features = append(features, "o:f"+strconv.Itoa(n))
		verbs = append(verbs, "v"+strconv.Itoa(n))
		maps = append(maps, "1606938044258990275541962092341162602522202993782792835301375")
	}
	claims := `,"v":2,"fea":"` + strings.Join(features, ",") + `","o":{"id":"o","per":"` +
		strings.Join(verbs, ",") + `","fpm":"` + strings.Join(maps, ",") + `"}`
	if _, err := principalOf(t, claims); err == nil {
		t.Errorf("a token of %d bytes of claims is accepted", len(claims))
	}
}

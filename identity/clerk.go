package identity

import (
	"math/big"
	"strings"
	"time"
)

// Clerk's session claims, in both versions:
// https://clerk.com/docs/guides/sessions/session-tokens. Version 1 spells the organisation out in
// org_id, org_role and so on; version 2 packs it into "o", with permissions as bits.

// readClerk fills in what Clerk's tokens say beyond RFC 7519; false for a claim of another form.
func (p *Principal) readClerk(c object) bool {
	r := reader{object: c, ok: true}
	p.Plan = r.name("pla")
	p.Features = list(r.text("fea"))
	p.FirstFactorAge, p.SecondFactorAge = r.factorAges()
	p.Actor = r.actor()
	if version, _ := c.get("v"); string(version) == "2" {
		p.Org = r.orgV2(p.Features)
	} else {
		p.Org = r.orgV1()
	}
	return r.ok
}

// reader reads optional members; ok turns false at the first of another form. An explicit null,
// which templates produce for an empty value, counts as absent.
type reader struct {
	object
	ok bool
}

func (r *reader) optional(name string) (value, bool) {
	v, present := r.get(name)
	return v, present && !v.isNull()
}

func (r *reader) text(name string) string {
	v, present := r.optional(name)
	if !present {
		return ""
	}
	text, ok := v.str()
	r.ok = r.ok && ok
	return text
}

// name is text that is fit for headers, logs and keys.
func (r *reader) name(name string) string {
	text := r.text(name)
	r.ok = r.ok && (text == "" || printable(text, maxName))
	return text
}

func (r *reader) nested(name string) (*reader, bool) {
	v, present := r.optional(name)
	if !present {
		return nil, false
	}
	o, ok := v.object()
	r.ok = r.ok && ok
	return &reader{object: o, ok: ok}, ok
}

func (r *reader) orgV1() *Org {
	org := Org{
		ID:   r.name("org_id"),
		Slug: r.name("org_slug"),
		Role: strings.TrimPrefix(r.name("org_role"), "org:"),
	}
	if v, present := r.optional("org_permissions"); present {
		permissions, ok := v.strs()
		r.ok = r.ok && ok
		for _, permission := range permissions {
			org.Permissions = append(org.Permissions, strings.TrimPrefix(permission, "org:"))
		}
	}
	if org.ID == "" {
		return nil
	}
	return &org
}

func (r *reader) orgV2(features []string) *Org {
	o, present := r.nested("o")
	if !present {
		return nil
	}
	org := Org{
		ID:   o.name("id"),
		Slug: o.name("slg"),
		Role: strings.TrimPrefix(o.name("rol"), "org:"),
	}
	org.Permissions = permissions(orgFeatures(features), list(o.text("per")), list(o.text("fpm")))
	r.ok = r.ok && o.ok && org.ID != ""
	return &org
}

// orgFeatures returns the names of the features whose scope holds "o" (organisation): only these
// have an entry in fpm.
func orgFeatures(features []string) []string {
	var names []string
	for _, feature := range features {
		if scope, name, ok := strings.Cut(feature, ":"); ok && strings.Contains(scope, "o") {
			names = append(names, name)
		}
	}
	return names
}

// permissions unpacks the bit map: maps[i] is a decimal number that belongs to features[i], and its
// bit j, the least significant first, grants verbs[j]. An entry that is no number grants nothing.
func permissions(features, verbs, maps []string) []string {
	var granted []string
	for i, feature := range features[:min(len(features), len(maps))] {
		bits, ok := new(big.Int).SetString(maps[i], 10)
		if !ok || bits.Sign() < 0 {
			continue
		}
		for j, verb := range verbs {
			if bits.Bit(j) == 1 {
				granted = append(granted, feature+":"+verb)
			}
		}
	}
	return granted
}

// list splits a comma list; empty entries keep their place, because fpm counts by place.
func list(text string) []string {
	if text == "" {
		return nil
	}
	parts := strings.Split(text, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

// factorAges reads fva: minutes since the first and the second factor were verified, -1 for never.
func (r *reader) factorAges() (first, second *time.Duration) {
	v, present := r.optional("fva")
	if !present {
		return nil, nil
	}
	ages, ok := v.array()
	r.ok = r.ok && ok && len(ages) == 2
	if !r.ok {
		return nil, nil
	}
	return r.minutes(ages[0]), r.minutes(ages[1])
}

func (r *reader) minutes(v value) *time.Duration {
	if string(v) == "-1" {
		return nil
	}
	at, ok := numericDate(v)
	minutes := at.Unix()
	if !ok || minutes > 1<<31 {
		r.ok = false
		return nil
	}
	age := time.Duration(minutes) * time.Minute
	return &age
}

func (r *reader) actor() *Actor {
	act, present := r.nested("act")
	if !present {
		return nil
	}
	actor := &Actor{Issuer: act.name("iss"), Subject: act.name("sub"), SessionID: act.name("sid")}
	r.ok = r.ok && act.ok && actor.Subject != ""
	return actor
}

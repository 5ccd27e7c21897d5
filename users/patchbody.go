package users

import (
	"bytes"
	"encoding/json"
	"mime"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/gantryhq/gantry/problem"
)

// Change is the body of a PATCH: absent fields stay, null clears.
type Change struct {
	Handle      *string `json:"handle,omitempty" nullable:"true" doc:"3 to 30 lower-case letters a-z, digits or underscores; unique" example:"ann_lee"`
	DisplayName *string `json:"display_name,omitempty" nullable:"true" doc:"At most 100 characters"`
	ImageURL    *string `json:"image_url,omitempty" nullable:"true" doc:"An https address"`
	Bio         *string `json:"bio,omitempty" nullable:"true" doc:"At most 1,000 characters"`
	Locale      *string `json:"locale,omitempty" nullable:"true" doc:"BCP 47, for example pt-BR"`
	Timezone    *string `json:"timezone,omitempty" nullable:"true" doc:"IANA, for example Europe/Berlin"`
}

// describePatch tells the documentation what the body is: huma is given the bytes only, for its own
// reading would end at the first kind of fault.
func describePatch(api huma.API) {
	doc := api.OpenAPI()
	schema := doc.Components.Schemas.Schema(typeOf[Change](), true, "Change")
	content := doc.Paths["/v1/users/me"].Patch.RequestBody.Content
	for _, kind := range []string{"application/merge-patch+json", "application/json"} {
		content[kind] = &huma.MediaType{Schema: schema}
	}
}

// isJSON accepts the merge patch's own type (RFC 7396 section 4), and plain JSON.
func isJSON(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && (kind == "application/merge-patch+json" || kind == "application/json")
}

// maxUnknown bounds how many strange names are told.
const maxUnknown = 20

// readPatch reads the members one by one: a struct would lose the difference between null and
// absent, and would take the last of two members with one name. It returns every fault; false for a body
// that is not JSON, or in which a name stands twice.
func readPatch(raw []byte) (p Patch, faults []problem.Fault, ok bool) {
	if !json.Valid(raw) {
		return p, nil, false
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return p, []problem.Fault{{Pointer: "", Detail: "must be an object"}}, err == nil
	}
	seen := make(map[string]bool)
	unknown := 0
	for d.More() {
		name, err := d.Token()
		key, _ := name.(string)
		var value json.RawMessage
		if err != nil || d.Decode(&value) != nil || seen[key] {
			return p, nil, false
		}
		seen[key] = true
		fault := set(&p, key, value)
		if fault == unknownField {
			unknown++
		}
		if fault != "" && (fault != unknownField || unknown <= maxUnknown) {
			faults = append(faults, problem.Fault{Pointer: "/" + token(key), Detail: fault})
		}
	}
	return p, append(faults, p.Normalize()...), true
}

const unknownField = "is not a field that can be set"

// set puts one member into the patch, and returns what is wrong with it.
func set(p *Patch, name string, raw json.RawMessage) string {
	for _, f := range fields {
		if f.name != name {
			continue
		}
		var value *string
		if err := json.Unmarshal(raw, &value); err != nil {
			return "must be a string, or null to clear it"
		}
		if value == nil {
			value = new(string)
		}
		*f.from(p) = value
		return ""
	}
	return unknownField
}

// token writes a name as a part of a JSON pointer (RFC 6901 section 3), cut to a bearable length.
func token(name string) string {
	const most = 64
	if len(name) > most {
		name = strings.ToValidUTF8(name[:most], "") + "…"
	}
	if !utf8.ValidString(name) {
		name = strings.ToValidUTF8(name, "�")
	}
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
}

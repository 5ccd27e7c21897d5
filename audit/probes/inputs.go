package probes

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/gantryhq/gantry/audit"
)

// pathTemplate matches {id} in the path of an operation.
var pathTemplate = regexp.MustCompile(`\{([^{}/]+)\}`)

// takes are the parameters of op that a probe can change: in the path and in the query.
func takes(op audit.Operation) []audit.Param {
	var list []audit.Param
	for _, p := range op.Params {
		if p.In == "path" || p.In == "query" {
			list = append(list, p)
		}
	}
	return list
}

// reads are the operations that only read.
func reads(ops []audit.Operation) []audit.Operation {
	var list []audit.Operation
	for _, op := range ops {
		if op.Method == http.MethodGet {
			list = append(list, op)
		}
	}
	return list
}

// input is one value for one parameter of an operation, as it goes over the wire.
type input struct {
	param   audit.Param
	escaped string
	absent  bool   // the parameter is left out
	suffix  string // of the parameter's name: [$ne]
}

// requestOf is a request of op with every required parameter filled in and one of them replaced.
func requestOf(t *audit.Target, op audit.Operation, in input, label string) audit.Request {
	known := matchTemplate(op.Path, t.ObjectA)
	path := pathTemplate.ReplaceAllStringFunc(op.Path, func(braces string) string {
		name := strings.Trim(braces, "{}")
		if in.param.In == "path" && in.param.Name == name {
			return in.escaped
		}
		for _, p := range op.Params {
			if p.In == "path" && p.Name == name {
				return url.PathEscape(cmp.Or(known[name], sampleOf(p)))
			}
		}
		return cmp.Or(known[name], "1")
	})
	var query []string
	header := http.Header{}
	for _, p := range op.Params {
		mine := in.param.In == p.In && in.param.Name == p.Name
		switch {
		case p.In == "query" && mine && !in.absent:
			query = append(query, url.QueryEscape(p.Name+in.suffix)+"="+in.escaped)
		case p.In == "query" && !mine && p.Required:
			query = append(query, url.QueryEscape(p.Name)+"="+url.QueryEscape(sampleOf(p)))
		case p.In == "header" && p.Required && !strings.EqualFold(p.Name, "Authorization"):
			header.Set(p.Name, sampleOf(p))
		}
	}
	if len(query) > 0 {
		path += "?" + strings.Join(query, "&")
	}
	return audit.Request{Method: op.Method, Path: path, Header: header, Token: t.Token, Label: label}
}

// escapedFor writes a value for where the parameter stands.
func escapedFor(p audit.Param, value string) string {
	if p.In == "path" {
		return url.PathEscape(value)
	}
	return url.QueryEscape(value)
}

// matchTemplate reads the parameters of a path out of an example of it; nil when it is not one.
func matchTemplate(template, path string) map[string]string {
	path, _, _ = strings.Cut(path, "?")
	want, got := strings.Split(template, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return nil
	}
	values := map[string]string{}
	for i, segment := range want {
		if m := pathTemplate.FindStringSubmatch(segment); m != nil && m[0] == segment {
			values[m[1]] = got[i]
		} else if segment != got[i] {
			return nil
		}
	}
	return values
}

var sampleFormats = map[string]string{
	"uuid": "3f2b8c1e-7a54-4d0b-9a1c-5e6d7f809132", "date": "2030-01-02", "date-time": "2030-01-02T03:04:05Z", "email": "gantry@example.com",
	"uri": "https://example.com/", "ipv4": "192.0.2.1",
}

// sampleOf is a value that the parameter allows, as far as its description tells.
func sampleOf(p audit.Param) string {
	switch {
	case p.Example != "":
		return p.Example
	case len(p.Enum) > 0:
		return p.Enum[0]
	case p.Type == "integer" || p.Type == "number":
		if p.Minimum != nil && *p.Minimum > 1 {
			return trimFloat(*p.Minimum)
		}
		return "1"
	case p.Type == "boolean":
		return "true"
	case p.In == "path" && p.Format == "":
		return "1"
	}
	return cmp.Or(sampleFormats[p.Format], "gantry")
}

func trimFloat(f float64) string {
	text, err := json.Marshal(f)
	if err != nil {
		return "1"
	}
	return string(text)
}

// serverFault says that an answer is an error of the server that an input can have caused. 501 and 505 are right answers
// to a method or a version, 504 is a deadline kept, and 503 with Retry-After is shedding.
func serverFault(x *audit.Exchange) bool {
	switch x.Status {
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported, http.StatusGatewayTimeout:
		return false
	case http.StatusServiceUnavailable:
		return x.Header.Get("Retry-After") == ""
	}
	return x.Status >= 500
}

// unreached says that an answer comes from before the handler: authentication, routing, limits.
func unreached(x *audit.Exchange) bool {
	switch x.Status {
	case 0, http.StatusUnauthorized, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	}
	return x.Status >= 300 && x.Status < 400
}

// sameClass says that both statuses begin with the same digit.
func sameClass(x *audit.Exchange) func(*audit.Exchange) bool {
	return func(y *audit.Exchange) bool { return x.Status/100 == y.Status/100 }
}

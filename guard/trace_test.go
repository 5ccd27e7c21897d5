package guard

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestTheLogLineNamesTheCallersTrace(t *testing.T) {
	const id, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for name, tt := range map[string]struct {
		values []string
		want   string
	}{
		"sampled":               {[]string{"00-" + id + "-" + parent + "-01"}, id},
		"a later version":       {[]string{"cc-" + id + "-" + parent + "-01-what-the-future-brings"}, id},
		"none":                  {nil, ""},
		"two":                   {[]string{"00-" + id + "-" + parent + "-01", "00-" + id + "-" + parent + "-01"}, ""},
		"version ff":            {[]string{"ff-" + id + "-" + parent + "-01"}, ""},
		"version 00, longer":    {[]string{"00-" + id + "-" + parent + "-01-more"}, ""},
		"a later one, unparted": {[]string{"cc-" + id + "-" + parent + "-01more"}, ""},
		"cut short":             {[]string{"00-" + id + "-" + parent + "-0"}, ""},
		"upper case":            {[]string{"00-" + strings.ToUpper(id) + "-" + parent + "-01"}, ""},
		"all zero":              {[]string{"00-" + strings.Repeat("0", 32) + "-" + parent + "-01"}, ""},
		"parent all zero":       {[]string{"00-" + id + "-" + strings.Repeat("0", 16) + "-01"}, ""},
		"other separators":      {[]string{"00_" + id + "_" + parent + "_01"}, ""},
		"a quote in it":         {[]string{`00-4bf92f3577b34da6a3ce929d0e0e47"6-` + parent + "-01"}, ""},
	} {
		var log bytes.Buffer
		var forwarded []string
		h := Pipeline{Trace: Trace(TraceConfig{Logger: slog.New(slog.NewTextHandler(&log, nil))})}.Then(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			forwarded = r.Header["Traceparent"]
		}))
		r := httptest.NewRequest("GET", "/", nil)
		if tt.values != nil {
			r.Header["Traceparent"] = tt.values
		}
		h.ServeHTTP(httptest.NewRecorder(), r)
		got := ""
		if _, rest, found := strings.Cut(log.String(), "trace_id="); found {
			got, _, _ = strings.Cut(rest, " ")
		}
		if got = strings.TrimSpace(got); got != tt.want {
			t.Errorf("%s: trace_id = %q, want %q", name, got, tt.want)
		}
		if len(forwarded) != len(tt.values) {
			t.Errorf("%s: the handler saw %q, want what was sent", name, forwarded)
		}
	}
}

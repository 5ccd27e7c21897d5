package audit

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestSinkFindsAnExpectedTraceInEveryFormOfExport(t *testing.T) {
	id := [16]byte{0xab, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	hex := "AB0102030405060708090a0b0c0d0e0f"
	packed := func(body string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		w.Write([]byte(body))
		w.Close()
		return b.String()
	}
	for _, c := range []struct {
		name, media, encoding, body string
		status                      int
		want                        bool
	}{
		{"protobuf", "application/x-protobuf", "", "\x0a\x10" + string(id[:]) + "\x12", 200, true},
		{"protobuf, packed", "application/x-protobuf", "gzip", packed("\x0a\x10" + string(id[:])), 200, true},
		{"JSON", "application/json", "", `{"traceId":"` + hex + `"}`, 200, true},
		{"another trace", "application/json", "", `{"traceId":"00000000000000000000000000000001"}`, 200, false},
		{"not packed at all", "application/json", "gzip", hex, 400, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := newSink(t.Context(), "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer k.close()
			k.Expect(id)
			req, _ := http.NewRequestWithContext(t.Context(), "POST", k.URL+"/v1/traces", strings.NewReader(c.body))
			req.Header.Set("Content-Type", c.media)
			if c.encoding != "" {
				req.Header.Set("Content-Encoding", c.encoding)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != c.status {
				t.Errorf("status = %d, want %d", res.StatusCode, c.status)
			}
			if got := k.Wait(t.Context(), id, time.Millisecond); got != c.want {
				t.Errorf("seen = %v, want %v", got, c.want)
			}
			if got, want := k.Exports() == 1, c.status == 200; got != want {
				t.Errorf("counted as an export = %v, want %v", got, want)
			}
		})
	}
}

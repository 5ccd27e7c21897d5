package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/gantryhq/gantry/internal/testenv"
)

// h2 is a client that may break every rule of HTTP/2.
type h2 struct {
	*http2.Framer
	t     *testing.T
	conn  net.Conn
	block bytes.Buffer
	enc   *hpack.Encoder
	base  [][2]string
}

func (d *door) h2(token http.Header) *h2 {
	d.t.Helper()
	config := d.transport.TLSClientConfig.Clone()
	config.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", d.host(), config)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		d.t.Fatal(err)
	}
	c := &h2{t: d.t, conn: conn, Framer: http2.NewFramer(conn, bufio.NewReader(conn))}
	c.AllowIllegalWrites, c.ReadMetaHeaders = true, hpack.NewDecoder(4096, nil)
	c.enc = hpack.NewEncoder(&c.block)
	c.base = [][2]string{{":method", "POST"}, {":scheme", "https"}, {":path", "/x"}, {":authority", "localhost"}, {"authorization", token.Get("Authorization")}}
	c.must(c.WriteSettings())
	return c
}

func (c *h2) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *h2) encode(fields ...[2]string) []byte {
	c.block.Reset()
	for _, f := range fields {
		_ = c.enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	return c.block.Bytes()
}

// answer is how a stream went, for instance "200 hello", "400", "200 half RST_STREAM INTERNAL_ERROR".
func (c *h2) answer(stream uint32) string {
	var said []string
	for {
		frame, err := c.ReadFrame()
		if err != nil {
			return strings.Join(append(said, "closed"), " ")
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = c.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			said = append(said, f.PseudoValue("status"))
		case *http2.DataFrame:
			said = append(said, strings.TrimSpace(string(f.Data())))
		case *http2.RSTStreamFrame:
			said = append(said, "RST_STREAM "+f.ErrCode.String())
			return strings.Join(said, " ")
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return strings.Join(append(said, "GOAWAY "+f.ErrCode.String()), " ")
			}
		}
		if h := frame.Header(); h.StreamID == stream && h.Flags.Has(http2.FlagDataEndStream) && (h.Type == http2.FrameData || h.Type == http2.FrameHeaders) {
			return strings.Join(said, " ")
		}
	}
}

func TestMalformedHTTP2NeverReachesTheUpstream(t *testing.T) {
	var whole atomic.Int64
	d := startTLS(t, upstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body, err := io.ReadAll(r.Body); err == nil {
			whole.Add(1)
			fmt.Fprintf(w, "got %s", body)
		}
	})))
	token := d.token("user_1")
	set := func(name, value string) func([][2]string) [][2]string {
		return func(base [][2]string) [][2]string {
			for i := range base {
				if base[i][0] == name {
					base[i][1] = value
					return base
				}
			}
			return append(base, [2]string{name, value})
		}
	}
	add := func(fields ...[2]string) func([][2]string) [][2]string {
		return func(base [][2]string) [][2]string { return append(base, fields...) }
	}
	for name, tt := range map[string]struct {
		change func([][2]string) [][2]string
		data   string // "" ends the stream with the headers
		good   bool
	}{
		"good":                    {add(), "", true},
		"good with data":          {add([2]string{"content-length", "5"}), "hello", true},
		"good, no body, 0":        {add([2]string{"content-length", "0"}), "", true},
		"te: trailers":            {add([2]string{"te", "trailers"}), "", true},
		"connection":              {add([2]string{"connection", "close"}), "", false},
		"connection names a name": {add([2]string{"connection", "x-user-id"}), "", false},
		"keep-alive":              {add([2]string{"keep-alive", "timeout=5"}), "", false},
		"proxy-connection":        {add([2]string{"proxy-connection", "close"}), "", false},
		"transfer-encoding":       {add([2]string{"transfer-encoding", "chunked"}), "hello", false},
		"upgrade":                 {add([2]string{"upgrade", "h2c"}), "", false},
		"te: gzip":                {add([2]string{"te", "gzip"}), "", false},
		"upper case":              {add([2]string{"X-Upper", "1"}), "", false},
		"CRLF":                    {add([2]string{"x-a", "1\r\nx-user-id: evil"}), "", false},
		"LF":                      {add([2]string{"x-a", "1\nx-user-id: evil"}), "", false},
		"CR":                      {add([2]string{"x-a", "1\revil"}), "", false},
		"NUL":                     {add([2]string{"x-a", "1\x00evil"}), "", false},
		"space in a name":         {add([2]string{"x a", "1"}), "", false},
		"colon in a name":         {add([2]string{"x:a", "1"}), "", false},
		"CRLF in a name":          {add([2]string{"x\r\na", "1"}), "", false},
		"no name":                 {add([2]string{"", "1"}), "", false},
		"pseudo after fields":     {add([2]string{"x-a", "1"}, [2]string{":path", "/y"}), "", false},
		"two paths":               {func(b [][2]string) [][2]string { return slices.Insert(b, 1, [2]string{":path", "/y"}) }, "", false},
		"unknown pseudo":          {func(b [][2]string) [][2]string { return slices.Insert(b, 0, [2]string{":evil", "1"}) }, "", false},
		"no path":                 {set(":path", ""), "", false},
		"path without slash":      {set(":path", "evil"), "", false},
		"CRLF in the path":        {set(":path", "/x HTTP/1.1\r\nx-user-id: evil"), "", false},
		"space in the path":       {set(":path", "/x y"), "", false},
		"method with CRLF":        {set(":method", "GET / HTTP/1.1\r\n"), "", false},
		"authority with a path":   {set(":authority", "localhost/evil"), "", false},
		"length without data":     {add([2]string{"content-length", "5"}), "", false},
		"length too long":         {add([2]string{"content-length", "50"}), "hello", false},
		"length too short":        {add([2]string{"content-length", "2"}), "hello", false},
		"length no number":        {add([2]string{"content-length", "abc"}), "hello", false},
		"length signed":           {add([2]string{"content-length", "+5"}), "hello", false},
		"two lengths":             {add([2]string{"content-length", "5"}, [2]string{"content-length", "6"}), "hello", false},
	} {
		before, started := whole.Load(), time.Now()
		c := d.h2(token)
		fields := tt.change(slices.Clone(c.base))
		c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(fields...), EndHeaders: true, EndStream: tt.data == ""}))
		if tt.data != "" {
			c.must(c.WriteData(1, true, []byte(tt.data)))
		}
		answer := c.answer(1)
		c.conn.Close()
		if took := time.Since(started); took > time.Second {
			t.Logf("%s took %v", name, took)
		}
		switch reached := whole.Load() - before; {
		case tt.good && (answer != strings.TrimSpace("200 got "+tt.data) || reached != 1):
			t.Errorf("%s: %q, %d whole requests upstream", name, answer, reached)
		case !tt.good && (!isRefusal(answer) || reached != 0):
			t.Errorf("%s: %q, %d whole requests upstream; want a refusal and none", name, answer, reached)
		}
	}
}

func isRefusal(answer string) bool {
	return strings.HasPrefix(answer, "4") || strings.HasPrefix(answer, "RST_STREAM") || strings.HasPrefix(answer, "GOAWAY") || strings.HasPrefix(answer, "closed")
}

func TestBrokenAnswersAreResetInHTTP2(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	d := startTLS(t, "REQUEST_TIMEOUT=500ms", upstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "half")
		_ = http.NewResponseController(w).Flush()
		if r.URL.Path == "/late" {
			<-release
		}
		panic(http.ErrAbortHandler)
	})))
	token := d.token("user_1")
	for _, path := range []string{"/late", "/broken"} {
		c := d.h2(token)
		fields := slices.Clone(c.base)
		fields[0][1], fields[2][1] = "GET", path
		c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(fields...), EndHeaders: true, EndStream: true}))
		if got := c.answer(1); got != "200 half RST_STREAM INTERNAL_ERROR" {
			t.Errorf("%s = %q, want half an answer and its reset", path, got)
		}
	}
}

// running counts the handlers that are at work in the door.
func running(t *testing.T, admin string) (n int) {
	res, err := http.Get("http://" + admin + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		t.Error(err)
		return 0
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	for group := range strings.SplitSeq(string(text), "\n\n") {
		if strings.Contains(group, "guard.(*handlerRun).serve") {
			count, _, _ := strings.Cut(strings.TrimSpace(group), " ")
			more, _ := strconv.Atoi(count)
			n += more
		}
	}
	return n
}

func TestRapidResetLeavesTheDoorWell(t *testing.T) {
	for name, buffer := range map[string]int{"at once": 64 << 10, "one by one": 16} {
		t.Run(name, func(t *testing.T) { rapidReset(t, buffer) })
	}
}

func rapidReset(t *testing.T, buffer int) {
	const resets, streams = 10_000, 100
	admin := testenv.FreeAddress(t)
	d := startTLS(t, "ADMIN_LISTEN="+admin, "RATE_LIMIT_PER_USER=1000000", "RATE_LIMIT_GLOBAL=1000000", upstream(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
		}
	})))
	token := d.token("user_1")
	c := d.h2(token)
	c.base[0][1], c.base[2][1] = "GET", "/slow"
	stop := make(chan struct{})
	var work sync.WaitGroup
	most := 0
	work.Go(func() {
		for !isClosed(stop) {
			most = max(most, running(t, admin))
		}
	})
	others := 0
	work.Go(func() {
		for !isClosed(stop) {
			started := time.Now()
			if res, text := d.try("GET", "/fast", token, nil); res == nil || res.StatusCode != 200 || time.Since(started) > 5*time.Second {
				t.Errorf("another client: %v %s after %v", res, text, time.Since(started))
				return
			}
			others++
		}
	})
	went := make(chan error, 1)
	work.Go(func() { went <- c.drain() })
	started := time.Now()
	sent := c.reset(resets, buffer)
	took := time.Since(started)
	d.until(func() bool { return running(t, admin) <= 1 })
	c.conn.Close()
	end := <-went
	close(stop)
	work.Wait()
	t.Logf("%d resets in %v; at most %d handlers; %d other requests; the connection ended with: %v", sent, took, most, others, end)
	if most > streams+1 || others == 0 {
		t.Errorf("%d handlers ran at once, want %d at most; %d other requests", most, streams+1, others)
	}
	if res, _ := d.do("GET", "/fast", token, nil); res.StatusCode != 200 {
		t.Errorf("afterwards = %d", res.StatusCode)
	}
}

// reset opens and resets n streams as fast as the connection takes them, and says how many it took.
func (c *h2) reset(n, buffer int) (sent int) {
	out := bufio.NewWriterSize(c.conn, buffer)
	frames := http2.NewFramer(out, nil)
	for ; sent < n; sent++ {
		id := uint32(2*sent + 1)
		err := frames.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.encode(c.base...), EndHeaders: true, EndStream: true})
		if errors.Join(err, frames.WriteRSTStream(id, http2.ErrCodeCancel)) != nil {
			return sent
		}
	}
	_ = out.Flush()
	return sent
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// drain reads until the connection ends; a GOAWAY is an error too.
func (c *h2) drain() error {
	for {
		frame, err := c.ReadFrame()
		if err != nil {
			return err
		}
		if f, ok := frame.(*http2.GoAwayFrame); ok {
			return errors.New("GOAWAY " + f.ErrCode.String())
		}
	}
}

func TestContinuationFloodEndsTheConnection(t *testing.T) {
	var reached atomic.Int64
	d := startTLS(t, upstream(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) })))
	c := d.h2(d.token("user_1"))
	ended := make(chan error, 1)
	go func() { ended <- c.drain() }()
	c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(c.base...), EndStream: true}))
	block := bytes.Clone(c.encode([2]string{"x-filler", strings.Repeat("a", 8<<10)}))
	const enough = 64 << 20
	written := 0
	for ; written < enough; written += len(block) {
		if c.WriteContinuation(1, false, block) != nil {
			break
		}
	}
	if err := <-ended; err == nil || written >= enough || reached.Load() != 0 {
		t.Errorf("the connection took %d bytes and ended with %v; %d requests upstream", written, err, reached.Load())
	}
	if res, _ := d.do("GET", "/", d.token("user_1"), nil); res.StatusCode != 200 {
		t.Errorf("afterwards = %d", res.StatusCode)
	}
}

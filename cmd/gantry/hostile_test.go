//go:build linux

package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// realToken is what a hostile target must not make the audit show, or send to anybody else.
const realToken = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJ1c2VyXzEiLCJleHAiOjQxMDI0NDQ4MDB9.VG9rZW4tdGhhdC1tdXN0LW5vdC1sZWFr"

// poison is markup, terminal escapes and text that runs backwards; what of it net/http lets pass in a header is mild.
const (
	mild   = "\"'><script>alert(1)</script><img src=x onerror=alert(1)> \u202egnp.exe\u2066\u061c \u009b2J ]]> ::error::owned ##[group] [a](javascript:alert(1)) @everyone"
	poison = mild + " \x1b[31m\x1b]0;owned\x07 \x00 \x7f"
)

// hostile is a target that speaks HTTP as badly as it can.
type hostile struct {
	ln     net.Listener
	url    string
	answer func(*hostile, net.Conn, *http.Request)
	over   chan struct{} // closed at the end of the test
	turn   atomic.Int64

	elsewhere atomic.Int64 // requests that came to the server beside it, where none must go
	beside    string
}

func newHostile(t *testing.T, answer func(*hostile, net.Conn, *http.Request)) *hostile {
	t.Helper()
	h := &hostile{answer: answer, over: make(chan struct{})}
	beside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { h.elsewhere.Add(1) }))
	h.beside = strings.TrimPrefix(beside.URL, "http://")
	var err error
	if h.ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	h.url = "http://" + h.ln.Addr().String()
	var serving sync.WaitGroup
	serving.Go(func() { h.accept(&serving) })
	t.Cleanup(func() {
		close(h.over)
		h.ln.Close()
		serving.Wait()
		beside.Close()
	})
	return h
}

func (h *hostile) accept(serving *sync.WaitGroup) {
	for {
		c, err := h.ln.Accept()
		if err != nil {
			return
		}
		serving.Go(func() { h.serve(c) })
	}
}

// serve answers requests until the answer, or the client, has closed the connection.
func (h *hostile) serve(c net.Conn) {
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-h.over:
		case <-ended:
		}
		c.Close()
	}()
	in := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, io.LimitReader(r.Body, 64<<20)); err != nil {
			return
		}
		h.answer(h, c, r)
		if _, err := c.Write(nil); err != nil {
			return
		}
	}
}

// hold keeps the connection open until the client or the test ends it.
func (h *hostile) hold(c net.Conn) {
	_, _ = io.Copy(io.Discard, c)
	c.Close()
}

// forever writes the same again and again.
func forever(c net.Conn, text string) {
	block := bytes.Repeat([]byte(text), max(1, 64<<10/len(text)))
	for {
		if _, err := c.Write(block); err != nil {
			return
		}
	}
}

func slowly(h *hostile, c net.Conn, text string) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for i := range len(text) {
		if _, err := io.WriteString(c, text[i:i+1]); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-h.over:
			return
		}
	}
}

func say(c net.Conn, format string, args ...any) { fmt.Fprintf(c, format, args...) }

func whole(c net.Conn, status, headers, body string) {
	say(c, "HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s", status, headers, len(body), body)
}

// bomb is 64 MiB of zeros in 64 KiB.
var bomb = sync.OnceValue(func() string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	for range 64 {
		_, _ = z.Write(make([]byte, 1<<20))
	}
	_ = z.Close()
	return b.String()
})

// bush is JSON whose keys are long and nested: what lists its paths multiplies them.
var bush = sync.OnceValue(func() string {
	long := strings.Repeat("k", 79)
	var b strings.Builder
	b.WriteString(strings.Repeat(`{"`+long+`":`, 38) + "{")
	for i := range 1900 {
		fmt.Fprintf(&b, `"%s%d":1,`, long, i)
	}
	b.WriteString(`"end":1}` + strings.Repeat("}", 38))
	return b.String()
})

// leaving are addresses that a redirect must not lead to. %s is a server beside the target, that counts.
func (h *hostile) leaving() []string {
	own := strings.TrimPrefix(h.url, "http://")
	return []string{
		"http://169.254.169.254/latest/meta-data/iam/", "http://[fd00:ec2::254]/latest/", "file:///etc/passwd", "gopher://" + h.beside + "/_x",
		"http://" + h.beside + "/stolen", "//" + h.beside + "/stolen", "http://" + own + "@" + h.beside + "/", `http:\\` + h.beside + "/",
		"http://" + own + "." + h.beside, "https://" + own + "/", "javascript:alert(1)", "", "http://%zz/", strings.Repeat("/", 50_000), "/loop", "?",
	}
}

// tricks by name.
var tricks = map[string]func(*hostile, net.Conn, *http.Request){
	"10 GiB": func(_ *hostile, c net.Conn, _ *http.Request) {
		say(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", int64(10)<<30)
		forever(c, "\x00")
	},
	"endless chunks": func(_ *hostile, c net.Conn, _ *http.Request) {
		say(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		forever(c, "1;"+strings.Repeat("x", 1000)+"\r\n0\r\n")
	},
	"endless headers": func(_ *hostile, c net.Conn, _ *http.Request) {
		say(c, "HTTP/1.1 200 OK\r\n")
		forever(c, "X-More: and more\r\n")
	},
	"many headers": func(_ *hostile, c net.Conn, _ *http.Request) {
		whole(c, "200 OK", strings.Repeat("X-"+strings.Repeat("n", 50)+": "+strings.Repeat("v", 500)+"\r\n", 100), "{}")
	},
	"one endless header": func(_ *hostile, c net.Conn, _ *http.Request) {
		say(c, "HTTP/1.1 200 OK\r\nX-Long: ")
		forever(c, "y")
	},
	"endless status": func(_ *hostile, c net.Conn, _ *http.Request) {
		say(c, "HTTP/1.1 200 ")
		forever(c, "OK")
	},
	"endless 1xx": func(_ *hostile, c net.Conn, _ *http.Request) {
		forever(c, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
	},
	"switching protocols": func(h *hostile, c net.Conn, _ *http.Request) {
		say(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")
		h.hold(c)
	},
	"redirects": func(h *hostile, c net.Conn, _ *http.Request) {
		list := h.leaving()
		n := int(h.turn.Add(1))
		whole(c, strconv.Itoa(301+n%8)+" Away", "Location: "+list[n%len(list)]+"\r\nRefresh: 0; url=http://"+h.beside+"/\r\n", "gone")
	},
	"poison": poisoned,
	"malformed header": func(_ *hostile, c net.Conn, r *http.Request) {
		say(c, "HTTP/1.1 200 OK\r\n%s %s: x\r\n\r\n", poison, r.Header.Get("Authorization"))
		c.Close()
	},
	"long lines": func(_ *hostile, c net.Conn, _ *http.Request) {
		line := strings.Repeat("A", 100_000)
		whole(c, "200 OK", "Content-Type: text/plain\r\nX-Long: "+line[:30_000]+"\r\n", line+"\n"+line)
	},
	"header too long": func(_ *hostile, c net.Conn, _ *http.Request) {
		whole(c, "200 OK", "X-Long: "+strings.Repeat("A", 100_000)+"\r\n", "{}")
	},
	"drip body": func(h *hostile, c net.Conn, _ *http.Request) {
		say(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
		slowly(h, c, strings.Repeat("x", 1000))
	},
	"drip header": func(h *hostile, c net.Conn, _ *http.Request) {
		slowly(h, c, "HTTP/1.1 200 OK\r\nX-Slow: "+strings.Repeat("x", 1000))
	},
	"cut mid-body": func(_ *hostile, c net.Conn, _ *http.Request) {
		say(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"id\":")
		c.Close()
	},
	"cut mid-header": func(_ *hostile, c net.Conn, _ *http.Request) {
		say(c, "HTTP/1.1 200 OK\r\nContent-Ty")
		c.Close()
	},
	"reset": func(_ *hostile, c net.Conn, _ *http.Request) {
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	},
	"gzip bomb": func(_ *hostile, c net.Conn, _ *http.Request) {
		whole(c, "200 OK", "Content-Type: application/json\r\nContent-Encoding: gzip\r\n", bomb())
	},
	"deep arrays": func(_ *hostile, c net.Conn, _ *http.Request) {
		whole(c, "200 OK", "Content-Type: application/json\r\n", strings.Repeat("[", 1_000_000)+strings.Repeat("]", 1_000_000))
	},
	"deep objects": func(_ *hostile, c net.Conn, _ *http.Request) {
		whole(c, "200 OK", "Content-Type: application/json\r\n", strings.Repeat(`{"a":`, 1_000_000))
	},
	"long paths": func(_ *hostile, c net.Conn, _ *http.Request) {
		whole(c, "200 OK", "Content-Type: application/json\r\n", bush())
	},
	"429 for ever": func(_ *hostile, c net.Conn, _ *http.Request) {
		whole(c, "429 Slow down", "Retry-After: 1\r\n", "no")
	},
	"429 for 3 years": func(_ *hostile, c net.Conn, _ *http.Request) {
		whole(c, "429 Slow down", "Retry-After: 99999999\r\n", "no")
	},
	"429 until the year 9999": func(_ *hostile, c net.Conn, _ *http.Request) {
		whole(c, "429 Slow down", "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n", "no")
	},
	"429 for less than nothing": func(_ *hostile, c net.Conn, _ *http.Request) {
		whole(c, "429 Slow down", "Retry-After: -999999999999999999999\r\n", "no")
	},
	"too much body": func(_ *hostile, c net.Conn, r *http.Request) {
		say(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}%s%s", r.Header.Get("Authorization"), poison)
	},
	"two lengths": func(_ *hostile, c net.Conn, _ *http.Request) {
		say(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 50\r\n\r\nhello")
	},
	"no such length": func(_ *hostile, c net.Conn, _ *http.Request) {
		say(c, "HTTP/1.1 200 OK\r\nContent-Length: -99999999999999999999\r\n\r\nhello")
	},
	"chunks of garbage": func(_ *hostile, c net.Conn, _ *http.Request) {
		say(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n%s\r\nzz\r\n", poison)
		c.Close()
	},
	"half closed": func(h *hostile, c net.Conn, _ *http.Request) {
		say(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhel")
		_ = c.(*net.TCPConn).CloseWrite()
		h.hold(c)
	},
	"TLS garbage": func(_ *hostile, c net.Conn, _ *http.Request) {
		say(c, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03%s", strings.Repeat("\xff\x00", 300))
		c.Close()
	},
	"no HTTP at all": func(_ *hostile, c net.Conn, _ *http.Request) {
		say(c, "<html>%s</html>\r\n\r\n", poison)
		c.Close()
	},
	"status 999": func(_ *hostile, c net.Conn, _ *http.Request) { whole(c, "999 "+poison, "", poison) },
	"no answer":  func(h *hostile, c net.Conn, _ *http.Request) { h.hold(c) },
}

// poisoned puts poison and the caller's own credential wherever HTTP has room for text.
func poisoned(_ *hostile, c net.Conn, r *http.Request) {
	mine := r.Header.Get("Authorization")
	name := strings.Trim(strings.TrimPrefix(mine, "Bearer "), ". ")
	body, _ := json.Marshal(map[string]any{poison: poison, "version": poison, "status": poison, "you": mine, "list": []string{poison}})
	whole(c, "200 "+poison, "Content-Type: application/json; "+mild+"\r\nServer: "+mild+"\r\nX-Version: "+mild+"\r\nX-You: "+mine+
		"\r\nX-"+name+": 1\r\nSet-Cookie: "+mild+"="+mild+"; Path="+mild+"\r\nWWW-Authenticate: Bearer realm=\""+mild+"\"\r\nETag: "+mild+
		"\r\nX-Powered-By: "+mild+"\r\nLocation: "+mild+"\r\n", string(body)+"\r\n")
}

// byTurn refuses strangers on /me and believes any token, so that the audit goes deep and finds holes; whatever else is
// asked gets one trick after the other, but for those that make the audit wait, unless they are wanted.
func byTurn(first int, slow bool) func(*hostile, net.Conn, *http.Request) {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(tricks)), func(name string) bool {
		return !slow && (strings.HasPrefix(name, "429") || strings.HasPrefix(name, "drip") || name == "no answer")
	})
	return func(h *hostile, c net.Conn, r *http.Request) {
		switch {
		case r.URL.Path == "/me" && strings.HasPrefix(r.Header.Get("Authorization"), "Bearer eyJ") && r.Method == http.MethodGet:
			body, _ := json.Marshal(map[string]any{"id": poison, poison: "user_1", "echo": r.Header.Get("Authorization")})
			whole(c, "200 "+poison, "Content-Type: application/json\r\nServer: "+mild+"\r\n", string(body))
		case r.URL.Path == "/me":
			whole(c, "401 "+poison, "WWW-Authenticate: Bearer realm=\""+mild+"\"\r\nSet-Cookie: a="+mild+"\r\n", poison)
		default:
			n := int(h.turn.Add(1))
			tricks[names[(first+n)%len(names)]](h, c, r)
		}
	}
}

// audited is what became of a run of the real program.
type audited struct {
	code   int
	took   time.Duration
	peak   int64 // bytes of memory at most
	stdout string
	stderr string
	dir    string
}

// auditing is a run that has begun.
type auditing struct {
	t    *testing.T
	cmd  *exec.Cmd
	a    audited
	peak chan int64
	from time.Time
	out  bytes.Buffer
	err  bytes.Buffer
}

func begin(t *testing.T, args ...string) *auditing {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	r := &auditing{t: t, cmd: exec.Command(path, args...), peak: make(chan int64, 1), from: time.Now()}
	r.a.dir = t.TempDir()
	r.cmd.Dir, r.cmd.Env, r.cmd.Stdout, r.cmd.Stderr = r.a.dir, []string{"PATH=" + os.Getenv("PATH")}, &r.out, &r.err
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { r.peak <- watch(r.cmd.Process.Pid) }() // what is gone in an instant may not be seen
	return r
}

// end waits for the run, and ends it when it has taken far too long.
func (r *auditing) end(limit time.Duration) audited {
	r.t.Helper()
	timer := time.AfterFunc(limit, func() { _ = r.cmd.Process.Kill() })
	defer timer.Stop()
	_ = r.cmd.Wait()
	r.a.took, r.a.code = time.Since(r.from), r.cmd.ProcessState.ExitCode()
	r.a.peak, r.a.stdout, r.a.stderr = <-r.peak, r.out.String(), r.err.String()
	if r.a.took > limit {
		r.t.Errorf("it took longer than %s", limit)
	}
	return r.a
}

var highWater = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// watch reads the kernel's high-water mark of the process's memory until it is gone.
func watch(pid int) (peak int64) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		m := highWater.FindSubmatch(text)
		if err != nil || m == nil {
			return peak
		}
		kilobytes, _ := strconv.ParseInt(string(m[1]), 10, 64)
		peak = max(peak, kilobytes<<10)
	}
}

const memoryLimit = 256 << 20

// sound checks what holds of every run against a hostile target.
func (a audited) sound(t *testing.T, h *hostile, codes ...int) {
	t.Helper()
	if !slices.Contains(codes, a.code) {
		t.Errorf("exit code %d, want one of %v\n%s%s", a.code, codes, a.stdout, a.stderr)
	}
	if a.peak == 0 && a.took > time.Second || a.peak > memoryLimit {
		t.Errorf("memory reached %d MiB, want at most %d", a.peak>>20, memoryLimit>>20)
	}
	if n := h.elsewhere.Load(); n > 0 {
		t.Errorf("%d requests went to another server", n)
	}
	if strings.Contains(a.stderr, "panic") || strings.Contains(a.stdout, "crashed") {
		t.Errorf("it crashed:\n%s%s", a.stdout, a.stderr)
	}
	harmless(t, "stdout", a.stdout)
	harmless(t, "stderr", a.stderr)
	for _, name := range reportFiles {
		text, err := os.ReadFile(filepath.Join(a.dir, name))
		if err == nil {
			harmless(t, name, string(text))
		}
	}
}

var reportFiles = []string{"report.json", "report.html", "report.md", "report.sarif", "report.xml"}

// harmless checks that a report acts on nothing that shows it, and shows no credential.
func harmless(t *testing.T, name, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("%s is not UTF-8", name)
	}
	for _, r := range text {
		ours := r == '\n' || r == '\t' || r == '\u200b' && name == "report.md" || r == '\r' && name == "stderr"
		if !ours && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			t.Errorf("%s holds %U", name, r)
			break
		}
	}
	for _, part := range []string{realToken, realToken[strings.LastIndexByte(realToken, '.')+1:], "root:x:0:0"} {
		if strings.Contains(text, part) {
			t.Errorf("%s holds %q", name, part)
		}
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "::") || strings.Contains(line, "##[") && name == "stdout" {
			t.Errorf("%s has a line that a CI runner takes for a command: %.80q", name, line)
		}
	}
	if name == "stdout" || name == "stderr" || name == "section" || name == "report.xml" {
		return // plain text, where markup means nothing; XML, which the caller parses
	}
	for _, markup := range []string{"<script", "<img", `href="javascript`} {
		if strings.Contains(strings.ToLower(text), markup) {
			t.Errorf("%s holds %q", name, markup)
		}
	}
	if name == "report.md" && strings.Contains(text, "](javascript:") {
		t.Errorf("%s holds a link of the target's", name)
	}
}

func TestTargetThatNeverAnswersIsUnreachable(t *testing.T) {
	t.Parallel()
	h := newHostile(t, tricks["no answer"])
	a := begin(t, "audit", h.url, "--token", realToken).end(45 * time.Second)
	a.sound(t, h, 3)
	if want := "gantry audit: the target does not answer: " + h.url + ": no answer in time\n"; !strings.HasSuffix(a.stderr, want) || a.took > 35*time.Second {
		t.Errorf("after %s: %q, want %q", a.took, a.stderr, want)
	}
}

func TestAuditSurvivesEveryTrick(t *testing.T) {
	t.Parallel()
	for name, trick := range tricks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHostile(t, trick)
			a := begin(t, "audit", h.url, "--token", realToken, "--max-time", "2s", "--pace", "100", "--explain",
				"--json", "report.json", "--html", "report.html", "--markdown", "report.md", "--sarif", "report.sarif", "--junit", "report.xml").end(20 * time.Second)
			a.sound(t, h, 1, 3)
		})
	}
}

func TestReportsOfAHostileTargetAreHarmless(t *testing.T) {
	t.Parallel()
	for first, slow := range map[int]bool{0: false, 12: false, 6: true} {
		t.Run(fmt.Sprint(first), func(t *testing.T) {
			t.Parallel()
			h := newHostile(t, byTurn(first, slow))
			args := []string{
				"audit", h.url, "--token", realToken, "--protected-path", "/me", "--active", "--pace", "300", "--explain",
				"--json", "report.json", "--html", "report.html", "--markdown", "report.md", "--sarif", "report.sarif", "--junit", "report.xml",
			}
			switch first {
			case 0: // what surely finds something, and quotes it
				args = append(args, "--only", "ID-01,JWT-01", "--max-time", "30s")
			case 6:
				args = append(args, "--load", "--health-path", "/me", "--max-time", "8s")
			default:
				args = append(args, "--max-time", "8s")
			}
			a := begin(t, args...).end(40 * time.Second)
			a.sound(t, h, 1, 3)
			wellFormed(t, a.dir)
			if first == 0 {
				quotes(t, a.dir)
			}
			for _, format := range []string{"text", "json", "html", "markdown", "sarif", "junit", "checklist", "badge"} {
				text, _ := command(t, a.dir, nil, "score", "report.json", "--format", format)
				harmless(t, map[string]string{"html": "report.html", "markdown": "report.md", "junit": "report.xml", "text": "stdout"}[format], text)
			}
		})
	}
}

// wellFormed parses what can be parsed.
func wellFormed(t *testing.T, dir string) {
	t.Helper()
	for _, name := range reportFiles {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		var any any
		switch filepath.Ext(name) {
		case ".json", ".sarif":
			err = json.Unmarshal(text, &any)
		case ".xml":
			err = xml.Unmarshal(text, &struct {
				XMLName xml.Name `xml:"testsuites"`
			}{})
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// quotes checks that there is something in the reports that could do harm.
func quotes(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"report.json", "report.html"} {
		text, _ := os.ReadFile(filepath.Join(dir, name))
		if !bytes.Contains(text, []byte("alert(1)")) {
			t.Errorf("%s quotes nothing of the target: the test tests nothing", name)
		}
	}
}

func TestInterruptDuringCalibrationStillReports(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 100)
	h := newHostile(t, func(h *hostile, c net.Conn, r *http.Request) {
		asked <- struct{}{}
		tricks["drip body"](h, c, r)
	})
	r := begin(t, "audit", h.url, "--token", realToken, "--json", "report.json")
	<-asked
	_ = r.cmd.Process.Signal(os.Interrupt)
	a := r.end(20 * time.Second)
	a.sound(t, h, 3)
	if !strings.Contains(a.stdout, "INCOMPLETE: the run was interrupted") {
		t.Errorf("report:\n%s", a.stdout)
	}
}

// After the fault command the target only drips: the interrupt comes in the middle of that.
func TestInterruptRestoresAndStillReports(t *testing.T) {
	t.Parallel()
	dripping := make(chan struct{}, 100)
	var broken atomic.Bool
	h := newHostile(t, func(h *hostile, c net.Conn, r *http.Request) {
		switch {
		case r.URL.Path == "/me" && r.Header.Get("Authorization") != "Bearer "+realToken:
			whole(c, "401 No", "", "no")
		case r.URL.Path == "/break":
			broken.Store(true)
			whole(c, "200 OK", "", "broken")
		case broken.Load():
			dripping <- struct{}{}
			tricks["drip body"](h, c, r)
		default:
			whole(c, "200 OK", "", "fine")
		}
	})
	_, port, _ := net.SplitHostPort(h.ln.Addr().String())
	fault := fmt.Sprintf("exec 3<>/dev/tcp/127.0.0.1/%s; printf 'GET /break HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' >&3; head -1 <&3", port)
	r := begin(t, "audit", h.url, "--token", realToken, "--protected-path", "/me", "--health-path", "/ready", "--db-path", "/me", "--only", "HLT-02",
		"--fault-cmd", `bash -c "`+fault+`"`, "--restore-cmd", "echo mended >> mended", "--json", "report.json")
	<-dripping
	_ = r.cmd.Process.Signal(syscall.SIGINT)
	a := r.end(20 * time.Second)
	a.sound(t, h, 3)
	if text, err := os.ReadFile(filepath.Join(a.dir, "mended")); err != nil || string(text) != "mended\n" {
		t.Errorf("the restore command ran: %q, %v; want once\n%s%s", text, err, a.stdout, a.stderr)
	}
	if text, err := os.ReadFile(filepath.Join(a.dir, "report.json")); err != nil || !strings.Contains(string(text), `"incomplete": "the run was interrupted"`) {
		t.Errorf("report: %v", err)
	}
}

// descriptions are what a hostile target says that it is.
var descriptions = map[string]func(h *hostile) string{
	"poison": func(*hostile) string {
		text, _ := json.Marshal(map[string]any{
			"openapi": "3.0.0", "info": map[string]any{"title": poison, "version": poison},
			"paths": map[string]any{
				"/" + poison:               map[string]any{"get": map[string]any{"operationId": poison, "tags": []string{poison, "admin"}, "security": []any{map[string]any{poison: []any{}}}}},
				"/things":                  map[string]any{"post": map[string]any{"requestBody": map[string]any{"content": map[string]any{"application/json": map[string]any{"example": map[string]any{"name": poison, poison: 1}}}}, "responses": map[string]any{"201": map[string]any{}}}},
				"/things/{" + poison + "}": map[string]any{"get": map[string]any{}, "delete": map[string]any{}},
			},
		})
		return string(text)
	},
	"too many objects": func(*hostile) string {
		return `{"openapi":"3.0.0","paths":{},"a":[0` + strings.Repeat(`,{"a":{}}`, 400_000) + "]}"
	},
	"millions of marks": func(*hostile) string { return "a: " + strings.Repeat("[]", 4_000_000) },
	"deep":              func(*hostile) string { return strings.Repeat(`{"a":`, 1_000_000) },
	"references in a ring": func(*hostile) string {
		return `{"openapi":"3.0.0","paths":{"/a":{"$ref":"#/paths/~1b"},"/b":{"$ref":"#/paths/~1a"},"/c":{"post":{"requestBody":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/A"}}}}}}},` +
			`"components":{"schemas":{"A":{"type":"object","properties":{"a":{"$ref":"#/components/schemas/A"},"b":{"$ref":"#/components/schemas/A"},"c":{"allOf":[{"$ref":"#/components/schemas/A"},{"$ref":"#/components/schemas/A"}]}}}}}}`
	},
}

func TestInitOfAHostileTarget(t *testing.T) {
	t.Parallel()
	for name, text := range descriptions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHostile(t, func(h *hostile, c net.Conn, _ *http.Request) {
				whole(c, "200 OK", "Content-Type: application/json\r\n", text(h))
			})
			a := begin(t, "audit", "init", h.url).end(30 * time.Second)
			harmless(t, "section", a.stdout) // is for a file, where markup means nothing
			a.stdout = ""
			a.sound(t, h, 0, 3)
		})
	}
	for _, name := range []string{"10 GiB", "redirects", "gzip bomb", "endless headers", "malformed header", "cut mid-body", "switching protocols", "poison"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHostile(t, tricks[name])
			begin(t, "audit", "init", h.url).end(40*time.Second).sound(t, h, 3)
			begin(t, "audit", h.url, "--openapi", h.url+"/openapi.json", "--max-time", "1s").end(40*time.Second).sound(t, h, 2)
		})
	}
}

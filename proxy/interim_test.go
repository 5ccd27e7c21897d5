package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"
)

// talk sends request to s and returns all that comes back until the server closes.
func talk(t *testing.T, s *httptest.Server, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(c) // what came before a reset counts too
	return string(text)
}

func TestRefusedExpectationsAreAnsweredWithout100(t *testing.T) {
	for name, connection := range map[string]string{"kept": "keep-alive", "closed": "close"} {
		read := make(chan int, 1)
		up := scripted(t, func(c net.Conn, in *bufio.Reader, r *http.Request) {
			fmt.Fprintf(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: %s\r\n\r\nlong", connection)
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			n, _ := io.Copy(io.Discard, in)
			read <- int(n)
		})
		asked := make(chan struct{}, 1)
		inner := front(t, up, Config{Seen: func(*http.Request, Outcome) {
			select { // leave the transport time for the mistake
			case <-asked:
				t.Errorf("%s: the body was read", name)
			case <-time.After(200 * time.Millisecond):
			}
		}})
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r = r.WithContext(r.Context()) // the server looks at the body of its own
			r.Body = watchedBody{r.Body, asked}
			inner.Config.Handler.ServeHTTP(w, r)
		}))
		defer s.Close()
		res, body := ask(t, s, "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
		if res.StatusCode != 413 || body != "long" || !res.Close {
			t.Errorf("%s: the client got %d %q first, want 413 and the end of the connection", name, res.StatusCode, body)
		}
		if n := <-read; n != 0 {
			t.Errorf("%s: the upstream got %d bytes of the body", name, n)
		}
	}
}

// watchedBody tells when it is read.
type watchedBody struct {
	io.ReadCloser
	asked chan struct{}
}

func (b watchedBody) Read(p []byte) (int, error) {
	select {
	case b.asked <- struct{}{}:
	default:
	}
	return b.ReadCloser.Read(p)
}

// ask sends request and returns the first answer, be it only informational.
func ask(t *testing.T, s *httptest.Server, request string) (*http.Response, string) {
	t.Helper()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

func TestMetExpectationsGet100Once(t *testing.T) {
	up := scripted(t, func(c net.Conn, in *bufio.Reader, r *http.Request) {
		fmt.Fprint(c, "HTTP/1.1 100 Continue\r\nX-Inner: 1\r\n\r\n")
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
	})
	s := front(t, up, Config{})
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	in := bufio.NewReader(c)
	if line, _ := in.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("first line = %q", line)
	}
	fmt.Fprint(c, "hello")
	rest, _ := io.ReadAll(in)
	if text := string(rest); !strings.HasPrefix(text, "\r\nHTTP/1.1 200 ") || !strings.HasSuffix(text, "\r\n\r\nhello") {
		t.Errorf("after the 100: %q", text)
	}
}

// scripted is an upstream that reads the headers of one request on each connection and leaves the
// rest to serve.
func scripted(t testing.TB, serve func(c net.Conn, in *bufio.Reader, r *http.Request)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in := bufio.NewReader(c)
				if r, err := http.ReadRequest(in); err == nil {
					serve(c, in, r)
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

const hint = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nAlt-Svc: h3=\":1\"\r\nConnection: X\r\nUpgrade: h2c\r\n\r\n"

func TestHintsAreRelayedAloneAndTheFinalHeadersStay(t *testing.T) {
	up := raw(t, hint+"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	inner := front(t, up, Config{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Guard", "stays")
		inner.Config.Handler.ServeHTTP(w, r)
	}))
	defer s.Close()
	var hints []http.Header
	req, _ := http.NewRequest("GET", s.URL, nil)
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		if code != 103 {
			t.Errorf("the client got a %d", code)
		}
		hints = append(hints, http.Header(h))
		return nil
	}}))
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if len(hints) != 1 || len(hints[0]) != 1 || hints[0].Get("Link") == "" {
		t.Errorf("hints = %v, want one with Link alone", hints)
	}
	if res.StatusCode != 200 || res.Header.Get("X-Guard") != "stays" || res.Header.Get("Link") != "" {
		t.Errorf("answer = %d %v", res.StatusCode, res.Header)
	}
}

func TestEndlessHintsAre502(t *testing.T) {
	for name, answer := range map[string]string{
		"many":        strings.Repeat(hint, 1000),
		"many others": strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 1000),
		"wide":        "HTTP/1.1 103 Early Hints\r\n" + strings.Repeat("Link: a\r\n", 200) + "\r\n",
		"long":        "HTTP/1.1 103 Early Hints\r\nLink: " + strings.Repeat("a", 64<<10) + "\r\n\r\n",
	} {
		text := talk(t, front(t, raw(t, answer+"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Config{}), "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if n := strings.Count(text, "HTTP/1.1 103"); n > maxInterim || !strings.Contains(text, "HTTP/1.1 502 ") {
			t.Errorf("%s: %d hints, then %.200q", name, n, text[strings.LastIndex(text, "HTTP/1.1"):])
		}
	}
}

func TestHTTP10ClientsGetNoHints(t *testing.T) {
	text := talk(t, front(t, raw(t, hint+"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Config{}), "GET / HTTP/1.0\r\nHost: x\r\n\r\n")
	if !strings.HasPrefix(text, "HTTP/1.0 200 ") {
		t.Errorf("an HTTP/1.0 client got %q", text)
	}
}

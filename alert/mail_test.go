package alert

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/http/httptest"
	"net/mail"
	"strings"
	"testing"
	"time"
)

// postOffice is a small SMTP server (RFC 5321, 3207, 4954).
type postOffice struct {
	net.Listener
	tls      *tls.Config
	leaf     *x509.Certificate
	implicit bool              // TLS from the first byte
	noTLS    bool              // does not offer STARTTLS
	auth     string            // mechanisms offered once encrypted
	refuse   map[string]string // a command's beginning, and the reply instead
	hang     string            // a command that is never answered
	patience time.Duration     // of whoever sends
	mails    chan delivered
}

type delivered struct {
	from, user string
	to         []string
	secure     bool
	text       string
}

func openPostOffice(t *testing.T, set func(*postOffice)) *postOffice {
	t.Helper()
	p := &postOffice{auth: "PLAIN LOGIN", patience: 20 * time.Second, mails: make(chan delivered, 10)}
	certs := httptest.NewTLSServer(nil) // for its certificate, which is for 127.0.0.1
	certs.Close()
	p.tls, p.leaf = &tls.Config{Certificates: certs.TLS.Certificates}, certs.Certificate()
	set(p)
	var err error
	if p.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	go func() {
		for {
			conn, err := p.Accept()
			if err != nil {
				return
			}
			go p.serve(conn)
		}
	}()
	return p
}

// trusting is the configuration of a client that believes the office.
func (p *postOffice) trusting() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(p.leaf)
	return &tls.Config{RootCAs: pool}
}

// session is one connection.
type session struct {
	*postOffice
	conn   net.Conn
	in     *bufio.Reader
	secure bool
	mail   delivered
}

func (p *postOffice) serve(conn net.Conn) {
	defer conn.Close()
	if p.implicit {
		conn = tls.Server(conn, p.tls)
	}
	s := &session{postOffice: p, conn: conn, in: bufio.NewReader(conn), secure: p.implicit}
	s.say("220 office ready")
	for {
		line, err := s.in.ReadString('\n')
		if err != nil || !s.obey(strings.TrimRight(line, "\r\n")) {
			return
		}
	}
}

func (s *session) say(line string) { fmt.Fprintf(s.conn, "%s\r\n", line) }

func (s *session) obey(line string) (more bool) {
	for beginning, reply := range s.refuse {
		if strings.HasPrefix(line, beginning) {
			s.say(reply)
			return true
		}
	}
	if s.hang != "" && strings.HasPrefix(line, s.hang) {
		_, _ = io.Copy(io.Discard, s.conn)
		return false
	}
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "EHLO":
		s.say("250-office")
		if !s.secure && !s.noTLS {
			s.say("250-STARTTLS")
		}
		if s.secure {
			s.say("250-AUTH " + s.auth)
		}
		s.say("250 8BITMIME")
	case "STARTTLS":
		s.say("220 go ahead")
		s.conn = tls.Server(s.conn, s.tls)
		s.in, s.secure = bufio.NewReader(s.conn), true
	case "AUTH":
		s.login(rest)
	case "MAIL":
		s.mail = delivered{from: rest, user: s.mail.user, secure: s.secure}
		s.say("250 ok")
	case "RCPT":
		s.mail.to = append(s.mail.to, rest)
		s.say("250 ok")
	case "DATA":
		s.say("354 go ahead")
		s.data()
	case "QUIT":
		s.say("221 bye")
		return false
	default:
		s.say("502 what")
	}
	return true
}

func (s *session) login(rest string) {
	ask := func(question string) string {
		s.say("334 " + base64.StdEncoding.EncodeToString([]byte(question)))
		line, _ := s.in.ReadString('\n')
		text, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(line))
		return string(text)
	}
	var user, password string
	if mechanism, first, _ := strings.Cut(rest, " "); mechanism == "PLAIN" {
		text, _ := base64.StdEncoding.DecodeString(first)
		parts := strings.Split(string(text), "\x00")
		user, password = parts[1], parts[2]
	} else {
		user, password = ask("Username:"), ask("Password:")
	}
	if password != "p@ss word" {
		s.say("535 5.7.8 authentication failed")
		return
	}
	s.mail.user = user
	s.say("235 welcome")
}

func (s *session) data() {
	var text strings.Builder
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			return
		}
		if line == ".\r\n" {
			s.mail.text = text.String()
			s.mails <- s.mail
			s.say("250 queued")
			return
		}
		text.WriteString(strings.TrimPrefix(line, "."))
	}
}

func (p *postOffice) send(t *testing.T, credentials string, to []string, n Notification) error {
	t.Helper()
	scheme := "smtp://"
	if p.implicit {
		scheme = "smtps://"
	}
	m, err := NewMail(MailConfig{
		Server: scheme + credentials + p.Addr().String(), From: "Gäntry <alerts@example.org>", To: to,
		TLS: p.trusting(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), p.patience)
	defer cancel()
	return m.Notify(ctx, n)
}

func TestMailIsSentEncryptedAndLoggedIn(t *testing.T) {
	for name, set := range map[string]func(*postOffice){
		"STARTTLS and PLAIN": func(*postOffice) {},
		"STARTTLS and LOGIN": func(p *postOffice) { p.auth = "LOGIN" },
		"smtps":              func(p *postOffice) { p.implicit = true },
		"smtps and LOGIN":    func(p *postOffice) { p.implicit, p.auth = true, "LOGIN" },
	} {
		p := openPostOffice(t, set)
		if err := p.send(t, "app:p%40ss%20word@", []string{"a@example.org", "B <b@example.org>"}, sample()); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := <-p.mails
		if !got.secure || got.user != "app" || len(got.to) != 2 || !strings.Contains(got.from, "<alerts@example.org>") {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestMailIsNotSentInTheOpen(t *testing.T) {
	p := openPostOffice(t, func(p *postOffice) { p.noTLS = true })
	if err := p.send(t, "app:p%40ss%20word@", []string{"a@example.org"}, sample()); !errors.Is(err, errNoTLS) {
		t.Errorf("with a password and no TLS: %v", err)
	}
	if err := p.send(t, "", []string{"a@example.org"}, sample()); err != nil {
		t.Errorf("a relay on this machine, without a password: %v", err)
	}
	m, err := NewMail(MailConfig{Server: "smtp://relay.example.org", From: "a@example.org", To: []string{"b@example.org"}})
	if err != nil || m.addr != "relay.example.org:587" {
		t.Fatalf("%v %v", m, err)
	}
	here, there := net.Pipe()
	defer here.Close()
	go p.serve(there)
	if _, err := m.open(here); !errors.Is(err, errNoTLS) {
		t.Errorf("another machine without TLS: %v", err)
	}
}

func TestRepliesSayWhetherToTryAgain(t *testing.T) {
	for _, c := range []struct {
		refuse    map[string]string
		permanent bool
		says      string
		arrives   bool
	}{
		{map[string]string{"RCPT": "450 4.2.1 mailbox busy"}, false, "450: 4.2.1 mailbox busy", false},
		{map[string]string{"RCPT": "550 5.1.1 nobody here"}, true, "550: 5.1.1 nobody here", false},
		{map[string]string{"RCPT TO:<b@": "450 4.2.1 later"}, true, "1 of 2 recipients", true},
		{map[string]string{"MAIL": "421 4.3.2 closing"}, false, "421", false},
		{map[string]string{"AUTH": "535 5.7.8 no"}, true, "535", false},
		{map[string]string{"DATA": "554 5.7.1 no"}, true, "554", false},
	} {
		p := openPostOffice(t, func(p *postOffice) { p.refuse = c.refuse })
		err := p.send(t, "app:p%40ss%20word@", []string{"a@example.org", "b@example.org"}, sample())
		refusal, ok := errors.AsType[*DeliveryError](err)
		if !ok || refusal.Permanent != c.permanent || !strings.Contains(err.Error(), c.says) || len(p.mails) == 1 != c.arrives {
			t.Errorf("%v: %v, %d mails", c.refuse, err, len(p.mails))
		}
	}
}

func TestMailServersThatFail(t *testing.T) {
	for name, set := range map[string]func(*postOffice){
		"hangs":      func(p *postOffice) { p.hang, p.patience = "MAIL", 200*time.Millisecond },
		"hangs late": func(p *postOffice) { p.hang = "QUIT" }, // by then it has the mail
		"never ends": func(p *postOffice) { p.refuse = map[string]string{"EHLO": strings.Repeat("x", 2*maxSaid)} },
	} {
		p := openPostOffice(t, set)
		err := p.send(t, "app:p%40ss%20word@", []string{"a@example.org"}, sample())
		if (err == nil) != (name == "hangs late") || err != nil && strings.Contains(err.Error(), "p@ss") {
			t.Errorf("a server that %s: %v", name, err)
		}
	}
	p := openPostOffice(t, func(*postOffice) {})
	if err := p.send(t, "app:wrong@", []string{"a@example.org"}, sample()); err == nil || strings.Contains(err.Error(), "wrong") {
		t.Errorf("a wrong password: %v", err)
	}
}

// TestMailsOfAnIncidentThread reads them as a mail reader would.
func TestMailsOfAnIncidentThread(t *testing.T) {
	p := openPostOffice(t, func(*postOffice) {})
	var read []*mail.Message
	for _, n := range []Notification{sample(), acknowledged(sample()), resolved(sample()), hostile()} {
		if err := p.send(t, "app:p%40ss%20word@", []string{"a@example.org", "Ädä <b@example.org>"}, n); err != nil {
			t.Fatal(err)
		}
		m, err := mail.ReadMessage(strings.NewReader((<-p.mails).text))
		if err != nil {
			t.Fatal(err)
		}
		read = append(read, m)
	}
	ids := make(map[string]bool)
	for _, m := range read[:3] {
		ids[m.Header.Get("Message-Id")] = true
		if m.Header.Get("References") != read[0].Header.Get("References") || m.Header.Get("In-Reply-To") == "" {
			t.Errorf("References = %q", m.Header.Get("References"))
		}
	}
	if len(ids) != 3 {
		t.Errorf("ids = %v, want three", ids)
	}
	for i, m := range read {
		subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
		body, err2 := io.ReadAll(quotedprintable.NewReader(m.Body))
		if err != nil || err2 != nil || m.Header.Get("Bcc") != "" || m.Header.Get("Auto-Submitted") == "" {
			t.Errorf("mail %d: %v %v, headers %v", i, err, err2, m.Header)
		}
		if list, err := m.Header.AddressList("To"); err != nil || len(list) != 2 || list[1].Name != "Ädä" {
			t.Errorf("To = %v, %v", list, err)
		}
		if i == 0 {
			golden(t, "mail_firing.golden.txt", []byte(subject+"\n\n"+strings.ReplaceAll(string(body), "\r\n", "\n")))
		}
	}
}

func TestMailConfigurationsThatAreRefused(t *testing.T) {
	good := MailConfig{Server: "smtp://h", From: "a@b.example", To: []string{"c@d.example"}}
	for name, change := range map[string]func(*MailConfig){
		"scheme":   func(c *MailConfig) { c.Server = "http://h" },
		"no host":  func(c *MailConfig) { c.Server = "smtp://" },
		"path":     func(c *MailConfig) { c.Server = "smtp://h/x" },
		"from":     func(c *MailConfig) { c.From = "nobody" },
		"injected": func(c *MailConfig) { c.From = "a@b.example\r\nBcc: x@y.example" },
		"to":       func(c *MailConfig) { c.To = []string{"c@d.example", ""} },
		"nobody":   func(c *MailConfig) { c.To = nil },
	} {
		bad := good
		change(&bad)
		if _, err := NewMail(bad); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := NewMail(good); err != nil {
		t.Error(err)
	}
}

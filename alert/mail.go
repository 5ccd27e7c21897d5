package alert

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"net/netip"
	"net/smtp"
	"net/textproto"
	"net/url"
	"os"
	"strings"
	"time"
)

// Mail sends e-mail through one SMTP server. net/smtp is frozen, and has what this needs: STARTTLS, AUTH, and no
// further dependency. What it lacks, a time limit and a bound on what the server says, is on the connection.
type Mail struct {
	host, addr string
	implicit   bool // TLS from the first byte
	user       *url.Userinfo
	from       *mail.Address
	to         []*mail.Address
	tls        *tls.Config
}

// MailConfig says through whom to send, and to whom. All but TLS is required.
type MailConfig struct {
	// Server is smtp://[user:password@]host[:587], which must offer STARTTLS unless it is on this machine, or
	// smtps://[user:password@]host[:465].
	Server string
	From   string // an address, also with a name: Gantry <alerts@example.com>
	To     []string
	TLS    *tls.Config // nil: the system's authorities
}

var (
	errServer   = errors.New("is not smtp:// or smtps://, host and port")
	errNoTLS    = errors.New("offers no STARTTLS: the message, and the password, could be read on the way")
	errPlainNot = errors.New("a password is only sent over TLS")
)

// NewMail checks the configuration, and dials nobody.
func NewMail(c MailConfig) (*Mail, error) {
	u, err := url.Parse(c.Server)
	if err != nil || u.Scheme != "smtp" && u.Scheme != "smtps" || u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" {
		return nil, fmt.Errorf("mail server %w", errServer)
	}
	m := &Mail{host: u.Hostname(), implicit: u.Scheme == "smtps", user: u.User, tls: c.TLS}
	m.addr = net.JoinHostPort(m.host, cmp.Or(u.Port(), map[bool]string{true: "465", false: "587"}[m.implicit]))
	if m.from, err = mail.ParseAddress(c.From); err != nil {
		return nil, errors.New("the sender is not an address")
	}
	for _, text := range c.To {
		to, err := mail.ParseAddress(text)
		if err != nil {
			return nil, errors.New("a recipient is not an address")
		}
		m.to = append(m.to, to)
	}
	if len(m.to) == 0 {
		return nil, errors.New("there is no recipient")
	}
	return m, nil
}

// Notify implements [Notifier]. A recipient whom the server refuses does not keep the others from being told; the error
// says so, and is permanent, because they have been.
func (m *Mail) Notify(ctx context.Context, n Notification) error {
	conn, err := m.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := m.converse(conn, n); err != nil {
		return cmp.Or(ctx.Err(), smtpError(err))
	}
	return nil
}

// Reach dials the server and greets it, and sends nothing.
func (m *Mail) Reach(ctx context.Context) error {
	conn, err := m.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	c, err := m.open(conn)
	if err != nil {
		return cmp.Or(ctx.Err(), smtpError(err))
	}
	return smtpError(c.Quit())
}

func (m *Mail) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", m.addr)
	if err != nil {
		return nil, err
	}
	if m.implicit {
		secure := tls.Client(conn, m.tlsConfig())
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, fmt.Errorf("tls: %w", err)
		}
		conn = secure
	}
	return &bounded{Conn: conn, left: maxSaid}, nil
}

func (m *Mail) tlsConfig() *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if m.tls != nil {
		c = m.tls.Clone()
	}
	c.ServerName = m.host
	return c
}

// maxSaid is how many bytes a server may say in one delivery; net/textproto reads lines of any length.
const maxSaid = 256 << 10

type bounded struct {
	net.Conn
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("the server says too much")
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// open greets, encrypts and logs in.
func (m *Mail) open(conn net.Conn) (*smtp.Client, error) {
	c, err := smtp.NewClient(conn, m.host)
	if err != nil {
		return nil, err
	}
	name, err := os.Hostname()
	if err != nil || strings.ContainsAny(name, " \r\n") {
		name = "localhost"
	}
	if err := c.Hello(name); err != nil {
		return nil, err
	}
	// A relay on this machine often has a certificate that nobody signed, and nobody listens on the way to it.
	if !m.implicit && (!isLoopback(m.host) || m.user != nil) {
		if ok, _ := c.Extension("STARTTLS"); !ok {
			return nil, errNoTLS
		}
		if err := c.StartTLS(m.tlsConfig()); err != nil {
			return nil, err
		}
	}
	if m.user != nil {
		return c, m.login(c)
	}
	return c, nil
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func (m *Mail) login(c *smtp.Client) error {
	_, mechanisms := c.Extension("AUTH")
	password, _ := m.user.Password()
	a := login{user: m.user.Username(), password: password, plain: strings.Contains(mechanisms, "PLAIN"), implicit: m.implicit}
	return c.Auth(&a)
}

// login is AUTH PLAIN (RFC 4616), or LOGIN where that is all there is. net/smtp's own PLAIN does not know that the
// connection was encrypted before it began.
type login struct {
	user, password  string
	plain, implicit bool
}

// Start implements smtp.Auth.
func (a *login) Start(server *smtp.ServerInfo) (mechanism string, first []byte, err error) {
	switch {
	case !server.TLS && !a.implicit:
		return "", nil, errPlainNot
	case a.plain:
		return "PLAIN", []byte("\x00" + a.user + "\x00" + a.password), nil
	}
	return "LOGIN", nil, nil
}

// Next implements smtp.Auth: LOGIN asks for the name, then for the password.
func (a *login) Next(question []byte, more bool) ([]byte, error) {
	asked := strings.ToLower(string(question))
	switch {
	case !more:
		return nil, nil
	case strings.HasPrefix(asked, "user"):
		return []byte(a.user), nil
	case strings.HasPrefix(asked, "pass"):
		return []byte(a.password), nil
	}
	return nil, errors.New("the server asks for something else than a name and a password")
}

func (m *Mail) converse(conn net.Conn, n Notification) error {
	c, err := m.open(conn)
	if err != nil {
		return err
	}
	if err := c.Mail(m.from.Address); err != nil {
		return err
	}
	refused, err := m.recipients(c)
	if err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(m.message(n)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	// The server has it; how it says goodbye changes nothing.
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	_ = c.Quit()
	return refused
}

// recipients names them all. err is that nobody will get it, refused that some will not.
func (m *Mail) recipients(c *smtp.Client) (refused, err error) {
	var last error
	bad := 0
	for _, to := range m.to {
		if err := c.Rcpt(to.Address); err != nil {
			var said *textproto.Error
			if !errors.As(err, &said) {
				return nil, err
			}
			bad, last = bad+1, err
		}
	}
	switch {
	case bad == len(m.to):
		return nil, last
	case bad > 0:
		e := smtpError(last).(*DeliveryError)
		e.Permanent, e.Reason = true, fmt.Sprintf("%d of %d recipients: %s", bad, len(m.to), e.Reason)
		return e, nil
	}
	return nil, nil
}

// smtpError reads a reply: 4xx is for later, 5xx is for good (RFC 5321 section 4.2.1).
func smtpError(err error) error {
	var said *textproto.Error
	if !errors.As(err, &said) {
		return err
	}
	return &DeliveryError{Status: said.Code, Reason: clip(said.Msg, maxReason), Permanent: said.Code >= 500}
}

// message is the mail. Header values are encoded words or addresses written by net/mail, and clip has taken out line
// breaks, so that no name can add a header.
func (m *Mail) message(n Notification) []byte {
	var b bytes.Buffer
	header := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, value) }
	header("From", m.from.String())
	var to []string
	for _, a := range m.to {
		to = append(to, a.String())
	}
	header("To", strings.Join(to, ",\r\n "))
	header("Subject", mime.QEncoding.Encode("utf-8", clip(n.headline(), 200)))
	header("Date", n.At.UTC().Format(time.RFC1123Z))
	header("Message-ID", m.messageID(n.id()))
	// All mails of an incident answer one that was never sent, so that they thread whichever of them arrive.
	root := m.messageID("incident_" + digest(n.incident()))
	header("In-Reply-To", root)
	header("References", root)
	header("Auto-Submitted", "auto-generated") // RFC 3834: no vacation notices, please
	if n.Alert.Rule.Severity == Critical && n.kind() == trigger {
		header("Importance", "high")
	}
	header("MIME-Version", "1.0")
	header("Content-Type", "text/plain; charset=utf-8")
	header("Content-Transfer-Encoding", "quoted-printable")
	b.WriteString("\r\n")
	w := quotedprintable.NewWriter(&b)
	_, _ = io.WriteString(w, mailText(n)) // a buffer takes everything
	_ = w.Close()
	return b.Bytes()
}

func (m *Mail) messageID(id string) string {
	_, domain, _ := strings.Cut(m.from.Address, "@")
	return "<" + id + "@" + domain + ">"
}

func mailText(n Notification) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n\n", clip(n.headline(), 200), clip(n.summary(), 500))
	for _, f := range append(n.facts(), n.links()...) {
		fmt.Fprintf(&b, "%-16s %s\n", f.Name, f.Value)
	}
	if n.Test {
		b.WriteString("\nThis is a test of the way here. Nobody needs to do anything.\n")
	}
	return strings.ReplaceAll(b.String(), "\n", "\r\n")
}

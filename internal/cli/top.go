package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/internal/dashboard"
)

// top shows in a terminal what the dashboard shows in a browser. Anywhere else it prints one look and ends.
func top(ctx context.Context, p Process) int {
	fs := flags(p, "top", "Shows what a running door does, as its dashboard does, every second; q ends it. When the output is no\nterminal it prints one look and ends. The admin port and its token are those of the configuration.")
	src := sources(fs, p)
	admin := fs.String("admin", "", "address of the admin port, such as http://127.0.0.1:9000")
	if code, ok := parse(fs, p); !ok {
		return code
	}
	cfg, _ := config.Load(*src) // what is wrong with the rest is for serve to say
	if *admin == "" {
		*admin = "http://" + cfg.AdminListen
	}
	at, err := url.Parse(*admin)
	if err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
		fmt.Fprintf(p.Stderr, "gantry top: %q is no address such as http://127.0.0.1:9000\n", *admin)
		return Usage
	}
	look := &lookout{url: at.JoinPath("/api/view").String(), token: cfg.AdminToken}
	if err := look.show(ctx, p); err != nil {
		fmt.Fprintln(p.Stderr, "gantry top:", err)
		return Failed
	}
	return Good
}

// lookout asks the admin port.
type lookout struct {
	url   string
	token config.Secret
}

// Bounds of one look.
const (
	lookTimeout = 5 * time.Second
	maxView     = 8 << 20 // bytes
)

func (l *lookout) view(ctx context.Context) (v dashboard.View, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url, nil)
	if err != nil {
		return v, err
	}
	if !l.token.IsZero() {
		r.Header.Set("Authorization", "Bearer "+l.token.Reveal())
	}
	answer, err := http.DefaultTransport.RoundTrip(r) // not a client: the token follows no redirect
	if err != nil {
		return v, err
	}
	defer answer.Body.Close()
	switch {
	case answer.StatusCode == http.StatusUnauthorized:
		return v, errors.New("the admin port asks for ADMIN_TOKEN, and it is not set here or not the same")
	case answer.StatusCode != http.StatusOK:
		return v, fmt.Errorf("the admin port answers %s", answer.Status)
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxView)).Decode(&v); err != nil {
		return v, fmt.Errorf("what the admin port answers is no view: %w", err)
	}
	return v, nil
}

func (l *lookout) show(ctx context.Context, p Process) error {
	v, err := l.view(ctx)
	if err != nil {
		return err
	}
	out, ok := p.Stdout.(*os.File)
	if !ok || !term.IsTerminal(int(out.Fd())) || slices.Contains(p.Environ, "TERM=dumb") {
		return dashboard.Text(p.Stdout, v, 120, false)
	}
	t, err := openTerminal(p, out)
	if err != nil {
		return err
	}
	defer t.restore()
	return l.follow(ctx, t, v)
}

// follow draws until q or Ctrl-C.
func (l *lookout) follow(ctx context.Context, t *terminal, v dashboard.View) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if err := t.draw(v); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.quit:
			return nil
		case <-tick.C:
		}
		next, err := l.view(ctx)
		if err != nil {
			v.Verdict = dashboard.Verdict{Level: dashboard.Look, Headline: "no news since then: " + err.Error()}
			continue
		}
		v = next
	}
}

// terminal is a screen of our own, on a terminal that gives it back as it was.
type terminal struct {
	out    *os.File
	in     int // file descriptor of the keyboard, -1 when there is none
	before *term.State
	colour bool
	quit   chan struct{}
}

// What is written to a terminal (ECMA-48, and xterm's private modes 1049 and 25).
const (
	enterScreen = "\x1b[?1049h\x1b[?25l"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	toTop       = "\x1b[H"
	clearLine   = "\x1b[K\r\n"
	clearBelow  = "\x1b[J"
)

func openTerminal(p Process, out *os.File) (*terminal, error) {
	t := &terminal{out: out, in: -1, colour: true, quit: make(chan struct{})}
	for _, pair := range p.Environ {
		if value, found := strings.CutPrefix(pair, "NO_COLOR="); found && value != "" { // no-color.org
			t.colour = false
		}
	}
	if in, ok := p.Stdin.(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		before, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return nil, fmt.Errorf("terminal: %w", err)
		}
		t.in, t.before = int(in.Fd()), before
		go t.listen(in)
	}
	_, err := io.WriteString(out, enterScreen)
	return t, err
}

// listen waits for q, Ctrl-C or the end of input. It is not waited for: a read of a terminal ends with the process.
func (t *terminal) listen(in io.Reader) {
	defer close(t.quit)
	key := make([]byte, 1)
	for {
		if n, err := in.Read(key); err != nil || n == 1 && strings.ContainsRune("qQ\x03\x04", rune(key[0])) {
			return
		}
	}
}

func (t *terminal) restore() {
	_, _ = io.WriteString(t.out, leaveScreen)
	if t.before != nil {
		_ = term.Restore(t.in, t.before)
	}
}

// draw puts a view over the last one, cut to the size that the terminal has now.
func (t *terminal) draw(v dashboard.View) error {
	columns, rows, err := term.GetSize(int(t.out.Fd()))
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	var text bytes.Buffer
	if err := dashboard.Text(&text, v, columns, t.colour); err != nil {
		return err
	}
	lines := strings.Split(strings.TrimRight(text.String(), "\n"), "\n")
	lines = lines[:min(len(lines), max(1, rows-1))]
	_, err = io.WriteString(t.out, toTop+strings.Join(lines, clearLine)+clearLine+clearBelow)
	return err
}

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/telemetry"
)

// requestAsker asks a running door's admin port about requests.
type requestAsker struct {
	src    *config.Sources
	admin  string
	asJSON bool
}

func requestFlags(fs *flag.FlagSet, p Process) *requestAsker {
	a := &requestAsker{src: sources(fs, p)}
	fs.StringVar(&a.admin, "admin", "", "where the door's admin port is; default ADMIN_LISTEN")
	fs.BoolVar(&a.asJSON, "json", false, "print what is known of the request as JSON")
	return a
}

// errUnknownRequest is said when the door answers that it does not know the id.
var errUnknownRequest = errors.New("the door does not remember it: too many requests since, another instance, or not its id")

func (a *requestAsker) explain(ctx context.Context, p Process, id string) int {
	cfg, _ := config.Load(*a.src) // whatever else is wrong: where the door is and its token are wanted here
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	text, err := a.ask(ctx, cfg, id)
	if err == nil && a.asJSON {
		_, err = p.Stdout.Write(text)
	} else if err == nil {
		var r telemetry.Request
		if err = json.Unmarshal(text, &r); err == nil {
			writeRequest(p.Stdout, &r)
		}
	}
	if err != nil {
		fmt.Fprintf(p.Stderr, "gantry explain: %q is no probe, and as a request: %v\n", id, err)
		return Failed
	}
	return Good
}

const maxExplanation = 1 << 20

func (a *requestAsker) ask(ctx context.Context, cfg config.Config, id string) ([]byte, error) {
	base := a.admin
	if base == "" {
		base = "http://" + reachable(cfg.AdminListen)
	}
	address, err := url.JoinPath(base, "/api/requests/", url.PathEscape(id))
	if err != nil {
		return nil, errors.New("--admin is not an address")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("--admin is not an address")
	}
	if !cfg.AdminToken.IsZero() {
		r.Header.Set("Authorization", "Bearer "+cfg.AdminToken.Reveal())
	}
	res, err := http.DefaultTransport.RoundTrip(r) // no redirect may lead the token elsewhere
	if err != nil {
		return nil, fmt.Errorf("no door answers at %s (gantry serve, or --admin): %w", base, err)
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
		return io.ReadAll(io.LimitReader(res.Body, maxExplanation))
	case http.StatusNotFound:
		return nil, errUnknownRequest
	case http.StatusUnauthorized:
		return nil, errors.New("the door wants its ADMIN_TOKEN: set it here as it is set there")
	}
	return nil, fmt.Errorf("%s answers %s", base, res.Status)
}

// reachable is where a port that listens on all addresses can be called.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err == nil && (host == "" || host == "0.0.0.0" || host == "::") {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return listen
}

// writeRequest tells what became of a request.
func writeRequest(w io.Writer, r *telemetry.Request) {
	fmt.Fprintf(w, "%s  %s %s  %d  %s\n", r.ID, clean(r.Method), clean(r.Path), r.Status, verdict(r))
	for _, fact := range [][2]string{
		{"when", r.Start.Format(time.RFC3339Nano)},
		{"host", clean(r.Host)},
		{"route", r.Route},
		{"client", r.Client.String()},
		{"caller", r.Caller},
		{"upstream", upstreamText(r.Upstream)},
		{"trace", r.TraceID},
	} {
		if fact[1] != "" {
			fmt.Fprintf(w, "  %-9s %s\n", fact[0], fact[1])
		}
	}
	writeSteps(w, r)
	writeLimits(w, r)
	fmt.Fprintln(w)
}

func verdict(r *telemetry.Request) string {
	what := "the handler's own answer"
	if r.Decision != "" {
		what = r.Decision
	}
	if r.Decision == "timeout" {
		what = fmt.Sprintf("timeout: it was given %v", time.Duration(r.Timeout))
	}
	return what
}

func upstreamText(u telemetry.Upstream) string {
	if u.Name == "" {
		return ""
	}
	text := strings.TrimSpace(u.Name + " " + u.Version)
	if u.Status == 0 {
		text += " gave no answer"
	} else {
		text += fmt.Sprintf(" answered %d", u.Status)
	}
	if u.Retried {
		text += ", asked twice"
	}
	return text
}

// writeSteps draws each step's time as a bar below the whole, the parts of the handler indented.
func writeSteps(w io.Writer, r *telemetry.Request) {
	const width = 32
	fmt.Fprintf(w, "\n  %-12s %9s  %-*s\n", "step", "ms", width, "0 to "+millis(r.Duration))
	indent := ""
	for _, s := range r.Steps.All() {
		from, to := column(s.Start, r.Duration, width), column(s.End, r.Duration, width)
		bar := strings.Repeat(" ", min(from, width-1)) + strings.Repeat("=", max(1, to-from))
		fmt.Fprintf(w, "  %-12s %9s  %-*s  %s\n", indent+s.Name, millis(s.End-s.Start), width, bar, s.Outcome)
		if s.Name == "handler" {
			indent = "  "
		}
	}
}

func column(at, whole telemetry.Millis, width int) int {
	if whole <= 0 {
		return 0
	}
	return min(width, int(at*telemetry.Millis(width)/whole))
}

func millis(m telemetry.Millis) string {
	return fmt.Sprintf("%.3f", float64(m)/float64(time.Millisecond))
}

func writeLimits(w io.Writer, r *telemetry.Request) {
	if len(r.Limits.All()) == 0 {
		return
	}
	fmt.Fprintf(w, "\n  %-12s %9s  %-10s %s\n", "limit", "used", "of", "one is free again in")
	for _, l := range r.Limits.All() {
		mark := ""
		if l.Violated {
			mark = "  <- refused"
		}
		fmt.Fprintf(w, "  %-12s %9d  %-10s %v%s\n", l.Policy, l.Used, fmt.Sprintf("%d/%v", l.Limit, time.Duration(l.Window)), time.Duration(l.Reset).Round(time.Millisecond), mark)
	}
}

// clean shows what a client chose without what a terminal would act on.
func clean(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f && c < 0xa0 {
			return '?'
		}
		return c
	}, text)
}

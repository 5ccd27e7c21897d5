package probes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gantryhq/gantry/audit"
)

func slowness() []audit.Probe {
	return []audit.Probe{
		{
			ID: "LIM-01", Title: "Deadline of a slow handler", Severity: audit.Critical, Mode: audit.Safe, Category: audit.Limits,
			Background: true, Confirms: true,
			Sends:        "a GET of the slow path, waiting 5 s longer than the deadline; once more when that failed",
			Passes:       "504 or 503 with a body, at the deadline (30 s) and 2 s at the latest",
			Fails:        "a success after the deadline, no answer at all, or a connection cut without a status, twice",
			Inconclusive: "no slow path, or one that answers before the deadline",
			Guard:        "a server that kills its worker cuts the connection with no status: that is a failure, told apart from a target that is down by a request after it. One request at a time, so that a target of two workers goes on",
			Knobs:        []string{"--slow-path", "--deadline"},
			Refs:         []string{"CWE-400", "ASVS 13.1.3", "OWASP API4:2023"},
			Why:          "When a dependency hangs, every request that waits for it holds a worker, until none is left for anybody.",
			Fix:          "Give every request a deadline in the server, answer 504, and hand the deadline on to the database and outgoing calls.",
			Run:          slowHandler,
		},
		{
			ID: "LIM-02", Title: "Clients that send headers or bodies one byte at a time", Severity: audit.High, Mode: audit.Safe, Category: audit.Limits,
			Background: true, Confirms: true,
			Sends:        "on two connections half a header and then a byte every 5 s; on two more a POST of Content-Length 1000 and then a byte every 5 s",
			Passes:       "all are closed, or answered 408, within 60 s (75 s for the body)",
			Fails:        "both connections of a kind are still open then",
			Inconclusive: "the two of a kind end differently, the body is refused before it is read, or the target is down afterwards",
			Guard:        "four connections only: this detects, it does not exhaust",
			Knobs:        []string{"--write-path"},
			Refs:         []string{"CWE-770", "RFC 9110 section 15.5.9"},
			Why:          "One laptop with a few thousand such connections takes a server down, without any load to be seen.",
			Fix:          "Set a timeout of 5 to 10 s for headers and one for whole bodies, or let a buffering proxy stand before the API.",
			Run:          slowClients,
		},
	}
}

// slowHandler asks once, and again only when that failed.
func slowHandler(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	if s.Target().SlowPath == "" {
		return audit.Unproven("no path is known to be slow").Unlock("--slow-path"), nil
	}
	var v audit.Verdict
	for range 2 {
		x, err := s.Do(ctx, audit.Request{
			Path: s.Target().SlowPath, Token: s.Target().Token, Label: "slow path", Fresh: true, Timeout: patience(s.Policy()),
		})
		if err != nil {
			return audit.Verdict{}, err
		}
		if v = judgeSlow(s.Policy(), x); v.Outcome != audit.Fail {
			return v, nil
		}
		if x.Status == 0 && !x.TimedOut() {
			alive, err := s.Healthy(ctx, patience(s.Policy()))
			if err != nil {
				return audit.Verdict{}, err
			}
			if !alive {
				return audit.Unproven("the connection broke, and the target does not answer any longer").With(x), nil
			}
		}
	}
	return v, nil
}

// patience is how long the client waits: 5 s longer than a deadline of 30 s with 2 s of grace.
func patience(p audit.Policy) time.Duration { return p.Deadline + p.Grace*5/2 }

func judgeSlow(p audit.Policy, x *audit.Exchange) audit.Verdict {
	took := x.Took.Round(10 * time.Millisecond)
	cut := x.Status == http.StatusGatewayTimeout || x.Status == http.StatusServiceUnavailable
	late := x.Took > p.Deadline+p.Grace
	switch {
	case x.TimedOut():
		return audit.Failed("no whole answer after %s; the deadline is %s", took, p.Deadline).With(x)
	case x.Status == 0:
		return audit.Failed("the connection is cut after %s with no status: reset, not 504", took).With(x)
	case cut && late:
		return audit.Failed("%d, but only after %s; the deadline is %s", x.Status, took, p.Deadline).With(x)
	case cut && x.Took < p.Deadline/20:
		return audit.Unproven("%d at once, after %s: nothing was slow", x.Status, took).With(x)
	case cut && len(x.Body) == 0:
		return audit.Failed("%d after %s, but without a body", x.Status, took).With(x).As(audit.Low)
	case cut:
		return audit.Passed("%d after %s; the deadline is %s", x.Status, took, p.Deadline).With(x).Measured("tookMs", x.Took.Milliseconds())
	case x.OK() && late:
		return audit.Failed("%d after %s: the deadline of %s passed unseen", x.Status, took, p.Deadline).With(x)
	}
	return audit.Unproven("%d after %s, before the deadline of %s could be seen to cut it", x.Status, took, p.Deadline).With(x).
		Unlock("--slow-path of a handler that takes longer than the deadline")
}

// bodyPath is where a body may be sent, and whether anybody said so: the declared path, the first POST of the
// description that needs no parameters, or the calibrated path.
func bodyPath(s *audit.Session) (path string, known bool) {
	if s.Target().WritePath != "" {
		return s.Target().WritePath, true
	}
	for _, op := range s.Target().Operations {
		if op.Method == http.MethodPost && !strings.Contains(op.Path, "{") {
			return op.Path, true
		}
	}
	return s.Calibration().Path, false
}

// rawHead is a request's head for a connection on which the probe writes itself, without the empty line.
func rawHead(s *audit.Session, method, path string, lines ...string) string {
	t := s.Target()
	if !strings.HasPrefix(t.URL.EscapedPath()+path, "/") {
		path = "/" + path
	}
	head := fmt.Sprintf("%s %s%s HTTP/1.1\r\nHost: %s\r\n", method, t.URL.EscapedPath(), path, t.URL.Host)
	if t.Token != "" {
		head += "Authorization: Bearer " + t.Token + "\r\n"
	}
	for _, line := range lines {
		head += line + "\r\n"
	}
	return head
}

// dripping is a connection that sends one byte at a time, and how it ended.
type dripping struct {
	x      *audit.Exchange
	open   bool // still, at the limit
	status int  // answered; 0 when not
	after  time.Duration
	err    error
}

// slowClients drips on four connections at once.
func slowClients(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	p := s.Policy()
	path, _ := bodyPath(s)
	head := rawHead(s, http.MethodGet, s.Calibration().Path) + "X-Gantry: "
	body := rawHead(s, http.MethodPost, path, "Content-Type: application/json", "Content-Length: 1000") + "\r\n" + `{"gantry":"`
	var d [4]dripping
	var group sync.WaitGroup
	for i := range d {
		group.Go(func() {
			if i < 2 {
				d[i] = drip(ctx, s, "slow headers", head, p.SlowClient+p.Grace)
			} else {
				d[i] = drip(ctx, s, "slow body", body, p.SlowClient*5/4)
			}
		})
	}
	group.Wait()
	for _, one := range d {
		if one.err != nil {
			return audit.Verdict{}, one.err
		}
	}
	alive, err := s.Healthy(ctx, p.Deadline)
	if err != nil {
		return audit.Verdict{}, err
	}
	if !alive {
		return audit.Unproven("the target does not answer any longer").With(d[0].x, d[2].x), nil
	}
	return judgeDripping(p, d), nil
}

func judgeDripping(p audit.Policy, d [4]dripping) audit.Verdict {
	headers, body := d[0], d[2]
	every := dripEvery(p)
	switch {
	case headers.open && d[1].open:
		return audit.Failed("headers that come one byte every %s are still waited for after %s", every, headers.after).With(headers.x, d[1].x)
	case waitedFor(body) && waitedFor(d[3]):
		return audit.Failed("a body that comes one byte every %s is still waited for after %s", every, body.after).With(body.x, d[3].x)
	case headers.open != d[1].open, waitedFor(body) != waitedFor(d[3]):
		return audit.Unproven("two connections that did the same ended differently").With(headers.x, d[1].x, body.x, d[3].x)
	case unread(body, every):
		return audit.Unproven("slow headers are cut after %s; the body was refused (%d) before anybody waited for it", headers.after, body.status).
			With(headers.x, body.x).Unlock("--write-path")
	}
	return audit.Passed("slow headers are cut after %s, a slow body after %s", headers.after, body.after).With(headers.x, body.x)
}

// waitedFor: still open and not answered. Some servers answer from the head alone and then throw away what comes for a
// while (nginx lingers so before it closes), which holds no handler.
func waitedFor(d dripping) bool { return d.open && d.status == 0 }

// unread: answered while the rest was still to come, because nothing takes a body there or the caller may not send one.
func unread(d dripping, every time.Duration) bool {
	return (d.after < every || d.open) && d.status != 0 && d.status != http.StatusRequestTimeout
}

// dripEvery is 5 s for a limit of a minute.
func dripEvery(p audit.Policy) time.Duration { return p.SlowClient / 12 }

// drip sends head, and then a byte at a time until the target closes, answers 408, or limit has passed.
func drip(ctx context.Context, s *audit.Session, label, head string, limit time.Duration) dripping {
	conn, err := s.Dial(ctx, label)
	if err != nil {
		return dripping{err: err}
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	began, every := time.Now(), dripEvery(s.Policy())
	var d dripping
	closed := conn.Send(head) != nil
	var came []byte
	for !closed && d.status != http.StatusRequestTimeout && time.Since(began) < limit && ctx.Err() == nil {
		came, closed = listen(conn, came, min(every, limit-time.Since(began)))
		d.status = statusOf(came)
		closed = closed || conn.Send("a") != nil
	}
	d.after, d.err = time.Since(began).Round(10*time.Millisecond), ctx.Err()
	d.open = !closed && d.status != http.StatusRequestTimeout
	d.x = conn.Done()
	d.x.Status = d.status
	if d.open {
		d.x = d.x.Noted("still open after %s", d.after)
	} else {
		d.x = d.x.Noted("cut after %s", d.after)
	}
	return d
}

// listen reads for at most d, keeps the first KiB of what came, and says whether the target closed.
func listen(conn net.Conn, came []byte, d time.Duration) ([]byte, bool) {
	if conn.SetReadDeadline(time.Now().Add(d)) != nil {
		return came, true
	}
	buffer := make([]byte, 1024)
	for until := time.Now().Add(d); time.Now().Before(until); {
		n, err := conn.Read(buffer)
		came = append(came, buffer[:min(n, 1024-len(came))]...)
		if err != nil {
			var timeout net.Error
			return came, !errors.As(err, &timeout) || !timeout.Timeout()
		}
	}
	return came, false
}

// statusOf an answer's first line; 0 when there is none yet.
func statusOf(answer []byte) int {
	text := string(answer)
	if len(text) < 12 || !strings.HasPrefix(text, "HTTP/1.") {
		return 0
	}
	status, err := strconv.Atoi(text[9:12])
	if err != nil {
		return 0
	}
	return status
}

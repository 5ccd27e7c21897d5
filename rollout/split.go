package rollout

import (
	"bufio"
	"context"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// VersionHeader names, in an answer, the version that gave it, while a launch goes on.
const VersionHeader = "Gantry-Version"

// Split makes one handler of two versions of it in the same process: each request goes where the splitter
// sends its caller, and what came of it is counted by status, by panic, and by the time to the first byte,
// in which a client that is slow to send its body has a part. A GET or HEAD that the candidate answers 502,
// 503 or 504 is answered by stable instead; what the candidate writes with it reaches nobody. caller names who sent a request; nil or "" is the address it came
// from.
//
// It is what joins the pure part of this package to net/http, and the one thing in it that looks at a clock. A
// request costs an allocation more, for the writer that sees the answer.
func Split(stable, candidate http.Handler, s *Splitter, caller func(*http.Request) string) http.Handler {
	return &split{versions: [2]http.Handler{stable, candidate}, splitter: s, caller: caller}
}

type split struct {
	versions [2]http.Handler
	splitter *Splitter
	caller   func(*http.Request) string
}

// ServeHTTP answers by one of the versions.
func (sp *split) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t := sp.ticket(r)
	switch {
	case !t.Live():
		sp.versions[t.Version].ServeHTTP(w, r)
	case t.Version == Candidate && mayHide(r):
		before := maps.Clone(w.Header())
		if sp.serve(w, r, t.Mark, true) {
			h := w.Header()
			clear(h)
			maps.Copy(h, before)
			sp.serve(w, r, t.Mark.On(Stable), false)
		}
	default:
		sp.serve(w, r, t.Mark, false)
	}
}

func (sp *split) ticket(r *http.Request) Ticket {
	if sp.caller != nil {
		if name := sp.caller(r); name != "" {
			return sp.splitter.Choose(name)
		}
	}
	peer, _ := netip.ParseAddrPort(r.RemoteAddr)
	return sp.splitter.ChooseAddr(peer.Addr())
}

// mayHide says whether repeating the request does no harm.
func mayHide(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && r.ContentLength == 0 && r.Header["Upgrade"] == nil
}

// serve runs the version of m, and reports whether its failure was kept from the client.
func (sp *split) serve(w http.ResponseWriter, r *http.Request, m Mark, hide bool) (hidden bool) {
	a := &answer{ResponseWriter: w, ctx: r.Context(), splitter: sp.splitter, mark: m, hide: hide, began: time.Now()}
	w.Header().Set(VersionHeader, m.Version().String())
	clean := false
	defer func() {
		switch {
		case clean:
			a.begin(http.StatusOK) // what a handler that wrote nothing has said
		case a.status == 0:
			a.begin(http.StatusInternalServerError)
		case a.status < 500 && a.ctx.Err() == nil:
			a.splitter.Broke(m)
		}
	}()
	sp.versions[m.Version()].ServeHTTP(a, r)
	clean = true
	return a.hidden
}

// answer is the writer a version sees: it counts when the answer begins, and can keep it to itself.
type answer struct {
	http.ResponseWriter
	ctx      context.Context
	splitter *Splitter
	mark     Mark
	began    time.Time
	status   int
	hide     bool // a failure may be kept from the client
	hidden   bool
}

// begin counts the answer by its status, once.
func (a *answer) begin(status int) {
	if a.status != 0 {
		return
	}
	a.status = status
	switch err := a.ctx.Err(); err {
	case context.Canceled: // the client has left
	default:
		a.splitter.Done(a.mark, time.Since(a.began), Outcome{Failed: status >= 500 || err != nil})
	}
}

// WriteHeader sends a status, unless it is a failure to be hidden.
func (a *answer) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		a.begin(status)
		a.hidden = a.hidden || a.hide && status >= 502 && status <= 504 && a.splitter.Shield(a.mark, true)
	}
	a.hide = false
	if !a.hidden {
		a.ResponseWriter.WriteHeader(status)
	}
}

// Write sends body bytes.
func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if a.hidden {
		return len(p), nil
	}
	return a.ResponseWriter.Write(p)
}

// Flush implements http.Flusher.
func (a *answer) Flush() { _ = a.FlushError() }

// FlushError sends what is buffered, for http.ResponseController.
func (a *answer) FlushError() error {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if a.hidden {
		return nil
	}
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// Hijack hands the connection to the handler, which counts as an answer that has begun.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err == nil {
		a.begin(http.StatusSwitchingProtocols)
	}
	return conn, rw, err
}

// Unwrap is for the deadlines of http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

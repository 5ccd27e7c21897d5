package probes

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gantryhq/gantry/audit"
)

func sizes() []audit.Probe {
	return []audit.Probe{
		{
			ID: "LIM-04", Title: "Cap of a body's size", Severity: audit.High, Mode: audit.Safe, Category: audit.Limits,
			Sends:        "a POST with Expect: 100-continue and a Content-Length of 1 GiB whose body is never sent; then a chunked body of at most 32 MiB, stopped at the first refusal. Unless --active allows writing it ends as broken JSON, so that nothing is made of it",
			Passes:       "413, 417 or 400, or a closed connection, before 32 MiB were taken",
			Fails:        "32 MiB are read and answered 2xx (medium: read to the end and only then found to be broken)",
			Inconclusive: "nothing takes a body there: 404, 405 or a refusal of the caller before anything is read",
			Guard:        "never more than 32 MiB. A refused Content-Length does not end the probe: many caps look at that header only",
			Knobs:        []string{"--write-path"},
			Refs:         []string{"OWASP API4:2023", "CWE-770"},
			Why:          "A few clients that upload without end fill the memory or the disk of every replica.",
			Fix:          "Cap what is read, not only what is declared: http.MaxBytesReader, client_max_body_size, the framework's own limit.",
			Run:          bodyCap,
		},
		{
			ID: "LIM-05", Title: "Caps of headers and of the URL", Severity: audit.Medium, Mode: audit.Safe, Category: audit.Limits,
			Sends:        "a header of 64 KiB, 200 headers, and a URL of 16 KiB, one request each",
			Passes:       "431, 414, 413 or 400, or a closed connection; 200 small headers may also be served, and the URL where the header was refused: its cap is of the whole head, and above 16 KiB",
			Fails:        "5xx or no answer (low: the long header or the long URL is answered as a short one is)",
			Inconclusive: "the answer is about something else: the caller refused, a rate limit",
			Guard:        "the plain request must be answered well before and after",
			Refs:         []string{"RFC 6585 section 5", "RFC 9110 section 15.5.15"},
			Why:          "What the front door lets in, everything behind it must hold: proxies, logs and caches break on it one after the other.",
			Fix:          "Set the server's largest header size (8 to 16 KiB) and the longest URL.",
			Run:          headCaps,
		},
		{
			ID: "LIM-06", Title: "Deep, long and inflated JSON", Severity: audit.High, Mode: audit.Safe, Category: audit.Limits, Confirms: true,
			Sends:        "POSTs of 10,000 nested arrays, a number of 1 MiB and 100,000 keys, each cut short so that nothing is made of it; with --active the arrays whole, and 64 KiB of gzip that unpack to 64 MiB",
			Passes:       "400, 413 or 422 within 1 s, or a connection closed before the body's end, and a healthy service after each",
			Fails:        "5xx, more than 5 s, or health lost, twice",
			Inconclusive: "no path takes JSON: broken JSON is not refused there as such",
			Guard:        "a small broken body must be refused first; health is sampled after each, and nothing more is sent once it is lost",
			Knobs:        []string{"--write-path"},
			Refs:         []string{"CWE-674", "CWE-409"},
			Why:          "One request of some KiB occupies a worker for seconds or ends its process.",
			Fix:          "Limit the depth and the unpacked size before parsing, and treat what the parser refuses as 400.",
			Run:          jsonBombs,
		},
	}
}

const (
	hugeLength = 1 << 30
	streamMost = 32 << 20
	streamStep = 64 << 10
)

// bodyCap declares a huge body, and then streams one without declaring anything.
func bodyCap(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	path, known := bodyPath(s)
	declared, err := expectHuge(ctx, s, path)
	if err != nil {
		return audit.Verdict{}, err
	}
	if noBodyThere(declared.Status) {
		return audit.Unproven("%d before anything was read: nothing takes a body at %s", declared.Status, path).With(declared).Unlock("--write-path"), nil
	}
	st, err := stream(ctx, s, path)
	if err != nil {
		return audit.Verdict{}, err
	}
	v := st.verdict(declared)
	if v.Outcome == audit.Pass && st.status == 0 {
		alive, err := s.Healthy(ctx, s.Policy().Deadline)
		if err != nil {
			return audit.Verdict{}, err
		}
		if !alive {
			return audit.Unproven("the target broke off and does not answer any longer").With(st.x), nil
		}
	}
	if v.Outcome == audit.Inconclusive && !known {
		v = v.Unlock("--write-path")
	}
	return v.Measured("bytesSent", st.sent), nil
}

// noBodyThere: refused for a reason that has nothing to do with the body.
func noBodyThere(status int) bool {
	return slices.Contains([]int{401, 403, 404, 405, 406, 410, 415, 426, 429}, status)
}

// expectHuge asks whether 1 GiB is welcome. Status 100 means yes, 0 that the target waits for it without a word.
func expectHuge(ctx context.Context, s *audit.Session, path string) (*audit.Exchange, error) {
	conn, err := s.Dial(ctx, "Content-Length of 1 GiB, body never sent")
	if err != nil {
		return nil, err
	}
	head := rawHead(s, http.MethodPost, path, "Content-Type: application/json", fmt.Sprint("Content-Length: ", hugeLength), "Expect: 100-continue")
	if err := conn.Send(head + "\r\n"); err != nil {
		conn.Done()
		return nil, fmt.Errorf("send the head: %w", err)
	}
	if _, _, err := conn.Receive(min(s.Policy().Deadline, 5*time.Second), streamStep); err != nil && ctx.Err() != nil {
		conn.Done()
		return nil, ctx.Err()
	}
	return conn.Done(), nil
}

// streamed is what came of a chunked body.
type streamed struct {
	x      *audit.Exchange
	sent   int
	whole  bool // all of it, with its end
	status int  // 0 when no answer came
	closed bool // by the target, without an answer
}

// stream sends chunks until it is refused, or all are sent. It reads meanwhile: a refusal comes in the middle.
func stream(ctx context.Context, s *audit.Session, path string) (streamed, error) {
	conn, err := s.Dial(ctx, "chunked body of at most 32 MiB")
	if err != nil {
		return streamed{}, err
	}
	if err := conn.Send(rawHead(s, http.MethodPost, path, "Content-Type: application/json", "Transfer-Encoding: chunked") + "\r\n"); err != nil {
		conn.Done()
		return streamed{}, fmt.Errorf("send the head: %w", err)
	}
	limit := max(s.Policy().Deadline, 20*time.Second)
	if err := conn.SetWriteDeadline(time.Now().Add(limit)); err != nil {
		conn.Done()
		return streamed{}, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var st streamed
	answer := make(chan error, 1)
	go func() {
		_, _, err := conn.Receive(limit, streamStep)
		answer <- err
	}()
	wrote := st.write(ctx, conn, answer, s.Allows(audit.Active))
	rest := limit
	if wrote != nil { // what the target said before it stopped reading is still to be heard
		rest = time.Second
	}
	conn.SetReadDeadline(time.Now().Add(rest))
	heard := <-answer
	st.x = conn.Done()
	st.status = st.x.Status
	st.closed = st.status == 0 && heard != nil && !outOfTime(heard) && !st.whole
	st.x = st.x.Noted("%d KiB of the body were sent", st.sent>>10)
	return st, ctx.Err()
}

// write the chunks until an answer or an end is there; the answer is put back for the caller.
func (st *streamed) write(ctx context.Context, conn *audit.Conn, answer chan error, valid bool) error {
	fill := bytes.Repeat([]byte("a"), streamStep)
	for st.sent < streamMost && ctx.Err() == nil {
		select {
		case err := <-answer:
			answer <- err
			return nil
		default:
		}
		data := fill
		if st.sent == 0 {
			data = append([]byte(`{"gantry":"`), fill[11:]...)
		}
		if valid && st.sent == streamMost-streamStep {
			data = append(bytes.Clone(fill[2:]), `"}`...)
		}
		if _, err := fmt.Fprintf(conn.Conn, "%x\r\n%s\r\n", len(data), data); err != nil {
			return err
		}
		st.sent += len(data)
	}
	_, err := conn.Write([]byte("0\r\n\r\n"))
	st.whole = err == nil && st.sent == streamMost
	return err
}

func outOfTime(err error) bool {
	t, ok := err.(interface{ Timeout() bool })
	return ok && t.Timeout()
}

func (st streamed) verdict(declared *audit.Exchange) audit.Verdict {
	sent := st.sent >> 10
	refusal := st.status == 400 || st.status == 411 || st.status == 417 || st.status == 422 || st.status == 501
	var v audit.Verdict
	switch {
	case st.status == http.StatusRequestEntityTooLarge:
		v = audit.Passed("413 after %d KiB", sent)
	case st.status >= 200 && st.status < 300 && st.whole:
		v = audit.Failed("32 MiB were read and answered %d: no cap", st.status)
	case refusal && st.whole:
		v = audit.Failed("32 MiB were read to the end before the answer %d: no cap", st.status).As(audit.Medium)
	case refusal:
		v = audit.Passed("%d after %d KiB, before the body's end", st.status, sent)
	case st.closed:
		v = audit.Passed("the connection was closed after %d KiB", sent)
	case st.status == 0:
		v = audit.Unproven("no answer to %d KiB", sent)
	default:
		v = audit.Unproven("%d after %d KiB: that says nothing about a cap", st.status, sent)
	}
	return v.With(st.x, declared)
}

// oversized is a request with too much of one thing.
type oversized struct {
	label string
	many  bool // many small headers: serving them is no fault
	r     audit.Request
	small string // the same path with a short query, where the URL is what is long
}

func headCaps(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	plain := audit.Request{Path: s.Calibration().Path, Token: s.Target().Token, Label: "control: plain"}
	before, err := s.Do(ctx, plain)
	if err != nil {
		return audit.Verdict{}, err
	}
	if before.Status == 0 || before.Status >= 500 {
		return audit.Unproven("the plain request is not answered well: %s", before).With(before), nil
	}
	var served, within, unclear, last *audit.Exchange
	capped := false
	for _, o := range oversizedHeads(plain) {
		x, err := s.Do(ctx, o.r)
		if err != nil {
			return audit.Verdict{}, err
		}
		last = x
		like, err := o.likeSmall(ctx, s, x, before)
		switch {
		case err != nil:
			return audit.Verdict{}, err
		case x.TimedOut(), x.Status >= 500:
			return audit.Failed("%s: %s", o.label, result(x)).With(x, before), nil
		case like && o.many:
		case !like && (x.Status == 0 || headRefused(x)):
			capped = capped || o.small == "" && !o.many
		case like && capped && o.small != "":
			within = x
		case like:
			served = x
		default:
			unclear = x
		}
	}
	after, err := s.Do(ctx, plain)
	switch {
	case err != nil:
		return audit.Verdict{}, err
	case after.Status != before.Status:
		return audit.Unproven("the plain request is answered otherwise afterwards: %s", after).With(last, after), nil
	case served != nil:
		return audit.Failed("answered (%d) as a short one is: %s", served.Status, served.Request.Label).With(served).As(audit.Low), nil
	case unclear != nil:
		return audit.Unproven("the answer %d says nothing about a cap: %s", unclear.Status, unclear.Request.Label).With(unclear), nil
	}
	if within != nil {
		return audit.Passed("64 KiB of header are refused; 16 KiB of URL are within that cap").With(within), nil
	}
	return audit.Passed("64 KiB of header and 16 KiB of URL are refused").With(last), nil
}

func headRefused(x *audit.Exchange) bool {
	return slices.Contains([]int{400, 413, 414, 431}, x.Status)
}

// likeSmall says whether x is answered as its short twin is: the plain request, or, for an API that refuses a query it
// does not know, the plain request with a short query.
func (o oversized) likeSmall(ctx context.Context, s *audit.Session, x, plain *audit.Exchange) (bool, error) {
	if x.Status == plain.Status || o.small == "" || x.Status == 0 || x.Status == 413 || x.Status == 414 || x.Status == 431 {
		return x.Status == plain.Status, nil
	}
	r := plain.Request
	r.Path, r.Label = o.small, "control: a short query"
	twin, err := s.Do(ctx, r)
	if err != nil {
		return false, err
	}
	return twin.Status == x.Status, nil
}

func result(x *audit.Exchange) string {
	if x.Status == 0 {
		return fmt.Sprintf("no answer (%v)", x.Err)
	}
	return fmt.Sprint(x.Status)
}

func oversizedHeads(plain audit.Request) []oversized {
	long, many, url := plain, plain, plain
	long.Label, long.Header, long.Fresh = "a header of 64 KiB", audit.Header("X-Gantry", strings.Repeat("a", 64<<10)), true
	many.Label, many.Header, many.Fresh = "200 headers", http.Header{}, true
	for i := range 200 {
		many.Header.Set(fmt.Sprintf("X-Gantry-%d", i), "a")
	}
	url.Label, url.Path, url.Fresh = "a URL of 16 KiB", withQuery(plain.Path, "gantry="+strings.Repeat("a", 16<<10)), true
	return []oversized{{long.Label, false, long, ""}, {many.Label, true, many, ""}, {url.Label, false, url, withQuery(plain.Path, "gantry=a")}}
}

// The times that a hostile body may take: fine below the first, a fault above the second.
const (
	bombQuick = time.Second
	bombSlow  = 5 * time.Second
)

// bomb is a body that costs more than it weighs.
type bomb struct {
	label, encoding string
	body            []byte
}

func jsonBombs(ctx context.Context, s *audit.Session) (audit.Verdict, error) {
	path, _ := bodyPath(s)
	broken, err := s.Do(ctx, bombRequest(s, path, bomb{label: "control: small and broken", body: []byte("{")}))
	if err != nil {
		return audit.Verdict{}, err
	}
	if broken.Status < 400 || broken.Status >= 500 || noBodyThere(broken.Status) {
		return audit.Unproven("no path is known that refuses broken JSON as such: %s", broken).With(broken).Unlock("--write-path"), nil
	}
	var unclear, last *audit.Exchange
	list := bombs(s.Allows(audit.Active))
	for _, b := range list {
		x, why, err := detonate(ctx, s, bombRequest(s, path, b))
		if err != nil {
			return audit.Verdict{}, err
		}
		if why != "" {
			return audit.Failed("%s: %s, twice", b.label, why).With(x, broken), nil
		}
		if last = x; !(x.Status >= 400 && x.Status < 500 || cutWhileSending(x)) || x.Took > bombQuick {
			unclear = x
		}
	}
	if unclear != nil {
		return audit.Unproven("survived, but not refused within %s: %s, %s", bombQuick, unclear, unclear.Took.Round(time.Millisecond)).With(unclear), nil
	}
	return audit.Passed("%d hostile bodies were refused within %s, and the service stayed well", len(list), bombQuick).With(last), nil
}

func bombRequest(s *audit.Session, path string, b bomb) audit.Request {
	h := audit.Header("Content-Type", "application/json")
	if b.encoding != "" {
		h.Set("Content-Encoding", b.encoding)
	}
	return audit.Request{Method: http.MethodPost, Path: path, Token: s.Target().Token, Header: h, Body: b.body, Label: b.label, Fresh: true}
}

func bombs(active bool) []bomb {
	const depth, keys, digits = 10_000, 100_000, 1 << 20
	var many bytes.Buffer
	many.WriteString("{")
	for i := range keys {
		fmt.Fprintf(&many, `"k%d":0,`, i)
	}
	closed := depth - 1 // one short: a permissive API would keep what no later request can read
	if active {
		closed = depth
	}
	list := []bomb{
		{"10,000 nested arrays", "", []byte(strings.Repeat("[", depth) + strings.Repeat("]", closed))},
		{"a number of 1 MiB", "", []byte(`{"gantry":` + strings.Repeat("1", digits))},
		{"100,000 keys", "", many.Bytes()},
	}
	if active {
		list = append(list, bomb{"64 KiB of gzip that unpack to 64 MiB", "gzip", inflating(64)})
	}
	return list
}

// inflating is the beginning of a JSON string of n MiB of one letter, packed. One packed MiB is much like the next, so
// that it is packed once and repeated.
func inflating(n int) []byte {
	var packed bytes.Buffer
	packed.WriteString("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff") // RFC 1952 section 2.3
	w, err := flate.NewWriter(&packed, flate.BestCompression)
	if err != nil {
		panic(err) // the level is a good one
	}
	fill, sum := bytes.Repeat([]byte("a"), 1<<20), crc32.NewIEEE()
	begin := []byte(`{"gantry":"`)
	w.Write(append(begin, fill...))
	w.Flush()
	mark := packed.Len()
	w.Write(fill)
	w.Flush()
	again := bytes.Clone(packed.Bytes()[mark:])
	for range n - 2 {
		packed.Write(again)
	}
	w.Close()
	sum.Write(begin)
	for range n {
		sum.Write(fill)
	}
	trailer := binary.LittleEndian.AppendUint32(nil, sum.Sum32())
	packed.Write(binary.LittleEndian.AppendUint32(trailer, uint32(len(begin)+n<<20)))
	return packed.Bytes()
}

// cutWhileSending: the target closed before it had the whole body. It may have answered: then the answer was lost on the
// way, as happens when a refusal and the rest of the body cross.
func cutWhileSending(x *audit.Exchange) bool {
	return x.Status == 0 && (errors.Is(x.Err, syscall.EPIPE) || errors.Is(x.Err, syscall.ECONNRESET))
}

// detonate sends a body, looks at the service, and sends it again when something was wrong. why says what was wrong
// both times; it is empty otherwise.
func detonate(ctx context.Context, s *audit.Session, r audit.Request) (x *audit.Exchange, why string, err error) {
	for try := range 2 {
		if x, err = s.Do(ctx, r); err != nil {
			return x, "", err
		}
		lost, err := healthLost(ctx, s)
		switch {
		case err != nil:
			return x, "", err
		case lost:
			return x, "health is lost after it", nil // looked at twice; sending it again would be harm
		}
		if why = damage(x); why == "" {
			return x, "", nil
		}
		if try == 0 {
			if err := s.Control(ctx); err != nil {
				return x, "", fmt.Errorf("%s: %w", why, err)
			}
		}
	}
	return x, why, nil
}

func damage(x *audit.Exchange) string {
	switch {
	case x.Status >= 500:
		return fmt.Sprint(x.Status)
	case x.TimedOut(), x.Took > bombSlow:
		return fmt.Sprintf("it took %s", x.Took.Round(100*time.Millisecond))
	}
	return ""
}

// healthLost looks twice, so that one lost sample is no catastrophe.
func healthLost(ctx context.Context, s *audit.Session) (bool, error) {
	for range 2 {
		well, err := s.Healthy(ctx, 2*time.Second)
		if err != nil || well {
			return false, err
		}
	}
	return true, nil
}

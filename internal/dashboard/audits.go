package dashboard

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/gantryhq/gantry/audit"
	"github.com/gantryhq/gantry/problem"
)

// Bounds of what is read and kept of audits.
const (
	maxReport    = 16 << 20 // bytes of one report
	maxTrend     = 30       // audits in the trend
	maxKept      = 200      // reports that POST /api/audits leaves in the directory
	maxListed    = 2000     // entries of the directory that are looked at
	auditsLooked = 5 * time.Second
)

// audits are the reports in a directory, as `gantry audit --json` writes them, whatever their names are.
type audits struct {
	dir string

	mu     sync.Mutex
	looked time.Time
	known  map[string]knownAudit
	trend  []Audit
}

// knownAudit is what was read of a file, so that it is read once.
type knownAudit struct {
	modified time.Time
	size     int64
	audit    Audit
	ok       bool
}

// latest are the last audits of the target that was audited last, the oldest first.
func (a *audits) latest(now time.Time) []Audit {
	if a.dir == "" {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Sub(a.looked) >= auditsLooked {
		a.looked = now
		a.trend = a.look()
	}
	return slices.Clone(a.trend)
}

func (a *audits) look() []Audit {
	known := map[string]knownAudit{}
	var all []Audit
	for _, f := range newest(a.dir, maxTrend) {
		k, seen := a.known[f.Name()]
		if !seen || !k.modified.Equal(f.ModTime()) || k.size != f.Size() {
			k = knownAudit{modified: f.ModTime(), size: f.Size()}
			k.audit, k.ok = readAudit(filepath.Join(a.dir, f.Name()))
		}
		known[f.Name()] = k
		if k.ok {
			all = append(all, k.audit)
		}
	}
	a.known = known
	slices.SortFunc(all, func(x, y Audit) int { return x.At.Compare(y.At) })
	if len(all) == 0 {
		return nil
	}
	target := all[len(all)-1].Target
	return slices.DeleteFunc(all, func(x Audit) bool { return x.Target != target })
}

// newest are the regular files of dir that may be reports, the last written first, n at most.
func newest(dir string, n int) []fs.FileInfo {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	entries, _ := d.ReadDir(maxListed)
	var files []fs.FileInfo
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".json" || !e.Type().IsRegular() {
			continue
		}
		if info, err := e.Info(); err == nil && info.Size() <= maxReport {
			files = append(files, info)
		}
	}
	slices.SortFunc(files, func(x, y fs.FileInfo) int {
		return cmp.Or(y.ModTime().Compare(x.ModTime()), cmp.Compare(y.Name(), x.Name()))
	})
	return files[:min(n, len(files))]
}

func readAudit(path string) (Audit, bool) {
	f, err := os.Open(path)
	if err != nil {
		return Audit{}, false
	}
	defer f.Close()
	a, err := decodeAudit(io.LimitReader(f, maxReport))
	return a, err == nil
}

func decodeAudit(r io.Reader) (Audit, error) {
	var found struct {
		Schema     string
		Target     string
		Started    time.Time
		Score      audit.Score
		Incomplete string
	}
	if err := json.NewDecoder(r).Decode(&found); err != nil {
		return Audit{}, fmt.Errorf("report: %w", err)
	}
	if found.Target == "" || found.Started.IsZero() || found.Score.Algorithm == "" {
		return Audit{}, errors.New("not a report of gantry audit in JSON")
	}
	s := found.Score
	a := Audit{
		At: found.Started, Target: found.Target, Score: s.Value, CouldBe: s.CouldBe, RangeOnly: s.RangeOnly,
		Label: s.Label.String(), Critical: s.Counts.Critical, Incomplete: found.Incomplete != "",
	}
	for _, g := range s.Next[:min(3, len(s.Next))] {
		a.Next = append(a.Next, g.Name)
	}
	return a, nil
}

// takeAudit keeps a report that somebody sends, from a pipeline on another machine say.
func (d *Dashboard) takeAudit(w http.ResponseWriter, r *http.Request) {
	if d.audits.dir == "" {
		problem.Write(w, r, problem.NotFound)
		return
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReport))
	if err != nil {
		problem.Write(w, r, problem.TooLarge)
		return
	}
	var a Audit
	if a, err = decodeAudit(bytes.NewReader(text)); err != nil {
		problem.Write(w, r, problem.Unprocessable.With("Send a report as gantry audit --json writes it."))
		return
	}
	if err := d.audits.keep(a.At, text); err != nil {
		d.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// keep writes a report, and removes the oldest when there are too many.
func (a *audits) keep(started time.Time, text []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	path := filepath.Join(a.dir, started.UTC().Format("20060102T150405.000Z")+".json")
	if err := os.WriteFile(path+".next", text, 0o600); err != nil { // it may quote the API: nobody else reads it
		return err
	}
	if err := os.Rename(path+".next", path); err != nil {
		return err
	}
	a.looked = time.Time{}
	all := newest(a.dir, maxListed)
	for _, f := range all[min(maxKept, len(all)):] {
		if err := os.Remove(filepath.Join(a.dir, f.Name())); err != nil {
			return err
		}
	}
	return nil
}

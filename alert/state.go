package alert

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	stateVersion = 1
	maxState     = 8 << 20 // bytes; 500 rules need a tenth
	// While something is pending or fires the state is written this often, so that its age says for how long the
	// process was away.
	heartbeat = time.Minute
	// A rule that was pending when the process ended is forgotten when that is longer ago.
	pendingAge = 5 * time.Minute
)

// state is the state file.
type state struct {
	Version int       `json:"version"`
	Saved   time.Time `json:"saved"`
	Alerts  []*record `json:"alerts"`
	Owed    []Alert   `json:"owed,omitempty"`
}

// load returns the records of the last life. Records whose rule is gone are returned too; [Engine.adopt] ends them.
func (e *Engine) load(now time.Time) []*record {
	if e.cfg.StateFile == "" {
		return nil
	}
	s, err := readState(e.cfg.StateFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		aside := e.cfg.StateFile + ".unreadable"
		e.cfg.Logger.Error("the state of the alerts cannot be read: beginning anew, silences and acknowledgements are lost",
			slog.String("file", e.cfg.StateFile), slog.Any("error", err), slog.String("kept", aside), slog.Any("rename", os.Rename(e.cfg.StateFile, aside)))
		return nil
	}
	for _, r := range s.Alerts {
		r.notBefore(now)
		if r.State == Pending && now.Sub(s.Saved) > pendingAge {
			r.State, r.Since = Inactive, now
		}
	}
	e.owed = s.Owed
	return s.Alerts
}

func readState(path string) (state, error) {
	var s state
	f, err := os.Open(path)
	if err != nil {
		return s, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err != nil {
		return s, err
	}
	if len(text) > maxState {
		return s, fmt.Errorf("larger than %d bytes", maxState)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, err
	}
	return s, s.check()
}

func (s state) check() error {
	if s.Version != stateVersion {
		return fmt.Errorf("version %d, want %d", s.Version, stateVersion)
	}
	if len(s.Alerts) > MaxRules || len(s.Owed) > 2*MaxRules {
		return fmt.Errorf("more than %d alerts", MaxRules)
	}
	for _, r := range s.Alerts {
		if r == nil || !slices.Contains([]State{Inactive, Pending, Firing}, r.State) {
			return errors.New("an alert without a state")
		}
	}
	return nil
}

// stale says that the file should be written though nothing changed.
func (e *Engine) stale(now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return now.Sub(e.saved) >= heartbeat && slices.ContainsFunc(e.records, func(r *record) bool { return r.State != Inactive })
}

// save writes the state file. One that cannot be written is told and does not keep alerts from being told.
func (e *Engine) save(now time.Time) {
	if e.cfg.StateFile == "" {
		return
	}
	e.mu.Lock()
	text, err := json.Marshal(state{Version: stateVersion, Saved: now, Alerts: e.records, Owed: e.owed})
	e.saved = now
	e.mu.Unlock()
	if err == nil {
		err = writeFile(e.cfg.StateFile, text)
	}
	if err != nil {
		e.cfg.Logger.Error("the state of the alerts cannot be kept", slog.String("file", e.cfg.StateFile), slog.Any("error", err))
	}
}

// writeFile replaces a file such that after a crash either the old or the new one is there, whole. A process and its
// successor may do so at the same time, so each writes beside it under a name of its own.
func writeFile(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

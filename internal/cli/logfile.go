package cli

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/telemetry"
)

// openLog logs JSON lines to LOG_FILE, or to stderr. reopen follows the file after a rotation, and
// shut closes it.
func openLog(cfg config.Log, stderr io.Writer) (log *slog.Logger, reopen, shut func() error, err error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Level)); err != nil {
		return nil, nil, nil, err
	}
	options := &slog.HandlerOptions{Level: level}
	if cfg.File == "" {
		nothing := func() error { return nil }
		return redacting(stderr, options), nothing, nothing, nil
	}
	f := &logFile{path: cfg.File}
	if err := f.reopen(); err != nil {
		return nil, nil, nil, err
	}
	return redacting(f, options), f.reopen, f.shut, nil
}

// redacting keeps secrets out of the log, whoever lets them slip into an error.
func redacting(w io.Writer, options *slog.HandlerOptions) *slog.Logger {
	return slog.New(telemetry.Redact(slog.NewJSONHandler(w, options)))
}

// quietLog is for commands that print what they do themselves: it takes warnings and errors.
func quietLog(stderr io.Writer) *slog.Logger {
	return slog.New(telemetry.Redact(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
}

// logFile is a file that may be moved away while it is written: reopen goes on in a new one of the
// same name, as logrotate's "postrotate kill -HUP" expects. A line is in one file or the other.
type logFile struct {
	path string
	mu   sync.Mutex
	file *os.File
}

// Write implements io.Writer.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Write(p)
}

// reopen keeps the old file when the new one cannot be had.
func (l *logFile) reopen() error {
	if err := os.MkdirAll(filepath.Dir(l.path), 0o750); err != nil {
		return fmt.Errorf("LOG_FILE: %w", err)
	}
	file, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("LOG_FILE: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.file
	l.file = file
	if old != nil {
		return old.Close()
	}
	return nil
}

func (l *logFile) shut() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

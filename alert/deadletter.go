package alert

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"
)

// Cause is why a message was not delivered. There are few, so that they can be a metric's label.
type Cause string

// The causes.
const (
	Refused         Cause = "refused"          // the receiver will not take it, now or later
	GaveUp          Cause = "gave_up"          // every attempt failed until the time was over
	QueueFull       Cause = "queue_full"       // too many were waiting
	UnknownReceiver Cause = "unknown_receiver" // nobody has the name that the rule gives
	Shutdown        Cause = "shutdown"         // the process ended, and what was waiting could not be kept
)

// DeadLetter is a message that somebody was not told.
type DeadLetter struct {
	At       time.Time `json:"at"`
	Receiver string    `json:"receiver"`
	Cause    Cause     `json:"cause"`
	// Error is the last attempt's, without secrets.
	Error        string       `json:"error,omitempty"`
	Attempts     int          `json:"attempts"`
	Notification Notification `json:"notification"`
}

// Headline is the message in one line.
func (d DeadLetter) Headline() string { return clip(d.Notification.headline(), 200) }

// DeadLetters is a file of JSON lines, and one older file beside it: NAME and NAME.1.
type DeadLetters struct {
	mu   sync.Mutex
	path string
	most int64
}

// NewDeadLetters writes to path. A file that grows beyond most bytes (0: 1 MiB) becomes the older one.
func NewDeadLetters(path string, most int64) *DeadLetters {
	if most <= 0 {
		most = 1 << 20
	}
	return &DeadLetters{path: path, most: most}
}

// Add appends a letter.
func (d *DeadLetters) Add(l DeadLetter) error {
	line, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encode dead letter: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if info, err := os.Stat(d.path); err == nil && info.Size()+int64(len(line)) > d.most {
		if err := os.Rename(d.path, d.path+".1"); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(d.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	// The break comes first as well: a line that a crash has cut must not spoil the next.
	_, err = f.Write(append(append([]byte("\n"), line...), '\n'))
	return errors.Join(err, f.Close())
}

// All returns what is kept, the oldest first. Lines that are cut are left out.
func (d *DeadLetters) All() ([]DeadLetter, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []DeadLetter
	for _, path := range []string{d.path + ".1", d.path} {
		more, err := readLetters(path, d.most)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		list = append(list, more...)
	}
	return list, nil
}

func readLetters(path string, most int64) ([]DeadLetter, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []DeadLetter
	lines := bufio.NewReader(io.LimitReader(f, 2*most))
	for {
		line, err := lines.ReadBytes('\n')
		var l DeadLetter
		if json.Unmarshal(bytes.TrimSpace(line), &l) == nil {
			list = append(list, l)
		}
		switch {
		case errors.Is(err, io.EOF):
			return list, nil
		case err != nil:
			return list, err
		}
	}
}

// kept is a message that waits over a restart.
type kept struct {
	Receiver     string       `json:"receiver"`
	Queued       time.Time    `json:"queued"`
	Attempts     int          `json:"attempts"`
	Notification Notification `json:"notification"`
}

// saveKept writes what waits, whole or not at all.
func saveKept(path string, list []kept) error {
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return writeFile(path, text)
}

// takeKept reads what waited and removes the file, so that nothing is sent twice. No file is no messages.
func takeKept(path string) (list []kept, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = os.Remove(path)
	}
	if err == nil {
		err = json.Unmarshal(text, &list)
	}
	return list, err
}

package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gantryhq/gantry/internal/testenv"
)

// scriptToken is what the API of the scripts accepts.
const scriptToken = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c2VyXzEifQ.c2NyaXB0cy1hcmUtYWxsb3dlZC10aGlz"

// TestScripts plays the sessions in testdata/script, each a promise of the command line. They find a small sound API at
// $API, which takes $TOKEN at /me, alerts at /hook and 300 ms at /slow, and an open door at $DOOR.
func TestScripts(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(scriptAPI))
	t.Cleanup(api.Close)
	door := start(t)
	testscript.Run(t, testscript.Params{
		Setup: func(e *testscript.Env) error {
			e.Setenv("API", api.URL)
			e.Setenv("DOOR", door.url)
			e.Setenv("TOKEN", scriptToken)
			return nil
		},
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "ports": ports(t), "ready": ready, "loop": loopFrom, "hangup": hangup,
		},
	})
}

func scriptAPI(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.URL.Path == "/health":
		_, _ = io.WriteString(w, `{"status":"ok"}`)
	case r.URL.Path == "/hook":
		w.WriteHeader(http.StatusNoContent)
	case r.URL.Path == "/slow":
		select {
		case <-time.After(4 * time.Second):
		case <-r.Context().Done():
		}
	case r.URL.Path != "/me":
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"error":"there is nothing here"}`)
	case r.Header.Get("Authorization") != "Bearer "+scriptToken:
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"error":"who are you"}`)
	default:
		_, _ = io.WriteString(w, `{"id":"user_1","plan":"free"}`)
	}
}

// exits runs a command and wants its exit code: exits CODE COMMAND [ARG...].
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != want {
		ts.Fatalf("%v: exit code %d, want %d", args[1:], code, want)
	}
}

// ports chooses where the script's own door will be, and says so in $OPEN and $ADMIN: ports.
func ports(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, _ bool, _ []string) {
		for listen, name := range map[string]string{"LISTEN": "OPEN", "ADMIN_LISTEN": "ADMIN"} {
			address := testenv.FreeAddress(t)
			ts.Setenv(listen, address)
			ts.Setenv(name, "http://"+address)
		}
	}
}

// ready waits until an address answers 200: ready URL.
func ready(ts *testscript.TestScript, _ bool, args []string) {
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if res, err := http.Get(args[0]); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
	}
	ts.Fatalf("%s is not ready", args[0])
}

// loopFrom asks N times and prints how often it got which status: loop N URL [FILE], the file holds a token.
func loopFrom(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	count := make(map[int]int)
	for range n {
		req, err := http.NewRequest(http.MethodGet, args[1], nil)
		ts.Check(err)
		if len(args) > 2 {
			req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(ts.ReadFile(args[2])))
		}
		res, err := http.DefaultClient.Do(req)
		ts.Check(err)
		res.Body.Close()
		count[res.StatusCode]++
	}
	for _, status := range slices.Sorted(maps.Keys(count)) {
		fmt.Fprintf(ts.Stdout(), "%d x %d\n", count[status], status)
	}
}

// hangup sends SIGHUP to what runs in the background, and waits until a log says that it has read its settings: hangup LOG.
func hangup(ts *testscript.TestScript, _ bool, args []string) {
	for _, c := range ts.BackgroundCmds() {
		ts.Check(c.Process.Signal(syscall.SIGHUP))
	}
	for end := time.Now().Add(20 * time.Second); !strings.Contains(ts.ReadFile(args[0]), "configuration reloaded"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("%s: nothing was reloaded", args[0])
		}
	}
}

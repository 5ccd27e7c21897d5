//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// process is one version of an API as a process of its own, good or bad in the ways that releases are.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	url string
}

// startProcess runs a version with flaws, and returns when it listens.
func startProcess(t *testing.T, f flaws) *process {
	t.Helper()
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	r := &process{t: t}
	r.cmd = &exec.Cmd{Path: os.Args[0], Args: []string{"release"}, Env: append(os.Environ(), "RELEASE="+string(text)), Stderr: os.Stderr}
	out, err := r.cmd.StdoutPipe()
	if err == nil {
		err = r.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.kill)
	if _, err := fmt.Fscanln(out, &r.url); err != nil {
		t.Fatalf("the release does not listen: %v", err)
	}
	return r
}

func (r *process) fallIll() { _ = r.cmd.Process.Signal(syscall.SIGUSR1) }

func (r *process) kill() {
	if r.cmd.ProcessState == nil {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
	}
}

// releaseMain is the program "release": flags would be those of the tests.
func releaseMain() {
	v := new(flawed)
	if err := json.Unmarshal([]byte(os.Getenv("RELEASE")), &v.flaws); err != nil {
		panic(err)
	}
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("http://%s\n", port.Addr())
	v.ill.Store(!v.Later)
	go v.fallIll()
	panic(http.Serve(port, v))
}

type flaws struct {
	Errors, Slow float64 // shares of requests that fail, or take a second
	User         string  // the one user for whom everything fails
	Dies         int64   // after so many requests, as one that leaks memory does; 0 never
	Database     string  // address that must accept a connection for a request to succeed
	Later        bool    // all is well until SIGUSR1
}

// flawed serves with flaws.
type flawed struct {
	flaws
	served atomic.Int64
	ill    atomic.Bool
}

// fallIll begins with the flaws at SIGUSR1.
func (v *flawed) fallIll() {
	now := make(chan os.Signal, 1)
	signal.Notify(now, syscall.SIGUSR1)
	<-now
	v.ill.Store(true)
}

// ServeHTTP does what a version of an API does: something, for a few milliseconds.
func (v *flawed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/healthy" {
		return
	}
	if v.ill.Load() && v.strikes(w, r) {
		return
	}
	time.Sleep(time.Duration(1+rand.IntN(4)) * time.Millisecond)
	fmt.Fprintln(w, "done")
}

// strikes says whether a fault has answered the request.
func (v *flawed) strikes(w http.ResponseWriter, r *http.Request) bool {
	if v.Dies > 0 && v.served.Add(1) > v.Dies {
		os.Exit(137) // as the kernel ends one that takes too much memory
	}
	if rand.Float64() < v.Slow {
		time.Sleep(time.Second)
	}
	if rand.Float64() < v.Errors || v.User != "" && r.Header.Get("X-User-Id") == v.User || !v.hasDatabase() {
		http.Error(w, "broken release", http.StatusInternalServerError)
		return true
	}
	return false
}

func (v *flawed) hasDatabase() bool {
	if v.Database == "" {
		return true
	}
	conn, err := net.DialTimeout("tcp", v.Database, time.Second)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

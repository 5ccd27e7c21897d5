package valkey

import (
	"strconv"
	"strings"
	"time"
)

// mostCommands bounds the commands of a reading; there are about 400 with all their subcommands.
const mostCommands = 2000

// reading is what INFO said at one time.
type reading struct {
	run      string // changes when the server starts anew
	cluster  bool
	stats    bool
	asked    int64 // our INFOs, this one included
	dials    int64 // our connections
	numbers  map[string]int64
	commands map[string]count
}

type count struct {
	calls int64
	spent time.Duration
}

// wanted are the numbers that are kept.
var wanted = []string{
	"keyspace_hits", "keyspace_misses", "evicted_keys", "expired_keys", "total_connections_received", "rejected_connections",
	"connected_clients", "maxclients", "used_memory", "total_reads_processed",
}

// parse reads the answer of INFO: lines of name:value, and for commands cmdstat_NAME:calls=N,usec=N,...
func parse(info string) reading {
	r := reading{numbers: map[string]int64{}, commands: map[string]count{}}
	for line := range strings.Lines(info) {
		name, value, found := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		if !found {
			continue
		}
		if command, isCommand := strings.CutPrefix(name, "cmdstat_"); isCommand && len(r.commands) < mostCommands {
			r.commands[command], r.stats = parseCommand(value), true
		}
		switch name {
		case "run_id":
			r.run = value
		case "cluster_enabled":
			r.cluster = value == "1"
		}
		for _, w := range wanted {
			if n, err := strconv.ParseInt(value, 10, 64); w == name && err == nil {
				r.numbers[name] = n
			}
		}
	}
	return r
}

func parseCommand(value string) (c count) {
	for field := range strings.SplitSeq(value, ",") {
		name, text, _ := strings.Cut(field, "=")
		n, err := strconv.ParseInt(text, 10, 64)
		switch {
		case err != nil:
		case name == "calls":
			c.calls = n
		case name == "usec":
			c.spent = time.Duration(n) * time.Microsecond
		}
	}
	return c
}

// calls is how many commands there were, without ours: all INFOs before this one.
func (r reading) calls() (n int64) {
	for _, c := range r.commands {
		n += c.calls
	}
	return n - r.asked
}

// infos only grows, by ours at least, unless the statistics are reset.
func (r reading) infos() int64 { return r.commands["info"].calls }

package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/gantryhq/gantry/internal/server"
	"github.com/gantryhq/gantry/rollout"
)

// rolloutCommands are the commands of `gantry rollout`.
func rolloutCommands() []command {
	return []command{
		{"start", "begin to move traffic to another version", rolloutStart},
		{"status", "show how the launch stands", rolloutStatus},
		{"pause", "keep the weight where it is", rolloutPause.run},
		{"resume", "end a pause or a hold", rolloutResume.run},
		{"promote", "go to the next step, whatever the evidence", rolloutPromote.run},
		{"abort", "send everyone back to stable, now", rolloutAbort.run},
		{"why", "show what was decided, and why", rolloutWhy},
		{"history", "show what past launches came to", rolloutHistory},
		{"rehearse", "play a launch by chance, and say how it would go", rehearse},
	}
}

func rolloutCommand(ctx context.Context, p Process) int {
	return dispatch(ctx, p, "gantry rollout", rolloutCommands(), rolloutUsage)
}

func rolloutUsage(w io.Writer) {
	fmt.Fprint(w, "usage: gantry rollout COMMAND [flags]\n\n")
	for _, c := range rolloutCommands() {
		fmt.Fprintf(w, "  %-10s %s\n", c.name, c.synopsis)
	}
}

// termFlags are a plan on the command line.
func termFlags(fs *flag.FlagSet) *rollout.Terms {
	t := new(rollout.Terms)
	fs.StringVar(&t.Steps, "steps", "", "rising percentages, each with a least time of its own if need be: 10@5m,50@10m,100 (the default)")
	fs.StringVar(&t.Hold, "hold", "", "least time of every step below 100 % that names none (default 5m below 50 %, and 10m from there)")
	fs.StringVar(&t.MaxErrors, "max-errors", "", "share of requests that may fail (default 0.1%)")
	fs.StringVar(&t.MaxSlow, "max-slow", "", "share of requests that may take longer to the first byte (default 5%@500ms)")
	fs.StringVar(&t.OnInconclusive, "on-inconclusive", "", "when the evidence does not come: pause, promote-if-consistent or abort (default pause)")
	fs.StringVar(&t.Watch, "watch", "", "how long the candidate is judged after 100 % (default 15m)")
	return t
}

// orderFlags say who gives an order, and why.
func orderFlags(fs *flag.FlagSet, p Process, o *server.RolloutOrder) {
	fs.StringVar(&o.Actor, "by", cmp.Or(getenv(p.Environ, "USER"), getenv(p.Environ, "LOGNAME"), "admin"), "who does it")
	fs.StringVar(&o.Reason, "reason", "", "why, for the journal")
}

func rolloutStart(ctx context.Context, p Process) int {
	fs := flags(p, "rollout start --to URL", "Begins to move traffic from the stable version to the one at URL, on every instance of the door. Whatever is wrong\nwith the plan or the address is said before one request moves. A roll back moves requests only: migrations of a\ndatabase are not undone by it.")
	admin := addAdminFlags(fs, p)
	var o server.RolloutOrder
	fs.StringVar(&o.To, "to", "", "scheme, host and port of the candidate (required)")
	fs.BoolVar(&o.MigrationsCompatible, "migrations-compatible", false, "stable can live with the migrations that the candidate's health answer calls pending")
	terms := termFlags(fs)
	orderFlags(fs, p, &o)
	if code, ok := parse(fs, p); !ok {
		return code
	}
	if o.To == "" {
		fmt.Fprintln(p.Stderr, "gantry rollout start: --to is required")
		return Usage
	}
	o.Terms = *terms
	done, err := order(ctx, admin, "start", o)
	if err != nil {
		return outcome(p, "rollout start", err)
	}
	for _, w := range done.Warnings {
		fmt.Fprintln(p.Stderr, "note:", w)
	}
	fmt.Fprintf(p.Stdout, "launch %s: %v of the callers go to %s\nwatch it with  gantry rollout status\n", done.Record.Launch, done.Record.Weight, o.To)
	return Good
}

// order gives an order to a door.
func order(ctx context.Context, admin *adminFlags, name string, o server.RolloutOrder) (done server.RolloutAnswer, err error) {
	door, err := admin.client()
	if err != nil {
		return done, err
	}
	err = door.do(ctx, http.MethodPost, o, &done, "api", "rollout", name)
	return done, err
}

// rolloutOrder is a command that changes the launch that goes on.
type rolloutOrder struct{ name, about string }

var (
	rolloutPause   = rolloutOrder{"pause", "Keeps the weight where it is until resume. The candidate is still judged, and rolled back when it must be."}
	rolloutResume  = rolloutOrder{"resume", "Ends a pause or a hold; the time of the step begins anew. A candidate that was held as worse than stable is accepted\nby it."}
	rolloutPromote = rolloutOrder{"promote", "Goes to the next step at once, whatever the evidence, and from the last ends the launch."}
	rolloutAbort   = rolloutOrder{"abort", "Sends everyone back to stable, in every phase. When the journal is unreadable it puts it aside; when it cannot be\nwritten, the door that was asked goes back at once and the others as soon as it can."}
)

func (c rolloutOrder) run(ctx context.Context, p Process) int {
	fs := flags(p, "rollout "+c.name, c.about)
	admin := addAdminFlags(fs, p)
	var o server.RolloutOrder
	orderFlags(fs, p, &o)
	if code, ok := parse(fs, p); !ok {
		return code
	}
	done, err := order(ctx, admin, c.name, o)
	if err == nil {
		_, err = fmt.Fprintf(p.Stdout, "launch %s: %s at %v\n", done.Record.Launch, done.Record.Phase, done.Record.Weight)
	}
	return outcome(p, "rollout "+c.name, err)
}

func rolloutWhy(ctx context.Context, p Process) int {
	fs := flags(p, "rollout why", "Shows what was decided in a launch, and why: every line of its journal but the looks at which nothing changed.")
	admin := addAdminFlags(fs, p)
	launch := fs.Uint64("launch", 0, "number of the launch in the history (default the latest)")
	all := fs.Bool("all", false, "show every look")
	asJSON := fs.Bool("json", false, "print the records as JSON lines")
	if code, ok := parse(fs, p); !ok {
		return code
	}
	door, err := admin.client()
	for after, more := uint64(0), true; more && err == nil; {
		var part server.RolloutJournal
		if err = door.query(ctx, &part, fmt.Sprintf("launch=%d&after=%d", *launch, after), "api", "rollout", "journal"); err != nil {
			break
		}
		for _, r := range part.Records {
			if after = r.Revision; r.Action == rollout.ActLook && !*all {
				continue
			}
			if *asJSON {
				fmt.Fprintf(p.Stdout, "%s\n", r.Encode())
				continue
			}
			fmt.Fprintf(p.Stdout, "%s  %-8s  %5s  %-12s %-8s %s\n", r.At.Local().Format(time.DateTime), r.Action, r.Weight, r.Phase, r.Actor, r.Reason)
		}
		if more = part.More; part.Unreadable != "" {
			err = fmt.Errorf("the rest is unreadable: %s", part.Unreadable)
		}
	}
	return outcome(p, "rollout why", err)
}

func rolloutHistory(ctx context.Context, p Process) int {
	fs := flags(p, "rollout history", "Shows what the last launches came to, the newest first.")
	admin := addAdminFlags(fs, p)
	n := fs.Uint("n", 20, "how many")
	asJSON := fs.Bool("json", false, "print the answer as JSON")
	if code, ok := parse(fs, p); !ok {
		return code
	}
	var past server.RolloutHistory
	door, err := admin.client()
	if err == nil {
		err = door.query(ctx, &past, fmt.Sprintf("n=%d", *n), "api", "rollout", "history")
	}
	switch {
	case err != nil:
	case *asJSON:
		err = indented(p.Stdout, past)
	case len(past.Launches) == 0:
		_, err = fmt.Fprintln(p.Stdout, "there was no launch yet")
	default:
		for _, l := range past.Launches {
			fmt.Fprintf(p.Stdout, "%4d  %s  %-12s  %s -> %s  %s: %s\n", l.Number, l.StartedAt.Local().Format(time.DateTime),
				cmp.Or(string(l.Phase), "unreadable"), l.Stable, l.Candidate, l.Actor, cmp.Or(l.Reason, l.Unread))
		}
	}
	return outcome(p, "rollout history", err)
}

func indented(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gantryhq/gantry/alert"
	"github.com/gantryhq/gantry/internal/config"
	"github.com/gantryhq/gantry/internal/server"
)

// alertCommands are the commands of `gantry alerts`.
func alertCommands() []command {
	return []command{
		{"list", "show where every alert of a running door stands", alertsList},
		{"silence", "keep an alert's messages back for a time", alertsSilence.run},
		{"unsilence", "end a silence", alertsUnsilence.run},
		{"ack", "say that you are at it", alertsAck.run},
		{"test", "send a message of each severity to each receiver", alertsTest},
		{"export", "print the rules for Prometheus, the receivers for Alertmanager, a dashboard for Grafana", alertsExport},
		{"deadletters", "show the messages that nobody was told", alertsDead},
	}
}

func alertsCommand(ctx context.Context, p Process) int {
	return dispatch(ctx, p, "gantry alerts", alertCommands(), alertsUsage)
}

func alertsUsage(w io.Writer) {
	fmt.Fprint(w, "usage: gantry alerts COMMAND [flags]\n\n")
	for _, c := range alertCommands() {
		fmt.Fprintf(w, "  %-11s %s\n", c.name, c.synopsis)
	}
}

func alertsList(ctx context.Context, p Process) int {
	fs := flags(p, "alerts list", "Shows where every alert of a running door stands, the firing ones first.")
	admin := addAdminFlags(fs, p)
	asJSON := fs.Bool("json", false, "print the answer as JSON")
	if code, ok := parse(fs, p); !ok {
		return code
	}
	var list struct {
		Alerts []alert.Alert `json:"alerts"`
	}
	door, err := admin.client()
	if err == nil {
		err = door.do(ctx, http.MethodGet, nil, &list, "api", "alerts")
	}
	if err == nil && *asJSON {
		enc := json.NewEncoder(p.Stdout)
		enc.SetIndent("", "  ")
		err = enc.Encode(list)
	} else if err == nil {
		err = printAlerts(p.Stdout, list.Alerts)
	}
	return outcome(p, fs.Name(), err)
}

// outcome says what went wrong, if anything, and is the exit code.
func outcome(p Process, name string, err error) int {
	if err != nil {
		fmt.Fprintf(p.Stderr, "gantry %s: %v\n", name, err)
		return Failed
	}
	return Good
}

func printAlerts(w io.Writer, list []alert.Alert) error {
	order := map[alert.State]int{alert.Firing: 0, alert.Pending: 1, alert.Inactive: 2}
	slices.SortStableFunc(list, func(a, b alert.Alert) int { return cmp.Compare(order[a.State], order[b.State]) })
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "STATE\tSEVERITY\tNAME\tVALUE\tCONDITION\tSINCE")
	for _, a := range list {
		value := a.Rule.Condition.Signal.Value(a.Reading.Value)
		if a.NoData {
			value = "no data"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", standing(a), a.Rule.Severity, a.Rule.Name, value, a.Rule.Condition.Text, a.Since.Local().Format(time.DateTime))
	}
	return t.Flush()
}

// standing is the state, and what people have said about it.
func standing(a alert.Alert) string {
	text := string(a.State)
	if a.AcknowledgedBy != "" {
		text += ", " + a.AcknowledgedBy + " is at it"
	}
	if a.SilencedUntil.After(time.Now()) {
		text += ", silenced until " + a.SilencedUntil.Local().Format("15:04")
	}
	return text
}

// alertChange is a command that changes one alert of a running door.
type alertChange struct {
	name, arguments, about string
	method, path           string
}

var (
	alertsSilence = alertChange{
		"silence", "NAME TIME", "Keeps an alert's messages back for a time such as 2h, 720h at most. It is evaluated all the same, and what still\nfires when the time is over is told then. NAME is the rule's, or its short form: high-latency.",
		http.MethodPost, "silence",
	}
	alertsUnsilence = alertChange{"unsilence", "NAME", "Ends a silence.", http.MethodDelete, "silence"}
	alertsAck       = alertChange{
		"ack", "NAME", "Says that somebody is at it: the receivers are told, and a firing alert is not repeated until it has resolved.",
		http.MethodPost, "acknowledge",
	}
)

func (c alertChange) run(ctx context.Context, p Process) int {
	fs := flags(p, "alerts "+c.name+" "+c.arguments, c.about)
	admin := addAdminFlags(fs, p)
	by := fs.String("by", cmp.Or(getenv(p.Environ, "USER"), getenv(p.Environ, "LOGNAME"), "admin"), "who does it")
	args, code, ok := parseMixed(fs, p)
	switch {
	case !ok:
		return code
	case len(args) != len(strings.Fields(c.arguments)):
		fs.Usage()
		return Usage
	}
	body := map[string]string{"by": *by}
	if len(args) == 2 {
		body["for"] = args[1]
	}
	var after alert.Alert
	door, err := admin.client()
	if err == nil {
		err = door.do(ctx, c.method, body, &after, "api", "alerts", args[0], c.path)
	}
	if err == nil {
		_, err = fmt.Fprintf(p.Stdout, "%s: %s\n", after.Rule.Name, standing(after))
	}
	return outcome(p, "alerts "+c.name, err)
}

func alertsTest(ctx context.Context, p Process) int {
	fs := flags(p, "alerts test", "Sends a message of each severity, marked TEST, and its resolution to each receiver that the configuration names, and\nsays what happened. A message is tried once. PagerDuty may ring: --severity low does not, as services are usually set up.")
	src := sources(fs, p)
	only := fs.String("receiver", "", "only the receiver of this name, or those behind it: oncall")
	severity := fs.String("severity", "", "only critical, high, medium or low")
	if code, ok := parse(fs, p); !ok {
		return code
	}
	cfg, report := config.Load(*src)
	if !report.OK() {
		_ = report.WriteText(p.Stderr)
		return BadSetup
	}
	list, err := tested(cfg, *only)
	severities := slices.DeleteFunc([]alert.Severity{alert.Critical, alert.High, alert.Medium, alert.Low}, func(s alert.Severity) bool {
		return *severity != "" && string(s) != *severity
	})
	if err == nil && len(severities) == 0 {
		err = fmt.Errorf("there is no severity %q", *severity)
	}
	if err != nil {
		fmt.Fprintln(p.Stderr, "gantry alerts test:", err)
		return map[bool]int{true: BadSetup, false: Usage}[errors.Is(err, errLogOnly)]
	}
	code := Good
	for _, r := range list {
		for _, s := range severities {
			if !testOne(ctx, p.Stdout, r, testMessage(cfg, s)) {
				code = Failed
			}
		}
	}
	return code
}

var errLogOnly = errors.New("alerts go to the log only: set PAGERDUTY_ROUTING_KEY, SLACK_WEBHOOK_URL, SMTP_URL or ALERT_WEBHOOK_URL")

// tested are the receivers that a name stands for, or all but the log.
func tested(cfg config.Config, only string) ([]alert.Receiver, error) {
	all, err := server.Receivers(cfg, nil)
	if err != nil {
		return nil, err
	}
	names, known := cfg.Alerting.Names[only]
	list := slices.DeleteFunc(all, func(r alert.Receiver) bool {
		return r.Name == config.LogOnly || only != "" && r.Name != only && !slices.Contains(names, r.Name)
	})
	switch {
	case len(list) > 0:
		return list, nil
	case only != "" && !known:
		return nil, fmt.Errorf("there is no receiver %q", only)
	}
	return nil, errLogOnly
}

func testMessage(cfg config.Config, s alert.Severity) alert.Notification {
	host, _ := os.Hostname()
	now := time.Now()
	return alert.Notification{
		Alert: alert.Alert{
			Rule: alert.Rule{
				Name: "Gantry alerts test", Severity: s,
				Condition: alert.Condition{Signal: alert.ErrorRate, Operator: ">", Limit: 0.01, Text: "error_rate > 1%"},
			},
			State: alert.Firing, Since: now, Fired: now, Incident: fmt.Sprintf("gantry-alerts-test-%s-%d", s, now.UnixNano()),
			Reading: alert.Reading{Value: 0.0243, Count: 1204},
		},
		At: now, Instance: host, Environment: string(cfg.Environment), Dashboard: cfg.Alerting.Dashboard, Runbook: alert.RunbookURL, Test: true,
		Facts: []alert.Fact{{Name: "Test", Value: "nobody needs to do anything"}},
	}
}

// testOne sends a message and, when it went, its resolution.
func testOne(ctx context.Context, w io.Writer, r alert.Receiver, n alert.Notification) bool {
	began := time.Now()
	err := try(ctx, r, n)
	if err == nil {
		n.Resolved, n.At, n.Alert.Reading.Value = true, time.Now(), 0
		if err = try(ctx, r, n); err != nil {
			err = fmt.Errorf("told, but not of its end: %w", err)
		}
	}
	took := time.Since(began).Round(time.Millisecond)
	if err != nil {
		fmt.Fprintf(w, "%-20s %-8s  FAIL  %8v  %v\n", r.Name, n.Alert.Rule.Severity, took, err)
		return false
	}
	fmt.Fprintf(w, "%-20s %-8s  sent  %8v\n", r.Name, n.Alert.Rule.Severity, took)
	return true
}

func try(ctx context.Context, r alert.Receiver, n alert.Notification) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return r.Notify(ctx, n)
}

func alertsDead(_ context.Context, p Process) int {
	fs := flags(p, "alerts deadletters", "Shows the messages that nobody was told, the oldest first. They are in DATA_DIR/alerts-dead.jsonl.")
	src := sources(fs, p)
	asJSON := fs.Bool("json", false, "print them as JSON lines")
	if code, ok := parse(fs, p); !ok {
		return code
	}
	cfg, _ := config.Load(*src)
	list, err := server.DeadLetters(cfg).All()
	for _, l := range list {
		if *asJSON {
			err = errors.Join(err, json.NewEncoder(p.Stdout).Encode(l))
			continue
		}
		fmt.Fprintf(p.Stdout, "%s  %-12s %-16s %s  (%d attempts) %s\n", l.At.Local().Format(time.DateTime), l.Receiver, l.Cause, l.Headline(), l.Attempts, l.Error)
	}
	if err == nil && len(list) == 0 && !*asJSON {
		fmt.Fprintln(p.Stdout, "everybody was told")
	}
	return outcome(p, fs.Name(), err)
}

package server

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/gantryhq/gantry/alert"
	"github.com/gantryhq/gantry/internal/config"
)

// openAlerts evaluates the rules in this process and brings what fires to its receivers. What both know is kept in the
// data directory over a restart.
func (s *Server) openAlerts(context.Context) (err error) {
	if s.messages, err = newDispatcher(s.cfg, s.log, func(_ string, why alert.Cause) { s.meters.Lost("alert", string(why), 1) }); err != nil {
		return err
	}
	host, _ := os.Hostname()
	s.alerts, err = alert.NewEngine(alert.Config{
		Rules: s.cfg.AlertRules, Source: signals{s}, Notify: s.messages.Send, Facts: s.alertFacts, StateFile: filepath.Join(s.cfg.DataDir, "alerts.json"),
		Instance: cmp.Or(host, "gantry"), Environment: string(s.cfg.Environment), Dashboard: s.cfg.Alerting.Dashboard, Logger: s.log,
	})
	s.work = append(s.work, s.messages.Run, s.alerts.Run)
	return err
}

// Receivers makes what delivers alerts, in the order of the configuration.
func Receivers(cfg config.Config, log *slog.Logger) ([]alert.Receiver, error) {
	var list []alert.Receiver
	for _, r := range cfg.Alerting.Receivers {
		n, err := r.Notifier(log)
		if err != nil {
			return nil, fmt.Errorf("receiver %s of alerts: %w", r.Name, err)
		}
		list = append(list, alert.Receiver{Name: r.Name, Notifier: n})
	}
	return list, nil
}

// newDispatcher delivers to the configured receivers, and keeps what waits and what is lost in the data directory.
func newDispatcher(cfg config.Config, log *slog.Logger, dropped func(string, alert.Cause)) (*alert.Dispatcher, error) {
	receivers, err := Receivers(cfg, log)
	if err != nil {
		return nil, err
	}
	return alert.NewDispatcher(receivers, alert.DispatchConfig{
		Names: cfg.Alerting.Names, Kept: filepath.Join(cfg.DataDir, "alerts-waiting.json"), Dead: DeadLetters(cfg), Dropped: dropped, Logger: log,
	}), nil
}

// DeadLetters is the file of messages that nobody was told.
func DeadLetters(cfg config.Config) *alert.DeadLetters {
	return alert.NewDeadLetters(filepath.Join(cfg.DataDir, "alerts-dead.jsonl"), 0)
}

// alertFacts are what somebody wants to know first, whatever the alert is about.
func (s *Server) alertFacts(a alert.Alert) []alert.Fact {
	window := cmp.Or(a.Rule.Window, 5*time.Minute)
	seen := s.meters.History().Over(window, time.Now())
	p50, p95, p99 := seen.Latency.Quantile(0.5), seen.Latency.Quantile(0.95), seen.Latency.Quantile(0.99)
	facts := []alert.Fact{
		{Name: "Requests", Value: fmt.Sprintf("%d in %v", seen.Requests, window)},
		{Name: "Answers", Value: fmt.Sprintf("%d of 5xx, %d of 504, %d of 429", seen.Errors, seen.Timeouts, seen.RateLimited)},
		{Name: "Tokens refused", Value: fmt.Sprint(seen.TokenRefusals)},
		{Name: "Latency", Value: fmt.Sprintf("p50 %v, p95 %v, p99 %v", round(p50), round(p95), round(p99))},
	}
	if seen.PoolMax > 0 {
		facts = append(facts, alert.Fact{Name: "Pool", Value: fmt.Sprintf("%.0f of %.0f connections", seen.PoolUsed, seen.PoolMax)})
	}
	for _, f := range s.health.HealthReport().Findings {
		if f.Last.Err != nil {
			facts = append(facts, alert.Fact{Name: "Check " + f.Name, Value: f.Last.Reason + ": " + f.Last.Err.Error()})
		}
	}
	return facts
}

func round(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// readFiring is telemetry.Sources.AlertsFiring.
func (s *Server) readFiring(set func(float64, ...string)) {
	for _, a := range s.alerts.Alerts() {
		set(number(a.State == alert.Firing), a.Rule.Name, string(a.Rule.Severity))
	}
}

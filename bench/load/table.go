package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

// table prints the middle turn of each tool on each server, in the order in which they were taken.
func table(w io.Writer, r io.Reader) error {
	var servers []string
	turns := map[string][]turn{}
	for d := json.NewDecoder(r); ; {
		var t turn
		if err := d.Decode(&t); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		if _, seen := turns[t.Server]; !seen {
			servers = append(servers, t.Server)
		}
		turns[t.Server] = append(turns[t.Server], t)
	}
	fmt.Fprintln(w, "| server | tool | requests/s | p50 ms | p95 ms | p99 ms | errors | CPU % | limited by itself |")
	fmt.Fprintln(w, "|---|---|--:|--:|--:|--:|--:|--:|---|")
	for _, server := range servers {
		rows(w, server, turns[server])
	}
	return nil
}

// rows are a server's tools, and each but the first also in parts of the first.
func rows(w io.Writer, server string, all []turn) {
	var first []turn
	for len(all) > 0 {
		tool := all[0].Tool
		same := slices.DeleteFunc(slices.Clone(all), func(t turn) bool { return t.Tool != tool })
		all = slices.DeleteFunc(all, func(t turn) bool { return t.Tool == tool })
		row(w, server, middle(same))
		if first == nil {
			first = same
			continue
		}
		parts(w, middle(first), middle(same))
	}
}

func row(w io.Writer, server string, m turn) {
	fmt.Fprintf(w, "| %s | %s | %.0f | %.3f | %.3f | %.3f | %d | %s | %s |\n",
		server, m.Tool, m.Rate, ms(m.P50), ms(m.P95), ms(m.P99), m.Errors, percent(m.CPU), m.Bottleneck)
	if m.ServiceP50 > 0 {
		fmt.Fprintf(w, "| | from when it left | | %.3f | %.3f | %.3f | | | lag p50 %.3f, p99 %.3f ms |\n",
			ms(m.ServiceP50), ms(m.ServiceP95), ms(m.ServiceP99), ms(m.LagP50), ms(m.LagP99))
	}
}

// parts is one tool's figures in parts of another's, and so of those that begin as the other's do.
func parts(w io.Writer, a, b turn) {
	fmt.Fprintf(w, "| | %s / %s | %.3f | %.3f | %.3f | %.3f | | | |\n", a.Tool, b.Tool,
		a.Rate/b.Rate, ratio(a.P50, b.P50), ratio(a.P95, b.P95), ratio(a.P99, b.P99))
	fmt.Fprintf(w, "| | from when it left / %s | | %.3f | %.3f | %.3f | | | |\n", b.Tool,
		ratio(a.ServiceP50, b.P50), ratio(a.ServiceP95, b.P95), ratio(a.ServiceP99, b.P99))
}

// middle has of every column the median of the turns.
func middle(turns []turn) turn {
	m := turns[0]
	m.Rate, m.CPU = median(turns, func(t turn) float64 { return t.Rate }), median(turns, func(t turn) float64 { return t.CPU })
	for _, column := range []func(*turn) *int64{
		func(t *turn) *int64 { return &t.P50 }, func(t *turn) *int64 { return &t.P95 }, func(t *turn) *int64 { return &t.P99 },
		func(t *turn) *int64 { return &t.ServiceP50 }, func(t *turn) *int64 { return &t.ServiceP95 }, func(t *turn) *int64 { return &t.ServiceP99 },
		func(t *turn) *int64 { return &t.LagP50 }, func(t *turn) *int64 { return &t.LagP99 },
		func(t *turn) *int64 { return &t.Errors },
	} {
		*column(&m) = median(turns, func(t turn) int64 { return *column(&t) })
	}
	limited := 0
	for _, t := range turns {
		if t.Bottleneck != "" {
			limited++
			m.Bottleneck = t.Bottleneck
		}
	}
	if limited > 0 {
		m.Bottleneck = fmt.Sprintf("%d of %d turns: %s", limited, len(turns), m.Bottleneck)
	}
	return m
}

func median[T cmp.Ordered](turns []turn, of func(turn) T) T {
	var values []T
	for _, t := range turns {
		values = append(values, of(t))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func ms(us int64) float64 { return float64(us) / 1000 }

func ratio(a, b int64) float64 { return float64(a) / float64(b) }

func percent(cpu float64) string {
	if cpu == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f", 100*cpu)
}

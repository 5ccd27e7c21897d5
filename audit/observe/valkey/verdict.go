package valkey

import (
	"fmt"
	"slices"

	"github.com/gantryhq/gantry/audit/observe"
)

const (
	// fewest is how many requests a verdict needs.
	fewest = 10
	// tooMany is how many round trips a request may make, and be fast with.
	tooMany = 20
)

// begin is the verdict where there is nothing to judge by.
func begin(obs Observation, requests int) (observe.Verdict, bool) {
	switch {
	case !obs.Known:
		return observe.Verdict{Reason: Commands + " could not be seen", Fix: "see what Capabilities says of " + Commands}, false
	case requests < fewest:
		return observe.Verdict{
			Reason: fmt.Sprintf("%d requests are too few to tell", requests),
			Fix:    fmt.Sprintf("send at least %d in a window", fewest),
		}, false
	}
	return observe.Verdict{}, true
}

// HitRatioVerdict is about the same read again and again, sent once before the window. It fails when the API looks keys up for
// the requests, for half of them at least, and finds less than half: what it stores is not what it looks for, or is gone
// too soon. It passes from 0.9 on. Without look-ups it is Unknown: the answers do not come from here; when the database runs
// statements for each of the requests meanwhile, they come from no cache at all. Sessions and the like are look-ups too.
func HitRatioVerdict(obs Observation, requests int) observe.Verdict {
	v, enough := begin(obs, requests)
	if !enough {
		return v
	}
	lookups := obs.KeyspaceHits + obs.KeyspaceMisses
	if 2*lookups < int64(requests) {
		v.Reason = fmt.Sprintf("%d equal reads looked up %d keys: their answers are not cached here", requests, lookups)
		v.Fix = "see whether the database runs statements for each; what is read often and changes seldom belongs into a cache"
		return v
	}
	v.Reason = fmt.Sprintf("%d equal reads looked up %d keys and found %d, a ratio of %.2f", requests, lookups, obs.KeyspaceHits, obs.HitRatio)
	v.Evidence = obs.perRequest(requests)
	switch {
	case obs.HitRatio >= 0.9:
		v.Outcome = observe.Pass
	case obs.HitRatio < 0.5:
		v.Outcome = observe.Fail
		v.Fix = "store under the key that is looked up, with a time to live longer than between two reads"
		if obs.Evicted > 0 {
			v.Fix += fmt.Sprintf("; %d keys were evicted: raise maxmemory", obs.Evicted)
		}
	default:
		v.Fix = "repeat it while nothing else uses the server"
	}
	return v
}

// CommandsVerdict fails when a request makes more than 20 round trips to the server, or commands where those are not counted, and
// when requests run KEYS or delete all: those stop the server for everybody.
func CommandsVerdict(obs Observation, requests int) observe.Verdict {
	v, enough := begin(obs, requests)
	if !enough {
		return v
	}
	if obs.Commands == 0 {
		return observe.Verdict{Reason: "the requests sent no command", Fix: "name a path that uses the server"}
	}
	trips, what := obs.Commands, "commands"
	if obs.RoundTrips > 0 && obs.RoundTrips < trips {
		trips, what = obs.RoundTrips, "round trips"
	}
	each := float64(trips) / float64(requests)
	v.Reason = fmt.Sprintf("%d requests sent %d commands in %d %s, %.1f each", requests, obs.Commands, trips, what, each)
	v.Evidence = obs.perRequest(requests)
	for _, c := range obs.ByName {
		if slices.Contains([]string{"keys", "flushall", "flushdb"}, c.Name) && 2*c.Calls >= int64(requests) {
			v.Outcome, v.Fix = observe.Fail, "use SCAN, or a set of the keys that belong together, instead of KEYS; delete by key"
			v.Reason += fmt.Sprintf("; %d times %s, which stops the server for all keys", c.Calls, c.Name)
			return v
		}
	}
	if each > tooMany {
		v.Outcome, v.Fix = observe.Fail, "ask for many keys at once: MGET, HGETALL, a pipeline or a script"
		return v
	}
	v.Outcome = observe.Pass
	return v
}

// PoolVerdict fails when the API opens a connection for every request, or nine of ten, and closes it. It passes below one for two
// requests. Send them one after another: a pool that is filling opens as many as are needed at once, and keeps
// them, which is Unknown.
func PoolVerdict(obs Observation, requests int) observe.Verdict {
	v, enough := begin(obs, requests)
	if !enough {
		return v
	}
	if obs.Commands == 0 && obs.Connections == 0 {
		return observe.Verdict{Reason: "the requests sent no command", Fix: "name a path that uses the server"}
	}
	ratio := float64(obs.Connections) / float64(requests)
	v.Reason = fmt.Sprintf("%d requests opened %d connections, %.2f each", requests, obs.Connections, ratio)
	v.Evidence = obs.perRequest(requests)
	switch kept := float64(obs.Left) > 0.5*float64(obs.Connections); {
	case ratio >= 0.9 && kept:
		v.Reason += fmt.Sprintf(", and %d were still open at the end: a pool that was filling, or a leak", obs.Left)
		v.Fix = "send the same again, one request after another: a pool opens no more"
	case ratio >= 0.9:
		v.Outcome, v.Fix = observe.Fail, "make one client when the process starts and use it for all requests"
	case ratio < 0.5:
		v.Outcome = observe.Pass
	default:
		v.Fix = "send more requests, while nothing else connects to the server"
	}
	return v
}

func (o Observation) perRequest(requests int) []string {
	var lines []string
	for _, c := range o.ByName[:min(len(o.ByName), observe.MaxEvidence)] {
		lines = append(lines, fmt.Sprintf("%s: %.4g a request", c.Name, float64(c.Calls)/float64(requests)))
	}
	return lines
}

#!/bin/sh
# What telemetry costs: CPU of the real binary for a request of GET /v1/users/me/ by known users, without telemetry
# and with all of it, in turns. Metrics have no switch, so they are in both unless OFF names another gantry to compare with,
# one of before. With telemetry there is a line for each request in a file, traces as TRACES says, and a scrape a second. At the
# end one more turn has twenty scrapes a second, and says how long they take. Needs wrk and curl; ROUNDS (5) of DURATION (5) seconds each; LIMIT (1.25) fails it.
set -eu
cd "$(dirname "$0")/.."
for tool in wrk curl; do
  command -v $tool >/dev/null || { echo "needs $tool: apt-get install wrk curl" >&2; exit 1; }
done
rounds=${ROUNDS:-5} duration=${DURATION:-5} clients=${CLIENTS:-32} limit=${LIMIT:-1.25}
traces=${TRACES:-} # such as "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 OTEL_TRACES_SAMPLER_ARG=0.01"
make -s build
on=$PWD/bin/gantry
off=${OFF:-$on}
dir=$(mktemp -d)
pid= scraper=
trap 'for p in $pid $scraper; do kill $p 2>/dev/null || true; done; wait; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
cd "$dir"
export LISTEN=127.0.0.1:18775 ADMIN_LISTEN=127.0.0.1:18776 RATE_LIMIT_PER_USER=1000000/s RATE_LIMIT_GLOBAL=1000000/s DRAIN_DELAY=0s
token=$("$on" token --user user_1)
ticks() { awk '{print $14 + $15}' /proc/$pid/stat; }
drive() { wrk -t1 -c"$clients" -d"$1s" -H "Authorization: Bearer $token" http://$LISTEN/v1/users/me/; }

scrape() { # every so many seconds until it is killed
  while :; do
    curl -s -o /dev/null -w '%{time_total}\n' http://$ADMIN_LISTEN/metrics
    sleep "$1"
  done
}

turn() { # name, binary, settings...
  name=$1 binary=$2
  shift 2
  env "$@" "$binary" serve >/dev/null 2>&1 & pid=$!
  until curl -s -o /dev/null http://$LISTEN/health/live; do sleep 0.1; done
  drive 1 >/dev/null # warm
  case $name in
  on) scrape 1 >/dev/null & scraper=$! ;;
  scraped) scrape 0.05 > scrapes & scraper=$! ;;
  esac
  before=$(ticks)
  drive "$duration" > out
  after=$(ticks)
  if grep -q Non-2xx out; then cat out >&2; exit 1; fi
  if [ -n "$scraper" ]; then kill $scraper; wait $scraper 2>/dev/null || true; scraper=; fi
  kill -TERM $pid
  wait $pid || true
  pid=
  awk -v name="$name" -v ticks=$((after - before)) -v hz="$(getconf CLK_TCK)" '
    / requests in / {printf "%-8s %8.2f us CPU a request, %8d requests\n", name, ticks / hz / $1 * 1e6, $1}' out | tee -a turns
}

for round in $(seq "$rounds"); do
  turn off "$off" LOG_LEVEL=error
  turn on "$on" LOG_FILE="$dir/access.log" $traces
done
turn scraped "$on" LOG_FILE="$dir/access.log" $traces
sort -n scrapes | awk '{t[NR] = $1} END {printf "scrapes under load: %d, p50 %.1f ms, p99 %.1f ms, longest %.1f ms\n", NR, t[int((NR + 1) / 2)] * 1000, t[int(NR * 0.99 + 0.99)] * 1000, t[NR] * 1000}'
# Whatever else the machine does only adds, so the least of all turns is nearest to what a request needs.
for name in off on; do grep "^$name " turns | sort -k2 -n | awk '{v[NR] = $2} END {print v[1], v[int((NR + 1) / 2)]}'; done | paste -s |
  awk -v limit="$limit" '{
    printf "median: off %.2f us, on %.2f us: %.2f times\n", $2, $4, $4 / $2
    printf "least:  off %.2f us, on %.2f us: %.2f times\n", $1, $3, $3 / $1
    exit $3 / $1 > limit
  }'

#!/bin/sh
# Cold start to listening, and idle memory, of the real binary with nothing set.
# Run from the repository; needs curl. Prints five starts and the resident set after the last.
set -eu
cd "$(dirname "$0")/.."
test -x bin/gantry || make -s build
bin=$PWD/bin/gantry
dir=$(mktemp -d)
cd "$dir"
now() { date +%s%N; }
for i in 1 2 3 4 5; do
  begin=$(now)
  LISTEN=127.0.0.1:18765 ADMIN_LISTEN=127.0.0.1:18766 "$bin" serve >/dev/null 2>&1 &
  pid=$!
  until curl -s -o /dev/null http://127.0.0.1:18765/health/live; do :; done
  echo "start $i: $(( ($(now) - begin) / 1000000 )) ms to the first answer"
  if [ "$i" = 5 ]; then
    sleep 2
    awk '/VmRSS/ {printf "idle: %.1f MiB resident\n", $2/1024}' /proc/$pid/status
  fi
  kill -TERM $pid
  wait $pid
done
rm -rf "$dir"

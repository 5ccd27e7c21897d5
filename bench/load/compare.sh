#!/bin/sh
# Gantry's load generator beside vegeta and wrk, in turns on the same servers: nginx with a small file,
# a handler that takes 1 to 20 ms, and one that pauses once for 2 s. At the end a rate that no generator
# on this machine can make. Needs go, nginx, wrk and curl; DURATION (10) seconds a turn, ROUNDS (5) of them,
# PARTS ("agree stall absurd") to leave some out. Where others work too, chrt -f 1 before the script keeps them
# out of "agree", which is light; the other parts take all they get.
set -eu
cd "$(dirname "$0")"
PATH=$PATH:/usr/sbin
for tool in go nginx wrk curl; do
  command -v $tool >/dev/null || { echo "needs $tool: apt-get install nginx-light wrk curl" >&2; exit 1; }
done
duration=${DURATION:-10} rounds=${ROUNDS:-5} rate=${RATE:-2000} clients=${CLIENTS:-22}
parts=" ${PARTS:-agree stall absurd} "
lua=$PWD/wrk.lua
dir=$(mktemp -d)
pids=
trap 'for pid in $pids; do kill $pid 2>/dev/null || true; done; wait; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
go build -o "$dir/load" .

# nginx as root gives up being root for its workers, who must be able to read the file.
chmod 755 "$dir"
mkdir "$dir/www"
head -c 1024 /dev/zero | tr '\0' x > "$dir/www/small.txt"
cat > "$dir/nginx.conf" <<END
worker_processes 1; daemon off; pid $dir/nginx.pid; error_log stderr error;
events { worker_connections 16384; }
http {
  access_log off;
  client_body_temp_path $dir/body; proxy_temp_path $dir/proxy; fastcgi_temp_path $dir/fastcgi;
  uwsgi_temp_path $dir/uwsgi; scgi_temp_path $dir/scgi;
  server { listen 127.0.0.1:18380; root $dir/www; }
}
END
nginx -p "$dir" -c "$dir/nginx.conf" 2>"$dir/nginx.err" & pids="$pids $!"
"$dir/load" serve -listen 127.0.0.1:18381 & pids="$pids $!"
nginx=http://127.0.0.1:18380/small.txt delay=http://127.0.0.1:18381/
await() { # until it answers, for at most 10 s
  curl -s -o /dev/null --retry 20 --retry-connrefused --retry-delay 1 --retry-max-time 10 "$1"
}
await $nginx
await $delay

turn() { # server, tool, url, more
  server=$1 tool=$2 url=$3
  shift 3
  case $tool in
  wrk) wrk -t1 -c"$clients" -d"${duration}s" --timeout 30s -s "$lua" "$url" | sed -n 's/^TURN //p' ;;
  *) "$dir/load" "$tool" -url "$url" -duration "${duration}s" -rate "$rate" -clients "$clients" "$@" ;;
  esac | sed "s|^{|{\"server\":\"$server\",|" | tee -a "$dir/turns" >&2
}

agree() {
  for round in $(seq "$rounds"); do
    for tool in ours vegeta; do turn "nginx, $rate/s" $tool $nginx; done
    for tool in ours vegeta; do turn "1 to 20 ms, $rate/s" $tool $delay; done
    for tool in closed wrk; do turn "1 to 20 ms, $clients clients" $tool $delay; done
  done
}

# Each gets a server of its own, that pauses 8 s after its first request.
stall() {
  duration=20
  for tool in ours vegeta closed wrk; do
    "$dir/load" serve -listen 127.0.0.1:18382 -stall 2s & paused=$!
    pids="$pids $paused"
    until curl -s -o /dev/null http://127.0.0.1:18382/; do sleep 0.1; done
    turn "a pause of 2 s in 20 s" $tool http://127.0.0.1:18382/
    kill $paused
    wait $paused || true
  done
}

absurd() {
  duration=5 rate=200000
  turn "nginx, $rate/s" ours $nginx
}

for part in agree stall absurd; do
  case $parts in *" $part "*) $part ;; esac
done
"$dir/load" table < "$dir/turns"

#!/bin/bash
# Gantry beside a Django API of the same shape, on one Postgres and one Redis, in one run.
#
#   bench/django/run.sh              60 s for each turn, about a quarter of an hour
#   bench/django/run.sh -d 10        a quick look
#
#   -d SECONDS   length of a turn (60)
#   -r ROUNDS    turns of each server and load; they alternate: Gantry, Django, Gantry, Django (2)
#   -l LOADS     of: read1000 read100 write100 (all three)
#   -t TARGETS   of: gantry django (both). django:4x8 is Django in 4 gunicorn workers of 8 threads
#                instead of the load's own
#   -s STORES    what Gantry keeps its data in: shared, the Postgres and Redis that Django has too;
#                embedded, its own SQLite and memory (shared)
#   -q           no log line for each request, from either; without it both write theirs to /dev/null
#
# Needs Go and, from Debian: wrk postgresql redis-server openssl curl python3-django gunicorn
# python3-jwt python3-psycopg2 python3-redis python3-hiredis. GANTRY=FILE measures another binary.
# Servers, ports and data are the run's own, and go with it.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
users=1000
seconds=60 rounds=2 loads="read1000 read100 write100" targets="gantry django" stores=shared level=info accesslog=/dev/null
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; }
while getopts d:r:l:t:s:qh option; do
  case $option in
    d) seconds=$OPTARG ;;
    r) rounds=$OPTARG ;;
    l) loads=$OPTARG ;;
    t) targets=$OPTARG ;;
    s) stores=$OPTARG ;;
    q) level=warn accesslog= ;;
    h) usage; exit ;;
    *) usage >&2; exit 2 ;;
  esac
done

# The loads: how many clients, what they do, and gunicorn's workers and threads. 2x16 was measured best
# for 1,000 clients; 2x5 is 10 connections to the database, as many as Gantry has.
declare -A about=([read1000]="1000 read 2x16" [read100]="100 read 2x5" [write100]="100 write 2x5")

say() { printf '%s\n' "$*" >&2; }
die() { say "run.sh: $*"; exit 1; }

# needs names everything that is missing at once.
needs() {
  local missing=() program module
  for program in wrk redis-server openssl curl gunicorn; do
    command -v "$program" >/dev/null || missing+=("$program")
  done
  [ -n "$pgbin" ] || missing+=(postgresql)
  for module in django jwt psycopg2 redis hiredis; do
    /usr/bin/python3 -c "import $module" 2>/dev/null || missing+=("python3-$module")
  done
  [ ${#missing[@]} = 0 ] || die "missing: ${missing[*]}"
}

pids=()
# stop ends one process by its id and waits until it is gone; a second signal follows after 10 s.
stop() {
  local pid=$1 signal=${2:-TERM} i
  kill -"$signal" "$pid" 2>/dev/null || return 0
  for ((i = 0; i < 100; i++)); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}

cleanup() {
  local i
  trap '' INT TERM
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    # SIGINT is Postgres's fast shutdown: it does not wait for connections.
    if [ "${pids[i]}" = "$postgres" ]; then stop "${pids[i]}" INT; else stop "${pids[i]}"; fi
  done
  rm -rf "$dir"
}

free_ports() {
  /usr/bin/python3 -c 'import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(5)]
print(*(s.getsockname()[1] for s in held))'
}

# until_ready PID COMMAND... waits up to 20 s for the command to succeed, and no longer than the process lives.
until_ready() {
  local pid=$1 i
  shift
  for ((i = 0; i < 200; i++)); do
    "$@" >/dev/null 2>&1 && return
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  return 1
}

# start_postgres runs it as user postgres when this is root, which Postgres refuses to be.
start_postgres() {
  local as=()
  if [ "$(id -u)" = 0 ]; then
    as=(setpriv --reuid=postgres --regid=postgres --init-groups)
  fi
  mkdir "$dir/postgres"
  printf '%s\n' "$password" >"$dir/pgpass"
  chmod 644 "$dir/pgpass"
  [ ${#as[@]} = 0 ] || chown postgres "$dir/postgres"
  (cd / && "${as[@]}" "$pgbin/initdb" -D "$dir/postgres" -U bench --pwfile="$dir/pgpass" \
    --auth=scram-sha-256 -E UTF8 --locale=C >"$dir/initdb.log" 2>&1) || { cat "$dir/initdb.log" >&2; die "initdb"; }
  (cd / && exec "${as[@]}" "$pgbin/postgres" -D "$dir/postgres" -c listen_addresses=127.0.0.1 -c port="$pgport" \
    -c unix_socket_directories= -c shared_buffers=256MB) >"$dir/postgres.log" 2>&1 &
  postgres=$!
  pids+=("$postgres")
  until_ready "$postgres" "$pgbin/pg_isready" -h 127.0.0.1 -p "$pgport" || { cat "$dir/postgres.log" >&2; die "Postgres does not start"; }
  for name in gantry django; do
    PGPASSWORD=$password "$pgbin/createdb" -h 127.0.0.1 -p "$pgport" -U bench "$name"
  done
}

start_redis() {
  redis-server --bind 127.0.0.1 --port "$redisport" --save '' --appendonly no --dir "$dir" >"$dir/redis.log" 2>&1 &
  redis=$!
  pids+=("$redis")
  until_ready "$redis" redis-cli -p "$redisport" ping || { cat "$dir/redis.log" >&2; die "Redis does not start"; }
}

# environments sets what each server starts with, and nothing else. The limits stay in force on both,
# too high to be reached; Gantry's global one in a shorter window, since a million is the most it counts.
environments() {
  local shared=(
    "DATABASE_URL=postgresql://bench:$password@127.0.0.1:$pgport/gantry?sslmode=disable"
    "VALKEY_URL=redis://127.0.0.1:$redisport/0" DB_POOL_MAX=10)
  [ "$stores" = shared ] || shared=()
  gantry_env=(env -i "PATH=$PATH" "HOME=$dir" "${shared[@]}" "DATA_DIR=$dir/gantry"
    "LISTEN=127.0.0.1:$port" "ADMIN_LISTEN=127.0.0.1:$adminport" "LOG_FILE=/dev/null" "LOG_LEVEL=$level"
    RATE_LIMIT_PER_USER=100000/min RATE_LIMIT_GLOBAL=1000000/20s)
  django_env=(env -i "PATH=$PATH" "HOME=$dir" PYTHONDONTWRITEBYTECODE=1 "PYTHONPATH=$here"
    "DJANGO_SETTINGS_MODULE=app.settings" "SECRET_KEY=$(openssl rand -base64 48)"
    "DATABASE_URL=postgresql://bench:$password@127.0.0.1:$pgport/django"
    "VALKEY_URL=redis://127.0.0.1:$redisport/1" "DATA_DIR=$dir"
    "JWT_PUBLIC_KEY_FILE=$dir/public.pem" JWT_ISSUER=http://dev-issuer.localhost
    "BIND=127.0.0.1:$port" "ACCESS_LOG=$accesslog"
    RATE_LIMIT_PER_USER=100000 RATE_LIMIT_GLOBAL=100000000)
}

# mint makes every user's token once. Gantry's development issuer makes the key and the first.
mint() {
  "${gantry_env[@]}" "$gantry" token --ttl 12h >"$dir/token" || die "gantry token failed"
  /usr/bin/python3 -B "$here/mint.py" "$dir/gantry/dev-issuer.pem" $users <"$dir/token" >"$dir/tokens"
  openssl rsa -in "$dir/gantry/dev-issuer.pem" -pubout -out "$dir/public.pem" 2>/dev/null
}

start_gantry() { (cd "$dir" && exec "${gantry_env[@]}" "$gantry" serve) >"$dir/gantry.out" 2>&1 & }

start_django() { # WORKERSxTHREADS
  (cd "$dir" && exec "${django_env[@]}" "WORKERS=${1%x*}" "THREADS=${1#*x}" \
    gunicorn -c "$here/gunicorn.conf.py" app.wsgi) >"$dir/django.out" 2>&1 &
}

status() { curl -s -o /dev/null -w '%{http_code}' "$@"; }

# probe proves that the server does the work: health, the right user, and no other token.
probe() {
  local token got
  token=$(head -n 1 "$dir/tokens")
  got=$(curl -s -H "Authorization: Bearer $token" "$url")
  [[ $got == *user_1* ]] || die "$1 answers: $got"
  got=$(status -H "Authorization: Bearer ${token%.*}.$(tail -n 1 "$dir/tokens" | cut -d. -f3)" "$url")
  [ "$got" = 401 ] || die "$1 answers $got to a forged token"
}

load() { # CLIENTS SECONDS read|write
  printf '%s\0' wrk -t1 -c"$1" -d"$2s" --timeout 35s -s "$here/load.lua" "$url" -- "$dir/tokens" "$3"
}

# turn starts one server, warms it with every user, measures it, and stops it.
turn() {
  local target=$1 name=$2 clients=$3 kind=$4 best=$5 server what size warm run
  IFS=: read -r what size <<<"$target"
  redis-cli -p "$redisport" flushall >/dev/null
  "start_$what" "${size:-$best}"
  server=$!
  pids+=("$server")
  until_ready "$server" curl -sf "http://127.0.0.1:$port/health" || { tail -n 20 "$dir/$what.out" >&2; die "$target does not start"; }
  probe "$target"
  mapfile -d '' -t warm < <(load 50 3 read)
  mapfile -d '' -t run < <(load "$clients" "$seconds" "$kind")
  "${warm[@]}" >/dev/null
  say "$name $target ..."
  # In the background and waited for, so that Ctrl-C is heard at once.
  /usr/bin/python3 -B "$here/measure.py" --out "$dir/results" --load "$name" --target "$target" \
    --server "$server" --store "$postgres" "$redis" -- "${run[@]}" &
  pids+=("$!")
  wait "$!"
  stop "$server"
  pids=("$postgres" "$redis")
}

pgbin=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
needs
for name in $loads; do [ -n "${about[$name]:-}" ] || die "no load is called $name"; done
for name in $targets; do [[ $name =~ ^(gantry|django(:[1-9][0-9]*x[1-9][0-9]*)?)$ ]] || die "no target is called $name"; done
gantry=${GANTRY:-$root/bin/gantry}
[ -n "${GANTRY:-}" ] || make -C "$root" -s build

dir=$(mktemp -d) postgres= redis=
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
chmod 711 "$dir"
password=$(openssl rand -hex 16)
read -r pgport redisport port adminport _ < <(free_ports)
url=http://127.0.0.1:$port/v1/users/me/

environments
start_postgres
start_redis
mint
"${django_env[@]}" /usr/bin/python3 -m django migrate --verbosity 0

say "$(nproc) CPUs, load before: $(cut -d' ' -f1-3 /proc/loadavg); Gantry's stores: $stores"
for name in $loads; do
  for ((round = 0; round < rounds; round++)); do
    for target in $targets; do turn "$target" "$name" ${about[$name]}; done
  done
done
/usr/bin/python3 -B "$here/report.py" "$dir/results"

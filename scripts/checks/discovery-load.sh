#!/usr/bin/env bash
# Ten thousand discovered backends of which a thousand a minute come or go, while requests come over new connections and
# over kept ones and long sessions exchange numbered bytes: no request fails, no session ends, no law of the counters is
# violated. Some 20 seconds, with the share of a processor that the control thread uses printed; --full, two minutes,
# and it is at most a fifth. Health checks are off: ten thousand of them are a load of their own.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

BACKENDS=10000
CHANGES_A_MINUTE=1000
# An answer has at most 64 KiB, some 4,000 addresses.
NAMES=(one.test two.test three.test)
BACKENDS_EACH=3300
# The rest, which long sessions are with.
ECHO_BACKENDS=100
SESSIONS=200
SECONDS_OF_LOAD=10
CONTROL_PERCENT_MAX=
if [[ ${1:-} == --full || ${1:-} == --long ]]; then
    SECONDS_OF_LOAD=120
    CONTROL_PERCENT_MAX=20
fi
# A kept connection stays as long as wrk wants, one to a backend that has gone only until drain_timeout: each run of wrk
# is far shorter than that.
WRK_SECONDS=5
DRAIN_TIMEOUT=60s

# One process serves every address of 127.0.0.0/8 by one socket.
start_web() {
    cat >"$WORK/nginx.conf" <<END
# A worker would outlast a master that is killed.
master_process off;
error_log stderr;
pid $WORK/nginx.pid;
events { worker_connections 4096; }
http {
    access_log off;
    keepalive_requests 1000000;
    server {
        listen 0.0.0.0:$WEB_PORT backlog=4096;
        location / { return 200 "served\\n"; }
    }
}
END
    start web nginx -p "$WORK" -e stderr -g 'daemon off;' -c "$WORK/nginx.conf"
    wait_until 10 "nginx listens" accepts_connections "127.0.0.1:$WEB_PORT"
}

# pool NAME PORT: a pool with a source for each name.
pool() {
    printf '[[pool]]\nname = "%s"\nhealth = { type = "off" }\n' "$1"
    printf 'on_remove = "drain"\ndrain_timeout = "%s"\n' "$DRAIN_TIMEOUT"
    local name
    for name in "${NAMES[@]}"; do
        printf '[[pool.discover]]\ntype = "dns"\nname = "%s"\nport = %s\nresolver = ["%s"]\ninterval = "1s"\n' \
            "$name" "$2" "$NAME_SERVER"
    done
}

write_config() {
    cat <<END
[global]
workers = 2
[admin]
metrics = "$METRICS"
[[listener]]
bind = "$FRONT"
pool = "web"
[[listener]]
bind = "$TALK"
pool = "echo"
END
    pool web "$WEB_PORT"
    cat <<END
[[pool]]
name = "echo"
health = { type = "off" }
on_remove = "keep"
[[pool.discover]]
type = "dns"
name = "echo.test"
port = $(port_of echo)
resolver = ["$NAME_SERVER"]
interval = "1s"
END
}

metrics() { curl -sSf --max-time 20 "http://$METRICS/metrics"; }

# The sum of all series that begin so.
metric() { metrics | awk -v of="$1" 'index($1, of) == 1 { sum += $NF } END { printf "%d", sum }'; }

all_are_there() {
    [[ $(metric l4lb_discovery_backends) == "$BACKENDS" && $(metric l4lb_pool_backends) == "$BACKENDS" ]]
}

# fill NAME COUNT
fill() { ask names fill "$@" >/dev/null; }

# The thread of l4lb that has this name.
thread_of() { grep -lx "$1" "/proc/${PID[lb]}"/task/*/comm | sed -nE 's#.*/task/([0-9]+)/comm#\1#p'; }

# CPU milliseconds that a thread of l4lb has used.
thread_ms() {
    sed -E 's/.*\) //' "/proc/${PID[lb]}/task/$1/stat" |
        awk -v hz="$(getconf CLK_TCK)" '{ printf "%d", ($12 + $13) * 1000 / hz }'
}

percent() { awk -v used="$1" -v span="$2" 'BEGIN { printf "%.1f", 100 * used / span }'; }

# --- the load ------------------------------------------------------------------------------------------------------

# ask_until_enough WRK_ARGS...: one run of wrk after the other, until the check has seen enough.
ask_until_enough() {
    until [[ -e $WORK/enough ]]; do wrk -t1 -d"$WRK_SECONDS" "$@" "http://$FRONT/"; done
}

# The sum of what all runs of wrk have printed: requests and failures.
figures_of_wrk() {
    awk '/requests in/ { requests += $1 }
        /Socket errors/ { gsub(",", ""); failed += $4 + $6 + $8 + $10 }
        /Non-2xx/ { failed += $NF }
        END { printf "requests=%d failed=%d\n", requests, failed }' "$WORK/kept.out" "$WORK/new.out"
}

all_talk() { [[ $(value_of open "$(ask talk count)") == "$SESSIONS" ]]; }

require curl nginx python3 wrk
build
read -r WEB_PORT names front talk metrics <<<"$(free_ports 5)"
NAME_SERVER=127.0.0.1:$names FRONT=127.0.0.1:$front TALK=127.0.0.1:$talk METRICS=127.0.0.1:$metrics
start_web
start_echo echo 0.0.0.0
start_peer names names "$NAME_SERVER"
wait_until 10 "the name server answers" grep -q '^answers$' "$WORK/names.out"
for name in "${NAMES[@]}"; do fill "$name" "$BACKENDS_EACH"; done
fill echo.test "$ECHO_BACKENDS"
write_config >"$WORK/lb.toml"
RUST_LOG=info,l4lb::session=off start_l4lb lb -c "$WORK/lb.toml"
wait_until 30 "$BACKENDS backends are discovered" all_are_there
pass "$BACKENDS backends are discovered by $((${#NAMES[@]} + 1)) names"

start_peer talk talk "$TALK" "$SESSIONS"
wait_until 30 "$SESSIONS sessions talk" all_talk
start kept ask_until_enough -c16
start new ask_until_enough -c4 -H 'Connection: close'
ask names stir "$CHANGES_A_MINUTE" >/dev/null
CONTROL=$(thread_of l4lb-control)
SOURCES=$(thread_of l4lb-discovery)
BEFORE=$(ask names count)
BEGAN=$(now_ms) CONTROL_BEGAN=$(thread_ms "$CONTROL") SOURCES_BEGAN=$(thread_ms "$SOURCES")
EPOCH_BEGAN=$(metric l4lb_epoch)
sleep "$SECONDS_OF_LOAD"
AFTER=$(ask names count)
SPAN=$(($(now_ms) - BEGAN))
CONTROL_PERCENT=$(percent $(($(thread_ms "$CONTROL") - CONTROL_BEGAN)) "$SPAN")
SOURCES_PERCENT=$(percent $(($(thread_ms "$SOURCES") - SOURCES_BEGAN)) "$SPAN")
CHANGES=$(($(value_of changes "$AFTER") - $(value_of changes "$BEFORE")))
EPOCHS=$(($(metric l4lb_epoch) - EPOCH_BEGAN))
touch "$WORK/enough"
await_exit kept 20
await_exit new 20
TALKED=$(ask talk finish)
WRK=$(figures_of_wrk)
say "$CHANGES changes and $EPOCHS epochs in $((SPAN / 1000)) s; control thread $CONTROL_PERCENT %, discovery thread" \
    "$SOURCES_PERCENT % of a processor; wrk: $WRK; $SESSIONS sessions: $TALKED"
expect "changes" "$CHANGES" -ge $((CHANGES_A_MINUTE * SPAN * 9 / 600000))
expect "epochs" "$EPOCHS" -gt 0
expect "requests" "$(value_of requests "$WRK")" -gt 1000
expect "requests that failed" "$(value_of failed "$WRK")" = 0
expect "sessions that got every byte ($TALKED)" "$(value_of right "$TALKED")" = "$SESSIONS"
expect "sessions broken" "$(value_of broken "$TALKED")" = 0
expect "invariant violations" "$(metric l4lb_invariant_violations)" = 0
expect "lost wake-ups" "$(metric l4lb_lost_wakeups_total)" = 0
expect "dials that failed" "$(metric l4lb_backend_dial_failures_total)" = 0
expect "answers that failed" "$(metrics | grep -c '^l4lb_discovery_answers_total{.*failed"} [1-9]' || true)" = 0
expect "panics" "$(log_count lb 'panicked')" = 0
[[ -z $CONTROL_PERCENT_MAX ]] ||
    expect_at_most "percent of a processor that the control thread uses" "$CONTROL_PERCENT" "$CONTROL_PERCENT_MAX"
pass "$CHANGES changes among $BACKENDS backends: 0 of $(value_of requests "$WRK") requests failed," \
    "0 of $SESSIONS sessions broken, 0 laws violated"

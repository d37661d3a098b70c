#!/usr/bin/env bash
# The cost of an idle session: memory, and processor time while nothing happens. Clients and backend are processes of
# their own. --peers: the same of HAProxy and nginx, where installed; they need more descriptors, so with 4,000.
# Goal G3 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

SESSIONS=9000
SESSIONS_OF_PEERS=4000
IDLE_SECONDS=5
# The wheel looks once after each session when the time to connect is over, which takes 80 to 120 ms of the five seconds;
# a loop that never waits takes all of them.
CPU_PERCENT_MAX=5
BYTES_AIM=1024
BYTES_MAX=1280

# measure NAME SESSIONS: prints the figures of proxy NAME on $ADDRESS; bytes a session are in $BYTES, CPU in $PERCENT.
measure() {
    local name=$1 sessions=$2 before after figures
    # The first sessions pay for what the process needs once.
    start_peer warm hold "$ADDRESS" 100
    expect "$name: first sessions" "$(value_of served "$(ask warm settle)")" = 100
    before=$(rss_of "$name")
    start_peer clients hold "$ADDRESS" "$sessions" --at-once 200
    figures=$(ask clients settle)
    expect "$name: idle sessions ($figures)" "$(value_of held "$figures")" = "$sessions"
    after=$(rss_of "$name")
    BYTES=$(((after - before) * 1024 / sessions))
    PERCENT=$(cpu_percent "${PID[$name]}" "$IDLE_SECONDS")
    figures=$(ask clients ping)
    expect "$name: sessions that answer after being idle ($figures)" "$(value_of pong "$figures")" = "$sessions"
    say "$name: $sessions idle sessions: RSS $before -> $after KiB, $BYTES bytes a session, $PERCENT % CPU"
    stop clients
    stop warm
}

# RSS in KiB of a process and its children.
rss_of() {
    local pid total=0
    for pid in "${PID[$1]}" $(pgrep -P "${PID[$1]}" || true); do
        total=$((total + $(rss_kib "$pid")))
    done
    echo "$total"
}

check_l4lb() {
    start l4lb "$L4LB" -l "$ADDRESS" -b "$BACKEND" -q
    wait_until 10 "l4lb listens" accepts_connections "$ADDRESS"
    measure l4lb "$SESSIONS"
    expect_at_most "bytes a session" "$BYTES" "$BYTES_MAX"
    expect_at_most "percent of a processor while idle" "$PERCENT" "$CPU_PERCENT_MAX"
    pass "$BYTES bytes a session (aim: $BYTES_AIM), $PERCENT % CPU while idle"
    stop l4lb
}

measure_haproxy() {
    cat >"$WORK/haproxy.cfg" <<END
global
    maxconn 4500
$(haproxy_defaults tcp 1h)
listen all
    bind $ADDRESS
    server echo $BACKEND check
END
    start haproxy haproxy -db -f "$WORK/haproxy.cfg"
    wait_until 10 "haproxy listens" accepts_connections "$ADDRESS"
    measure haproxy "$SESSIONS_OF_PEERS"
    stop haproxy
}

measure_nginx() {
    local module
    module=$(nginx -V 2>&1 | sed -nE 's/.*--modules-path=([^ ]+).*/\1/p')/ngx_stream_module.so
    cat >"$WORK/nginx.conf" <<END
$([[ ! -e $module ]] || echo "load_module $module;")
daemon off;
pid $WORK/nginx.pid;
error_log stderr;
worker_processes auto;
events { worker_connections 9000; }
stream { server { listen $ADDRESS; proxy_pass $BACKEND; proxy_timeout 1h; } }
END
    start nginx nginx -p "$WORK" -e stderr -c "$WORK/nginx.conf"
    wait_until 10 "nginx listens" accepts_connections "$ADDRESS"
    measure nginx "$SESSIONS_OF_PEERS"
    signal TERM nginx
    await_exit nginx 10
}

require_open_files() {
    local most
    most=$(ulimit -Hn)
    [[ $most == unlimited ]] || ((most >= $1)) || fail "needs a limit of $1 open files, here it is $most"
}

require python3 pgrep
require_open_files $((2 * SESSIONS + 500))
build
start_echo echo
BACKEND=127.0.0.1:$(port_of echo)
ADDRESS=$(free_address)
check_l4lb
if [[ ${1:-} == --peers ]]; then
    for peer in haproxy nginx; do
        if command -v "$peer" >/dev/null; then "measure_$peer"; else say "$peer: not installed"; fi
    done
fi

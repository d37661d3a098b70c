#!/usr/bin/env bash
# Readers that have stopped do not cost others their pipes: 200 of them, then one stream, and how its bytes went, by
# splice or by copy; HAProxy beside. And each of them is cut at its idle timeout, not at twice that.
# Root only: sockets with bounded buffers, in a network namespace.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

# More than there are pipes for one worker (src/config/fd_budget.rs).
READERS=200
# Of each of them, more than the sockets on its way and a pipe hold.
STUCK_BYTES=$((4 << 20))
STREAM_BYTES=$((32 << 20))
# A sink that has taken nothing for so long has stalled (src/worker/relay/stalled.rs).
STALL_SECONDS=1.2
# What may be copied of the stream: how it shows that it is one, and what finds that there is no pipe.
COPIES_MAX=32
IDLE_MS=2000
# Filling the sockets takes a moment; twice the timeout is what it was.
IDLE_LATE_MS_MAX=1500

STUCK_LISTEN=127.0.0.1:9090
STREAM_LISTEN=127.0.0.1:9091
STUCK_BACKEND=127.0.0.1:7000
STREAM_BACKEND=127.0.0.1:7001

# start_lb IDLE
start_lb() {
    cat >"$WORK/lb.toml" <<END
global = { workers = 1 }
listener = [{ bind = "$STUCK_LISTEN", pool = "stuck" }, { bind = "$STREAM_LISTEN", pool = "stream" }]
[[pool]]
name = "stuck"
health = { type = "off" }
timeouts = { idle = "$1" }
backend = [{ address = "$STUCK_BACKEND" }]
[[pool]]
name = "stream"
health = { type = "off" }
backend = [{ address = "$STREAM_BACKEND" }]
END
    start lb env RUNTIME_DIRECTORY="$WORK/lb.run" ip netns exec "$NEAR" "$L4LB" -c "$WORK/lb.toml"
    wait_until_listening lb
}

listens() { [[ -n $(ip netns exec "$NEAR" ss -Hltn "sport = :${1##*:}") ]]; }

start_haproxy() {
    cat >"$WORK/haproxy.cfg" <<END
global
    nbthread 1
    maxconn 2000
$(haproxy_defaults tcp 1h)
    option splice-auto
listen stuck
    bind $STUCK_LISTEN
    server s $STUCK_BACKEND
listen stream
    bind $STREAM_LISTEN
    server s $STREAM_BACKEND
END
    start lb ip netns exec "$NEAR" haproxy -db -f "$WORK/haproxy.cfg"
    # Not by a connection: HAProxy would dial for it again and again, and take the place of the one stream.
    wait_until 10 "haproxy listens" listens "$STREAM_LISTEN"
}

open_stuck() {
    start_peer crowd --in "$NEAR" crowd "$STUCK_LISTEN" --listen "$STUCK_BACKEND" --send "$STUCK_BYTES"
    wait_until 10 "the crowd listens" grep -q '^listening' "$WORK/crowd.out"
    expect "$1: streams" "$(ask crowd open "$2")" = "streams=$2"
    expect "$1: bytes that are on their way" "$(value_of sent "$(ask crowd settle)")" -lt $(($2 * STUCK_BYTES))
}

is_traced() { ! grep -q '^TracerPid:[[:space:]]*0$' "/proc/${PID[lb]}/task"/*/status; }

# How one stream goes: splices and reads that moved bytes are in $SPLICES and $COPIES.
pass_stream() {
    local what=$1
    start backend ip netns exec "$NEAR" python3 "$ROOT/scripts/lib/peers" stream --listen "$STREAM_BACKEND" --send "$STREAM_BYTES"
    wait_until 10 "the backend listens" grep -q '^listening' "$WORK/backend.out"
    start tracer strace -f -qq -e trace=splice,recvfrom -p "${PID[lb]}"
    wait_until 5 "strace has all threads" is_traced
    # HAProxy closes a session whose client ends its stream while the dial is under way.
    start client ip netns exec "$NEAR" python3 "$ROOT/scripts/lib/peers" stream --connect "$STREAM_LISTEN" --end-last
    await_exit client 60
    expect "$what: the stream ($(cat "$WORK/client.out"))" "$(value_of received "$(cat "$WORK/client.out")")" = "$STREAM_BYTES"
    await_exit backend 10
    signal TERM tracer
    wait_until 5 "strace lets go" has_ended tracer
    stop tracer
    SPLICES=$(log_count tracer 'splice\(.* = [1-9][0-9]*$')
    COPIES=$(log_count tracer 'recvfrom\(.* = [1-9][0-9]*$')
}

check_pipes() {
    local held
    start_lb 1h
    open_stuck l4lb "$READERS"
    held=$(pipes_of "${PID[lb]}")
    expect "pipes that stuck readers hold" "$held" -gt 0
    sleep "$STALL_SECONDS"
    pass_stream l4lb
    expect_at_most "reads of a stream beside $READERS stuck readers (splices: $SPLICES)" "$COPIES" "$COPIES_MAX"
    expect "splices of that stream" "$SPLICES" -gt "$COPIES"
    expect "pipes then: no more than before" "$(pipes_of "${PID[lb]}")" -le "$((held + 1))"
    expect "bytes of the stuck readers" "$(ask crowd finish)" = "right=$READERS errors=-"
    stop crowd
    signal TERM lb
    await_exit lb 10
    pass "beside $READERS stuck readers that held $held pipes $SPLICES splices and $COPIES reads moved $((STREAM_BYTES >> 20)) MiB"
}

show_haproxy() {
    if ! command -v haproxy >/dev/null; then
        say "no haproxy beside"
        return
    fi
    start_haproxy
    # It has asked whether the port is open, and the crowd has not.
    open_stuck haproxy "$READERS"
    sleep "$STALL_SECONDS"
    pass_stream haproxy
    stop crowd
    stop lb
    say "haproxy: $SPLICES splices and $COPIES reads"
}

check_idle() {
    local duration
    start_lb "${IDLE_MS}ms"
    start backend ip netns exec "$NEAR" python3 "$ROOT/scripts/lib/peers" stream --listen "$STUCK_BACKEND" --send "$STUCK_BYTES"
    wait_until 10 "the backend listens" grep -q '^listening' "$WORK/backend.out"
    start reader ip netns exec "$NEAR" bash -c "exec 3<>/dev/tcp/${STUCK_LISTEN/://}; sleep 60"
    wait_until 10 "the stuck reader is cut" log_has lb ' session .* reason=idle_timeout '
    duration=$(sed -nE 's/.* session .* duration_ms=([0-9]+).* reason=idle_timeout .*/\1/p' "$WORK/lb.log")
    expect_between "ms until a stuck reader was cut" "$IDLE_MS" "$duration" $((IDLE_MS + IDLE_LATE_MS_MAX))
    stop reader
    stop backend
    signal TERM lb
    await_exit lb 10
    pass "a reader that had stopped was cut after $duration ms, with an idle timeout of $IDLE_MS ms"
}

require_root
require ip python3 ss strace sysctl
build
make_loopback
check_pipes
show_haproxy
check_idle

#!/usr/bin/env bash
# 500 clients at once where far fewer sessions fit: the others wait without cost, and every client is served.
# Three reasons to be full: the open-files limit at start, max_sessions, and descriptors that run out later.
# Cases 59 and 83, goal G6 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

CLIENTS=500
SATURATED_SECONDS=10
CPU_PERCENT_MAX=2
PAUSE_LINES_MAX=6
# Two workers that try again every 100 ms, and some.
REFUSED_CALLS_PER_SECOND_MAX=30
RECOVERY_MS_MAX=1000
# Of each of two workers one client per connect timeout (5 s), for as long as it takes.
RESETS_MAX=20

# judge_saturation WHAT: l4lb runs as `lb`, full of the sessions that `clients` holds.
judge_saturation() {
    local before percent figures ms
    before=$(ask clients settle)
    expect "$1: clients that wait ($before)" "$(value_of waiting "$before")" -gt 100
    percent=$(cpu_percent "${PID[lb]}" "$SATURATED_SECONDS")
    expect_at_most "$1: percent of a processor while full" "$percent" "$CPU_PERCENT_MAX"
    figures=$(ask clients ping)
    expect "$1: sessions that got no answer while full ($figures)" "$(value_of lost "$figures")" = 0
    ms=$(now_ms)
    figures=$(ask clients finish)
    ms=$(($(now_ms) - ms))
    expect "$1: clients served in the end ($figures)" "$(value_of served "$figures")" = "$CLIENTS"
    expect "$1: clients that failed" "$(value_of failed "$figures")" = 0
    expect_at_most "$1: clients that were reset" "$(value_of resets "$figures")" "$RESETS_MAX"
    expect_at_most "$1: ms to serve all once there was room" "$ms" "$RECOVERY_MS_MAX"
    expect_at_most "$1: log lines on pauses" "$(log_count lb 'accepting is paused')" "$PAUSE_LINES_MAX"
    expect "$1: log lines on pauses" "$(log_count lb 'accepting is paused')" -gt 0
    ! log_has lb 'to=down' || fail "$1: a health check failed for want of descriptors"
    pass "$1: $(value_of served "$before") of $CLIENTS served at once, $percent % CPU while full for ${SATURATED_SECONDS} s," \
        "$(log_count lb 'accepting is paused') log lines, the others served in $ms ms," \
        "$(value_of resets "$figures") had to try again"
    stop lb
    stop clients
}

check_limit_at_start() {
    start lb bash -c 'ulimit -n 200 && exec "$@"' bash "$L4LB" -l "$ADDRESS" -b "$BACKEND"
    wait_until_listening lb
    start_peer clients hold "$ADDRESS" "$CLIENTS"
    judge_saturation "ulimit -n 200"
}

check_max_sessions() {
    start_l4lb lb -l "$ADDRESS" -b "$BACKEND" --max-sessions 50
    start_peer clients hold "$ADDRESS" "$CLIENTS"
    judge_saturation "--max-sessions 50"
}

# A limit that sinks while the process runs: nothing was planned for it, accept and dial meet EMFILE itself.
# The odd one is left for an accept and missing for its dial. A client that waits longer than the connect timeout
# for it is reset, and tries again.
check_descriptors_run_out() {
    start_l4lb lb -l "$ADDRESS" -b "$BACKEND"
    prlimit --pid "${PID[lb]}" --nofile=121
    start_peer clients hold "$ADDRESS" "$CLIENTS" --again
    ask clients settle >/dev/null
    judge_refused_calls
    judge_saturation "EMFILE"
}

judge_refused_calls() {
    local errors
    timeout --signal INT 5 strace -f -qq -e trace=accept4,socket -p "${PID[lb]}" 2>"$WORK/strace.log" || true
    errors=$(($(grep -c EMFILE "$WORK/strace.log") / 5))
    expect_between "calls a second that met EMFILE" 1 "$errors" "$REFUSED_CALLS_PER_SECOND_MAX"
    pass "EMFILE: $errors calls a second met it"
}

require python3 prlimit strace
build
start_echo echo
BACKEND=127.0.0.1:$(port_of echo)
ADDRESS=$(free_address)
check_limit_at_start
check_max_sessions
check_descriptors_run_out

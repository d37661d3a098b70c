#!/usr/bin/env bash
# A standard error without a reader stalls nothing, and lines dropped for it are counted and reported.
# Case 103 and goal G19 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

# More lines than the queue and the pipe hold together.
REQUESTS_MIN=12000

# Starts l4lb with a pipe for standard error, and holds the pipe open in $PIPE.
start_stuck() {
    mkfifo "$WORK/pipe"
    exec {PIPE}<>"$WORK/pipe"
    "$L4LB" -l "$ADDRESS" -b "$BACKEND" </dev/null >/dev/null 2>&"$PIPE" &
    PID[lb]=$!
    wait_until 10 "l4lb accepts" accepts_connections "$ADDRESS"
}

# Many short sessions, each of which wants to log a line. How many there were is in $REQUESTS.
make_requests() {
    REQUESTS=0
    for _ in {1..8}; do
        wrk -t1 -c32 -d2 -H 'Connection: close' "http://$ADDRESS/" >"$WORK/wrk.out" 2>&1 || fail "wrk: exit code $?"
        ! grep -E 'Socket errors|Non-2xx' "$WORK/wrk.out" || fail "sessions failed while the log is stuck"
        REQUESTS=$((REQUESTS + $(awk '/requests in/ { print $1 }' "$WORK/wrk.out")))
        ((REQUESTS < REQUESTS_MIN)) || break
    done
    expect "sessions that were served while the log is stuck" "$REQUESTS" -ge "$REQUESTS_MIN"
    pass "$REQUESTS sessions served while nobody read the log"
}

# How many lines are accounted for by what has come out of the pipe: in $DROPPED and $WRITTEN.
count_lines() {
    DROPPED=$(awk '/log lines were dropped/ && match($0, / lines=[0-9]+/) { sum += substr($0, RSTART + 7, RLENGTH - 7) }
        END { print sum + 0 }' "$WORK/drain.out")
    WRITTEN=$(grep -c ' session session=' "$WORK/drain.out" || true)
}

all_are_accounted_for() {
    count_lines
    ((DROPPED > 0 && DROPPED + WRITTEN >= REQUESTS))
}

check_drops_are_told() {
    start_stuck
    make_requests
    start drain cat "$WORK/pipe"
    wait_until 30 "each of $REQUESTS lines is written, or reported as dropped" all_are_accounted_for
    # wrk does not count what is under way at its end.
    expect_at_most "lines dropped ($DROPPED) and written ($WRITTEN)" $((DROPPED + WRITTEN)) $((REQUESTS + 500))
    pass "drained, it reported $DROPPED dropped lines and $WRITTEN were written"
    signal TERM lb
    await_exit lb 10
    expect "exit code" "$EXIT" = 0
    stop drain
    exec {PIPE}>&-
    rm "$WORK/pipe"
}

check_stuck_log_does_not_keep_it_from_ending() {
    start_stuck
    make_requests
    signal TERM lb
    await_exit lb 10
    expect "exit code with a stuck log" "$EXIT" = 0
    pass "it ends with exit code 0 after $EXIT_MS ms while the log is stuck"
    exec {PIPE}>&-
}

require wrk
build
BACKEND=$(free_address)
start_http_backend backend "${BACKEND##*:}"
ADDRESS=$(free_address)
check_drops_are_told
check_stuck_log_does_not_keep_it_from_ending

#!/usr/bin/env bash
# The effect of each signal on a process with a session, and the error of a second process on the same address.
# Case 96 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

# Far more than it takes, and far less than the drain would last.
EXIT_MS_MAX=5000

# start_with_session DRAIN_TIMEOUT: l4lb runs as `lb` and `client` holds a session through it.
start_with_session() {
    cat >"$WORK/config.toml" <<END
global = { drain_timeout = "$1" }
listener = [{ bind = "$ADDRESS" }]
pool = [{ backend = [{ address = "$BACKEND" }] }]
END
    start_l4lb lb -c "$WORK/config.toml"
    start_peer client hold "$ADDRESS" 1
    expect "sessions" "$(value_of held "$(ask client settle)")" = 1
}

refuses_connections() { ! accepts_connections "$ADDRESS"; }

expect_session_lives() { expect "$1: the session answers" "$(ask client ping)" = "pong=1 lost=0"; }

# expect_exit WHAT REASON: it ends with 0, and the session was closed for that reason. $EXIT_MS counts from $BEGAN,
# which the check has taken before what ends it: behind that, a busy machine would have lost some of it.
expect_exit() {
    await_exit lb 10
    EXIT_MS=$(($(now_ms) - BEGAN))
    expect "$1: exit code" "$EXIT" = 0
    log_has lb " session .*reason=$2 " || fail "$1: no session ended with reason=$2"
    log_has lb ' stopped: ' || fail "$1: no last line with the totals"
}

check_drain() {
    local name=$1
    start_with_session 30s
    signal "$name" lb
    wait_until 10 "SIG$name begins the drain" log_has lb 'draining'
    wait_until 10 "new connections are refused" refuses_connections
    expect_session_lives "SIG$name"
    is_running lb || fail "SIG$name: it ended before its session"
    BEGAN=$(now_ms)
    ask client finish >/dev/null
    expect_exit "SIG$name" 'done'
    expect_at_most "SIG$name: ms from the end of the last session to exit" "$EXIT_MS" "$EXIT_MS_MAX"
    stop client
    pass "SIG$name: new connections refused, the session went on, exit 0 after $EXIT_MS ms once it had ended"
}

check_drain_timeout() {
    start_with_session 1s
    BEGAN=$(now_ms)
    signal TERM lb
    expect_exit "drain_timeout" drain_timeout
    expect_between "ms until drain_timeout = 1s cuts" 1000 "$EXIT_MS" "$EXIT_MS_MAX"
    stop client
    pass "drain_timeout = 1s: the session was cut and exit 0 came after $EXIT_MS ms"
}

check_second_signal() {
    start_with_session 30s
    signal TERM lb
    wait_until 10 "the drain begins" log_has lb 'draining'
    BEGAN=$(now_ms)
    signal TERM lb
    expect_exit "second SIGTERM" stopped
    expect_at_most "second SIGTERM: ms to exit" "$EXIT_MS" "$EXIT_MS_MAX"
    stop client
    pass "second SIGTERM: the session was cut and exit 0 came after $EXIT_MS ms"
}

check_hangup() {
    start_with_session 30s
    signal HUP lb
    wait_until 10 "SIGHUP is logged" log_has lb 'configuration applied'
    expect_session_lives SIGHUP
    accepts_connections "$ADDRESS" || fail "SIGHUP: new connections are refused"
    pass "SIGHUP: the file was read again, everything goes on"
}

told_of_session() {
    local sessions
    sessions=$(sed -nE 's/.* worker_stats worker=[0-9]+ sessions=([0-9]+) .*/\1/p' "$WORK/lb.log" | paste -sd+)
    [[ -n $sessions && $((sessions)) == 1 ]]
}

check_user_signal() {
    start_with_session 30s
    signal USR1 lb
    wait_until 10 "SIGUSR1 logs the session" told_of_session
    expect_session_lives SIGUSR1
    stop lb
    stop client
    pass "SIGUSR1: each worker has logged its share, everything continues"
}

# After check_hangup: `lb` still runs.
check_address_in_use() {
    start second "$L4LB" -l "$ADDRESS" -b "$BACKEND"
    await_exit second 10
    expect "second process on the same address: exit code" "$EXIT" = 1
    log_has second "$ADDRESS.*address in use, held by l4lb \\(pid ${PID[lb]}\\)" ||
        fail "the message does not name the address, l4lb and pid ${PID[lb]}"
    expect_session_lives "address in use"
    stop lb
    stop client
    pass "address in use: exit 1, $(grep -o 'cannot listen.*' "$WORK/second.log")"
}

require python3
build
start_echo echo
BACKEND=127.0.0.1:$(port_of echo)
ADDRESS=$(free_address)
check_drain TERM
check_drain INT
check_drain_timeout
check_second_signal
check_user_signal
check_hangup
check_address_in_use

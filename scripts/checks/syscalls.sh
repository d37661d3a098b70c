#!/usr/bin/env bash
# System calls that fail: what the machine may lack for a while, and what may interrupt any call. strace makes the calls
# of a running l4lb fail, and one process lives through it all: every client is served in the end, nothing spins.
# Cases 62 and 63 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

CLIENTS=40
EXHAUSTED_SECONDS=2
CPU_PERCENT_MAX=10
# Two workers that try again every 100 ms, and health checks.
CALLS_PER_SECOND_MAX=40
RECOVERY_MS_MAX=1000

write_config() {
    cat >"$WORK/config.toml" <<END
global = { workers = 2 }
listener = [{ bind = "$ADDRESS" }]
[[pool]]
health = { interval = "1s", fast_interval = "1s", timeout = "1s", fall = 1 }
backend = [{ address = "$BACKEND" }]
END
}

# --- making calls fail ---------------------------------------------------------------------------------------------

is_traced_throughout() { ! grep -q '^TracerPid:[[:space:]]*0$' "/proc/${PID[lb]}/task"/*/status; }

# break_calls SYSCALL ERROR WHEN: from now on these calls of `lb` fail without being made. WHEN is strace's first+step,
# counted by thread.
break_calls() {
    start tracer strace -f -qq -e "trace=$1" -e "inject=$1:error=$2:when=$3" -p "${PID[lb]}"
    wait_until 5 "strace has all threads" is_traced_throughout
}

# Calls work again; how many failed is in $BROKEN.
mend_calls() {
    signal TERM tracer
    wait_until 5 "strace lets go" has_ended tracer
    stop tracer
    BROKEN=$(log_count tracer INJECTED)
}

expect_no_harm() {
    is_running lb || fail "$1: the process has ended"
    ! log_has lb 'to=down' || fail "$1: a backend was blamed for what this machine lacks"
}

# --- the rounds ----------------------------------------------------------------------------------------------------

# check_now_and_then SYSCALL ERROR...: every second call fails.
check_now_and_then() {
    local syscall=$1 error figures
    shift
    for error in "$@"; do
        break_calls "$syscall" "$error" 1+2
        start_peer clients hold "$ADDRESS" 0
        figures=$(ask clients open "$CLIENTS")
        expect "$syscall $error: clients served ($figures)" "$(value_of held "$figures")" = "$CLIENTS"
        expect "$syscall $error: sessions that answer" "$(ask clients ping)" = "pong=$CLIENTS lost=0"
        ask clients finish >/dev/null
        wait_until 5 "$syscall $error: all sessions end" log_count_is lb ' session .* reason=done ' $((DONE += CLIENTS))
        mend_calls
        expect "$syscall $error: calls that failed" "$BROKEN" -gt 0
        expect_no_harm "$syscall $error"
        stop clients
        pass "every second $syscall fails with $error: $CLIENTS of $CLIENTS clients served, $BROKEN calls failed"
    done
}

# check_all_the_time SYSCALL ERROR...: nothing goes for a while; an old session does, and then everything does again.
check_all_the_time() {
    local syscall=$1 error figures percent ms
    shift
    for error in "$@"; do
        start_peer old hold "$ADDRESS" 1
        expect "$syscall $error: the old session" "$(value_of held "$(ask old settle)")" = 1
        break_calls "$syscall" "$error" 1+
        start_peer clients hold "$ADDRESS" "$CLIENTS"
        figures=$(ask clients settle)
        expect "$syscall $error: clients that wait ($figures)" "$(value_of waiting "$figures")" = "$CLIENTS"
        percent=$(cpu_percent "${PID[lb]}" "$EXHAUSTED_SECONDS")
        expect_at_most "$syscall $error: percent of a processor while nothing goes" "$percent" "$CPU_PERCENT_MAX"
        expect "$syscall $error: the old session" "$(ask old ping)" = "pong=1 lost=0"
        mend_calls
        # Half a second for `settle`.
        expect_between "$syscall $error: failed calls" 1 "$BROKEN" $((CALLS_PER_SECOND_MAX * (EXHAUSTED_SECONDS + 2)))
        ms=$(now_ms)
        figures=$(ask clients finish)
        ms=$(($(now_ms) - ms))
        expect "$syscall $error: clients served in the end ($figures)" "$(value_of served "$figures")" = "$CLIENTS"
        expect_at_most "$syscall $error: ms until all were served" "$ms" "$RECOVERY_MS_MAX"
        ask old finish >/dev/null
        wait_until 5 "$syscall $error: all sessions end" log_count_is lb ' session .* reason=done ' $((DONE += CLIENTS + 1))
        expect_no_harm "$syscall $error"
        stop clients
        stop old
        pass "every $syscall fails with $error: $percent % CPU, $BROKEN calls failed, all clients served $ms ms later"
    done
}

# A FIN that cannot be passed on ends the session, whatever the error says of the connection.
check_shutdown() {
    local figures ended
    break_calls shutdown ENOTCONN 1+2
    start_peer clients hold "$ADDRESS" 0
    figures=$(ask clients open "$CLIENTS")
    expect "shutdown: clients served ($figures)" "$(value_of held "$figures")" = "$CLIENTS"
    ended=$(log_count lb ' session ')
    ask clients finish >/dev/null
    wait_until 5 "shutdown: all sessions end" log_count_is lb ' session ' $((ended + CLIENTS))
    mend_calls
    expect "shutdown: calls that failed" "$BROKEN" -gt 0
    expect_no_harm shutdown
    stop clients
    pass "every second shutdown fails with ENOTCONN: all $CLIENTS sessions ended, $BROKEN calls failed"
}

# Whichever thread cannot be started: the start fails and says so, and nothing hangs.
check_threads() {
    local nth
    for ((nth = 1; nth <= THREADS; nth++)); do
        start second strace -D -f -qq -o "$WORK/strace.out" -e trace=clone,clone3 \
            -e inject="clone,clone3:error=EAGAIN:when=$nth" "$L4LB" -l "$SECOND_ADDRESS" -b "$BACKEND" -w 2
        await_exit second 10
        expect "thread $nth cannot be started: exit code" "$EXIT" = 1
        log_has second 'l4lb: .*cannot .*Resource temporarily unavailable' ||
            fail "thread $nth cannot be started: no message says so"
    done
    pass "whichever of the $THREADS threads cannot be started: exit 1, $(grep -o 'l4lb: .*cannot.*' "$WORK/second.log")"
}

require python3 strace
build
start_echo echo
BACKEND=127.0.0.1:$(port_of echo)
ADDRESS=$(free_address)
SECOND_ADDRESS=$(free_address)
write_config
# Sessions that have ended well.
DONE=0
start_l4lb lb -c "$WORK/config.toml"
THREADS=$(($(find "/proc/${PID[lb]}/task" -mindepth 1 -maxdepth 1 | wc -l) - 1))
check_now_and_then accept4 ECONNABORTED EPROTO ENOBUFS ENOMEM ENFILE EINTR
check_now_and_then socket EMFILE ENFILE ENOBUFS ENOMEM
check_now_and_then connect ENOBUFS
check_now_and_then epoll_wait EINTR
check_now_and_then recvfrom EINTR
check_now_and_then sendto EINTR
check_all_the_time accept4 ENOBUFS ENOMEM ENFILE
check_all_the_time socket EMFILE ENOBUFS
check_shutdown
check_threads
signal TERM lb
await_exit lb 5
expect "exit code in the end" "$EXIT" = 0
pass "the process lived through it all, and ended with 0"

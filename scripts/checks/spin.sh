#!/usr/bin/env bash
# A process that was stopped for a while continues as before: events that arrived meanwhile are handled before
# deadlines, and no backend is taken down for checks that the process itself missed. It may poll before it sleeps, and
# does not once it is idle.
# Case 73 and goal G24 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

SESSIONS=200
STOPPED_SECONDS=5
CPU_PERCENT_MAX=10

write_config() {
    cat >"$WORK/config.toml" <<END
listener = [{ bind = "$ADDRESS" }]
global = { busy_poll = "1ms" }
[[pool]]
timeouts = { idle = "3s" }
health = { interval = "200ms", fast_interval = "100ms", timeout = "100ms", fall = 1 }
backend = [{ address = "$BACKEND" }]
END
}

require python3
build
start_echo echo
BACKEND=127.0.0.1:$(port_of echo)
ADDRESS=$(free_address)
write_config
start_l4lb lb -c "$WORK/config.toml"
start_peer clients hold "$ADDRESS" "$SESSIONS"
expect "sessions" "$(value_of held "$(ask clients settle)")" = "$SESSIONS"

signal STOP lb
sleep 1
expect "sessions that sent while it was stopped" "$(ask clients send)" = "sent=$SESSIONS"
sleep $((STOPPED_SECONDS - 1))
signal CONT lb
figures=$(ask clients receive)
expect "sessions with data in the queue that survived" "$figures" = "got=$SESSIONS lost=0"
pass "stopped for ${STOPPED_SECONDS} s with an idle timeout of 3 s: $SESSIONS sessions with queued data went on"

sleep 1
! log_has lb 'to=down' || fail "a backend was taken down for checks that the stopped process missed"
pass "no backend was taken down"

percent=$(cpu_percent "${PID[lb]}" 1)
expect_at_most "percent of a processor afterwards" "$percent" "$CPU_PERCENT_MAX"
wait_until 6 "idle sessions time out afterwards" log_count_is lb 'reason=idle_timeout' "$SESSIONS"
pass "$percent % CPU afterwards, and the idle timeout works again"

#!/usr/bin/env bash
# Source ports that run out: 16 towards each backend, and 30 clients that want one at once. Those that find none wait,
# and only they; each is served as soon as a port comes free, and reset once it has waited for the connect timeout.
# Root only: it makes two network namespaces with a link between them.
# Case 51 and goal G7 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

LISTEN=10.77.0.1:9090
LISTEN_SECOND=10.77.0.1:9091
LISTEN_HASTY=10.77.0.1:9092
FIRST=10.77.0.2:7000
SECOND=10.77.0.3:7000

PORTS=16
CLIENTS=30
HASTY_TIMEOUT_MS=1000
CPU_PERCENT_MAX=5

# start_clients NAME ADDRESS COUNT: how that went is in $FIGURES.
start_clients() {
    start_peer "$1" --in "$FAR" hold "$2" "$3"
    FIGURES=$(ask "$1" settle)
}

write_config() {
    cat >"$WORK/config.toml" <<END
listener = [
    { bind = "$LISTEN", pool = "first" },
    { bind = "$LISTEN_SECOND", pool = "second" },
    { bind = "$LISTEN_HASTY", pool = "hasty" },
]
[[pool]]
name = "first"
timeouts = { connect = "20s" }
health = { type = "off" }
backend = [{ address = "$FIRST" }]
[[pool]]
name = "second"
health = { type = "off" }
backend = [{ address = "$SECOND" }]
[[pool]]
name = "hasty"
timeouts = { connect = "${HASTY_TIMEOUT_MS}ms" }
health = { type = "off" }
backend = [{ address = "$FIRST" }]
END
}

check_waiting() {
    local percent
    start_clients clients "$LISTEN" "$CLIENTS"
    expect "clients served at once ($FIGURES)" "$(value_of held "$FIGURES")" = "$PORTS"
    expect "clients that wait for a port ($FIGURES)" "$(value_of waiting "$FIGURES")" = $((CLIENTS - PORTS))
    log_has lb "no source port is left .*address=$FIRST" || fail "the log does not say what is lacking"
    percent=$(cpu_percent "${PID[lb]}" 1)
    expect_at_most "percent of a processor while they wait" "$percent" "$CPU_PERCENT_MAX"
    start_clients others "$LISTEN_SECOND" "$PORTS"
    expect "sessions to another backend meanwhile ($FIGURES)" "$(value_of held "$FIGURES")" = "$PORTS"
    ! log_has lb 'accepting with it' || fail "accepting waited for a port"
    pass "$PORTS of $CLIENTS clients served over $PORTS ports, the others wait at $percent % CPU, $PORTS sessions go elsewhere"
}

check_patience() {
    local began figures
    start_peer hasty --in "$FAR" hold "$LISTEN_HASTY" 0
    began=$(now_ms)
    figures=$(ask hasty open 4)
    expect "hasty clients closed ($figures)" "$(value_of failed "$figures")" = 4
    expect "ms until they were" $(($(now_ms) - began)) -ge "$HASTY_TIMEOUT_MS"
    wait_until 2 "they are logged" log_count_is lb ' session .*reason=local_limit ' 4
    pass "4 clients with a connect timeout of $HASTY_TIMEOUT_MS ms were reset behind it"
}

check_served_in_turn() {
    local figures
    ask clients reset >/dev/null
    figures=$(ask clients finish)
    expect "clients served in the end ($figures)" "$(value_of served "$figures")" = "$CLIENTS"
    expect "clients that failed ($figures)" "$(value_of failed "$figures")" = 0
    pass "$CLIENTS of $CLIENTS clients served in turn"
}

require_root
require python3 ip sysctl
build
make_link 10.77.0.1 10.77.0.2 10.77.0.3
ip netns exec "$NEAR" sysctl -q net.ipv4.ip_local_port_range="20000 $((20000 + PORTS - 1))"
start_far_echo first "$FIRST"
start_far_echo second "$SECOND"
write_config
start lb ip netns exec "$NEAR" "$L4LB" -c "$WORK/config.toml" -w 1
wait_until_listening lb
check_waiting
check_patience
check_served_in_turn

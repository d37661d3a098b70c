#!/usr/bin/env bash
# Network faults: packets that vanish, hosts that cannot be reached, source ports that run
# out, peers that are gone without a word, a way that leads back. Root only: it makes two network namespaces with a link
# between them. l4lb runs in one; clients and backends run in the other, whose firewall does the damage.
# Cases 30, 48, 51 and 57 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

LISTEN=10.77.0.1:9090
LISTEN_SECOND=10.77.0.1:9091
FIRST=10.77.0.2:7000
SECOND=10.77.0.3:7000

CONNECT_TIMEOUT_MS=500
SLACK_MS=150
CPU_PERCENT_MAX=3

# --- the two namespaces --------------------------------------------------------------------------------------------

make_namespaces() {
    make_link 10.77.0.1 10.77.0.2 10.77.0.3
    start_far_echo first "$FIRST"
    start_far_echo second "$SECOND"
}

# firewall RULES...: the rules of the far namespace, on what comes in and on what goes out.
firewall() {
    local rule
    {
        echo 'flush ruleset'
        echo 'table inet damage {'
        echo 'chain in { type filter hook input priority 0;'
        for rule in "$@"; do [[ $rule != in:* ]] || echo "${rule#in:}"; done
        echo '}'
        echo 'chain out { type filter hook output priority 0;'
        for rule in "$@"; do [[ $rule != out:* ]] || echo "${rule#out:}"; done
        echo '}'
        echo '}'
    } | ip netns exec "$FAR" nft -f -
}

vanish() { firewall "in:ip daddr ${1%:*} tcp dport ${1#*:} drop" "out:ip saddr ${1%:*} tcp sport ${1#*:} drop"; }

# --- l4lb in the near one ------------------------------------------------------------------------------------------

# start_near POOL_KEYS...: l4lb runs as `lb` with one pool over both backends.
start_near() {
    {
        echo "listener = [{ bind = \"$LISTEN\" }]"
        echo '[[pool]]'
        printf '%s\n' "$@"
        echo "backend = [{ address = \"$FIRST\" }, { address = \"$SECOND\" }]"
    } >"$WORK/config.toml"
    run_near
}

run_near() {
    start lb ip netns exec "$NEAR" "$L4LB" -c "$WORK/config.toml" -v
    wait_until_listening lb
}

# Opens so many sessions; how that went is in $FIGURES.
start_clients() {
    start_peer clients --in "$FAR" hold "$LISTEN" "$1"
    FIGURES=$(ask clients settle)
}

end_round() {
    stop clients
    stop lb
    firewall
}

no_dial_left() { [[ -z $(ip netns exec "$NEAR" ss -Htn state syn-sent) ]]; }

# Durations, in whole milliseconds, of the dials of sessions that took a second backend.
failover_ms() { sed -nE 's/.* session .*connect_ms=([0-9]+).* retries=1 reason=.*/\1/p' "$WORK/lb.log"; }

# --- the rounds ----------------------------------------------------------------------------------------------------

# judge_failover WHAT ERROR LEAST_MS MOST_MS: four sessions, two or more of which meet the damaged backend first:
# a session that takes the other one instead also takes its turn.
judge_failover() {
    local ms
    start_clients 4
    expect "$1: sessions served ($FIGURES)" "$(value_of served "$FIGURES")" = 4
    wait_until 2 "$1: no dial is left" no_dial_left
    log_has lb "dial failed backend=$FIRST error=.*$2" || fail "$1: no dial failed with: $2"
    ask clients finish >/dev/null
    wait_until 2 "$1: all sessions are logged" log_count_is lb ' session ' 4
    expect "$1: sessions that took the other backend" "$(failover_ms | wc -l)" -ge 2
    for ms in $(failover_ms); do
        expect_between "$1: ms until the other backend was connected" "$3" "$ms" "$4"
    done
    pass "$1: the other backend was connected after $(failover_ms | paste -sd' ') ms, no SYN-SENT left"
}

check_blackhole() {
    firewall "in:ip daddr ${FIRST%:*} tcp dport ${FIRST#*:} drop"
    start_near "timeouts = { connect = \"${CONNECT_TIMEOUT_MS}ms\" }" 'health = { type = "off" }'
    judge_failover blackhole 'timed out' "$CONNECT_TIMEOUT_MS" $((CONNECT_TIMEOUT_MS + SLACK_MS))
    end_round
}

check_unreachable() {
    firewall "in:ip daddr ${FIRST%:*} tcp dport ${FIRST#*:} reject with icmpx type host-unreachable"
    start_near "timeouts = { connect = \"${CONNECT_TIMEOUT_MS}ms\" }" 'health = { type = "off" }'
    judge_failover unreachable 'No route to host' 0 "$SLACK_MS"
    end_round
}

# 50 source ports, 80 clients: one pool runs dry, the other one must not notice. Health checks continue meanwhile. A
# session without a port is reset after the connect timeout: see ports.sh.
check_ports_run_out() {
    local figures percent
    ip netns exec "$NEAR" sysctl -q net.ipv4.ip_local_port_range='20000 20049'
    cat >"$WORK/config.toml" <<END
[[listener]]
bind = "$LISTEN"
pool = "first"
[[listener]]
bind = "$LISTEN_SECOND"
pool = "second"
[[pool]]
name = "first"
timeouts = { connect = "${CONNECT_TIMEOUT_MS}ms" }
health = { interval = "300ms", timeout = "300ms", fast_interval = "300ms" }
backend = [{ address = "$FIRST" }]
[[pool]]
name = "second"
health = { interval = "300ms", timeout = "300ms", fast_interval = "300ms" }
backend = [{ address = "$SECOND" }]
END
    run_near
    start_clients 0
    figures=$(ask clients open 80)
    # A check of the same backend may hold one port at that moment.
    expect_between "ports: sessions with 50 ports ($figures)" 49 "$(value_of held "$figures")" 50
    expect "ports: clients left waiting" "$(value_of waiting "$figures")" = 0
    wait_until 2 "the rest is logged" log_count_is lb 'reason=local_limit' "$(value_of failed "$figures")"
    expect_at_most "ports: ms until each client was served or closed" "$(value_of ms "$figures")" 1000
    percent=$(cpu_percent "${PID[lb]}" 2)
    expect_at_most "ports: percent of a processor while none is free" "$percent" "$CPU_PERCENT_MAX"
    ! log_has lb 'to=down' || fail "ports: a backend was blamed for what this machine lacks"
    pass "ports: $(value_of held "$figures") sessions over 50 ports, $(value_of failed "$figures") closed with local_limit, $percent % CPU"

    start_peer others --in "$FAR" hold "$LISTEN_SECOND" 20
    expect "ports: sessions to another destination" "$(value_of held "$(ask others settle)")" = 20
    pass "ports: 20 sessions to another destination meanwhile"

    ask clients reset >/dev/null
    wait_until 2 "the sessions are gone" log_count_is lb 'reason=client_reset' "$(value_of held "$figures")"
    figures=$(ask clients open 40)
    expect "ports: sessions once ports were free ($figures)" "$(value_of held "$figures")" = 40
    pass "ports: 40 new sessions in $(value_of ms "$figures") ms once ports were free"
    stop others
    end_round
    ip netns exec "$NEAR" sysctl -q net.ipv4.ip_local_port_range='32768 60999'
}

# A backend that no address of this machine reaches: not what a moment's shortage of source ports looks like.
check_no_source_address() {
    local backend='[::1]:7000'
    ip netns exec "$NEAR" sysctl -q net.ipv6.conf.all.disable_ipv6=1
    cat >"$WORK/config.toml" <<END
listener = [{ bind = "$LISTEN" }]
[[pool]]
health = { interval = "300ms", timeout = "300ms", fast_interval = "300ms" }
backend = [{ address = "$backend" }, { address = "$FIRST" }]
END
    run_near
    wait_until 3 "no source address: its backend goes down" log_has lb "health .*7000 .* to=down reason=\".*network unreachable"
    start_clients 4
    expect "no source address: sessions served ($FIGURES)" "$(value_of served "$FIGURES")" = 4
    ask clients finish >/dev/null
    wait_until 2 "no source address: all sessions are logged" log_count_is lb ' session .* retries=0 ' 4
    pass "no source address: the check fails, and no session tries that backend"
    end_round
    ip netns exec "$NEAR" sysctl -q net.ipv6.conf.all.disable_ipv6=0
}

# judge_vanished WHAT LEAST_MS MOST_MS: the first backend is gone; its sessions must end, those of the other stay.
judge_vanished() {
    local began ms
    began=$(now_ms)
    wait_until 15 "$1: the sessions of the vanished backend end" log_count_is lb "session .*backend=$FIRST .*reason=backend_lost" 5
    ms=$(($(now_ms) - began))
    expect_between "$1: ms until the sessions ended" "$2" "$ms" "$3"
    expect "$1: sessions of the other backend that ended" "$(log_count lb "session .*backend=$SECOND")" = 0
    pass "$1: the 5 sessions of the vanished backend ended after $ms ms, the 5 others did not"
}

check_vanished_with_data() {
    start_near 'tcp = { user_timeout = "3s" }' 'health = { type = "off" }'
    start_clients 10
    expect "user_timeout: sessions" "$(value_of held "$FIGURES")" = 10
    vanish "$FIRST"
    expect "user_timeout: sessions that sent" "$(ask clients send)" = "sent=10"
    judge_vanished "user_timeout = 3s" 2800 4500
    end_round
}

# Probes are asked for at once, or after the time to connect where that is no longer than the time until the first.
check_vanished_idle() {
    local connect
    for connect in 5s 500ms; do
        start_near 'tcp = { user_timeout = "0s", keepalive = { idle = "1s", interval = "1s", count = 2 } }' \
            "timeouts = { connect = \"$connect\" }" 'health = { type = "off" }'
        start_clients 10
        expect "keepalive, connect $connect: sessions" "$(value_of held "$FIGURES")" = 10
        vanish "$FIRST"
        judge_vanished "keepalive 1s/1s/2, connect $connect" 1500 4500
        end_round
    done
}

# A backend that is our own listener: one client would open a session that opens the next, for ever. The first listener
# is met at every address of the machine; that of the backend is its second one.
check_circle() {
    ip -n "$NEAR" address add 10.77.0.4/24 dev near
    cat >"$WORK/config.toml" <<END
listener = [{ bind = "0.0.0.0:9090" }]
pool = [{ backend = [{ address = "10.77.0.4:9090" }] }]
END
    start lb ip netns exec "$NEAR" "$L4LB" -c "$WORK/config.toml"
    await_exit lb 5
    expect "circle: exit code" "$EXIT" = 1
    log_has lb 'backend "10.77.0.4:9090": 10.77.0.4:9090 is our own listener 0.0.0.0:9090' ||
        fail "circle: the message does not name the backend and the listener"
    pass "circle: exit 1, $(tail -n 1 "$WORK/lb.log")"
}

require_root
require ip nft ss sysctl python3
build
make_namespaces
check_blackhole
check_unreachable
check_ports_run_out
check_no_source_address
check_vanished_with_data
check_vanished_idle
check_circle

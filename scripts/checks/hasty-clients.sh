#!/usr/bin/env bash
# Clients that connect, send ten bytes and reset at once: every byte reaches the backend, as without a balancer, however
# far the dial was when the reset came. A backend that is never there costs them no more than its dials.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

CLIENTS=200
ROUNDS=3

# hasty WHAT ADDRESS: clients of ADDRESS; $WHOLE is how many the backend received completely, the least of a few rounds.
hasty() {
    local round whole
    WHOLE=$CLIENTS
    for ((round = 0; round < ROUNDS; round++)); do
        whole=$(timeout 20 python3 "$ROOT/scripts/lib/peers" hasty "$2" --listen "$BACKEND" --count "$CLIENTS")
        whole=$(value_of whole "$whole")
        ((whole >= WHOLE)) || WHOLE=$whole
    done
    pass "$1: $WHOLE of $CLIENTS clients arrived to the last byte, in each of $ROUNDS rounds"
}

start_haproxy() {
    cat >"$WORK/haproxy.cfg" <<END
$(haproxy_defaults tcp 1h)
listen them
    bind $1
    server backend $BACKEND
END
    start haproxy haproxy -db -f "$WORK/haproxy.cfg"
    wait_until 5 "HAProxy listens" is_listening "$1"
}

is_listening() { [[ -n $(ss -Htln "src $1") ]]; }

require haproxy python3 ss
build
PORT=$(free_ports 1)
BACKEND=127.0.0.1:$PORT
PEER=$(free_address)
start_haproxy "$PEER"
start_unchecked lb "$PORT" -w 2
hasty direct "$BACKEND"
expect "whole clients without a balancer" "$WHOLE" = "$CLIENTS"
hasty HAProxy "$PEER"
hasty l4lb "$(address_of lb)"
expect "whole clients through l4lb" "$WHOLE" = "$CLIENTS"
expect "sessions that ended otherwise" "$(log_count lb ' session .* reason=client_reset ')" = $((CLIENTS * ROUNDS))

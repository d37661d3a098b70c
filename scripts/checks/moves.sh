#!/usr/bin/env bash
# A listener moves and no client waits: from an address to the wildcard and back, to the other family, two into one,
# removed and put back, with one and two workers, while a client comes to each address every 50 ms. Where some listener
# of the new configuration covers the address all are served; where none does they are refused; and no SYN has to be
# repeated. Some 25 seconds; --long, some 5 minutes.
# Case 86 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

TIMES=(--rounds 1)
if [[ ${1:-} == --full || ${1:-} == --long ]]; then
    # Also where what the last move retired is gone before the next one.
    TIMES=(--rounds 3 --pause 2 --after 2)
fi

require python3
build
start_echo backend
read -r port stays <<<"$(free_ports 2)"
MOVES=(python3 "$ROOT/scripts/lib/moves.py" --l4lb "$L4LB" --socket "$(admin_socket lb)" --config "$WORK/lb.toml" --port "$port"
    --stays "127.0.0.1:$stays" --backend "127.0.0.1:$(port_of backend)" "${TIMES[@]}")
"${MOVES[@]}" --write-only
RUST_LOG=info,l4lb::session=off start_l4lb lb -c "$WORK/lb.toml"
"${MOVES[@]}" || fail "clients of a listener that moved waited or were turned away"
expect "panics" "$(log_count lb 'panicked')" = 0
pass "clients of listeners that move are served, or refused where nothing listens any more, and no SYN is repeated"

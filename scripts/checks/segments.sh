#!/usr/bin/env bash
# Streams over a real link: more bytes than 32 bits can count, segments that are not merged, writers of single bytes,
# and a link that is slower than both ends. Every byte arrives in its place, and then the FIN, whichever side is slow
# and however it is relayed.
# Root only: it makes two network namespaces with a link between them. l4lb runs in one, both peers in the other, or
# with it.
# Cases 5 and 11, goal G8 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

NEAR_ADDRESS=10.78.0.1
FAR_ADDRESS=10.78.0.2

SINGLE_BYTES=50000
# More than 32 bits can count.
HUGE_BYTES=$((5 << 30))
BULK_BYTES=$((4 << 20))
LINK_RATE=20mbit
# Between two bytes, at a reader that is ready for the next.
STALL_MS_MAX=1000
TRANSFER_SECONDS_MAX=120

# Sessions that have ended.
SESSIONS=0
# How bytes are relayed, where l4lb listens and where the backend does, and the namespace of the peers.
RELAY=
LISTEN=
BACKEND=
PEERS=

# --- the link ------------------------------------------------------------------------------------------------------

# or_say WHAT COMMAND...: fails with what the machine lacks unless COMMAND works.
or_say() { "${@:2}" 2>"$WORK/$2.log" || fail "this machine cannot $1: $(tail -n 1 "$WORK/$2.log")"; }

# Each segment travels alone: without this a link hands on up to 64 KiB as one.
part_segments() {
    or_say "set gso_max_segs of a veth device" ip -n "$NEAR" link set near gso_max_segs 1
    or_say "set gso_max_segs of a veth device" ip -n "$FAR" link set far gso_max_segs 1
}

slow_down() {
    or_say "limit the rate of a link" tc -n "$NEAR" qdisc add dev near root tbf rate "$LINK_RATE" burst 32kb latency 100ms
    or_say "limit the rate of a link" tc -n "$FAR" qdisc add dev far root tbf rate "$LINK_RATE" burst 32kb latency 100ms
}

across_the_link() { LISTEN=$NEAR_ADDRESS:9090 BACKEND=$FAR_ADDRESS:7000 PEERS=$FAR; }

on_loopback() { LISTEN=127.0.0.1:9090 BACKEND=127.0.0.1:7000 PEERS=$NEAR; }

start_near() {
    RELAY=$1
    SESSIONS=0
    cat >"$WORK/config.toml" <<END
listener = [{ bind = "$LISTEN" }]
[[pool]]
relay = "$RELAY"
health = { type = "off" }
backend = [{ address = "$BACKEND" }]
END
    start lb ip netns exec "$NEAR" "$L4LB" -c "$WORK/config.toml"
    wait_until_listening lb
}

# --- transfers -----------------------------------------------------------------------------------------------------

stream() { start "$1" ip netns exec "$PEERS" python3 "$ROOT/scripts/lib/peers" stream "${@:2}"; }

# What NAME said of its stream, once it has ended; it ends well only if every byte was in its place.
figures_of() {
    await_exit "$1" "$TRANSFER_SECONDS_MAX"
    expect "$2: exit code of the $1" "$EXIT" = 0
    FIGURES=$(tail -n 1 "$WORK/$1.out")
}

# transfer WHAT UP DOWN CLIENT_ARGS -- BACKEND_ARGS: one session with so many bytes each way. The longer of the waits
# for a byte is in $WAITED_MS.
transfer() {
    local what=$1 up=$2 down=$3 client=(--connect "$LISTEN" --send "$2") name
    shift 3
    while [[ $1 != -- ]]; do
        client+=("$1")
        shift
    done
    stream backend --listen "$BACKEND" --send "$down" "${@:2}"
    wait_until 10 "the backend listens" grep -q '^listening' "$WORK/backend.out"
    stream client "${client[@]}"
    WAITED_MS=0
    for name in client backend; do
        figures_of "$name" "$what"
        ((WAITED_MS >= $(value_of longest_wait_ms "$FIGURES"))) || WAITED_MS=$(value_of longest_wait_ms "$FIGURES")
    done
    wait_until 5 "$what: the session ends" log_count_is lb ' session ' $((SESSIONS += 1))
    expect "$what: sessions that ended well" "$(log_count lb ' reason=done ')" = "$SESSIONS"
    log_has lb " session .* to_backend=$up to_client=$down " ||
        fail "$what: the session did not carry $up bytes to the backend and $down to the client"
}

check_huge() {
    transfer "$HUGE_BYTES bytes" "$HUGE_BYTES" 0 --
    expect_no_stall "$HUGE_BYTES bytes"
    pass "$HUGE_BYTES bytes in one session: each byte in its place, no stall, counted"
}

expect_no_stall() { expect_at_most "$1: ms that a reader waited for a byte" "$WAITED_MS" "$STALL_MS_MAX"; }

check_single_bytes() {
    local what="relay = $RELAY: $SINGLE_BYTES writes of one byte"
    transfer "$what to the backend" "$SINGLE_BYTES" 0 --slice 1 -- --slow
    expect_no_stall "$what"
    transfer "$what to the client" 0 "$SINGLE_BYTES" --slow -- --slice 1
    expect_no_stall "$what"
    transfer "$what each way" "$SINGLE_BYTES" "$SINGLE_BYTES" --slice 1 -- --slice 1
    expect_no_stall "$what"
    pass "$what $1, to a slow backend, to a slow client, and both ways: each byte in its place, no stall"
}

check_segments() {
    local what="relay = $RELAY: $BULK_BYTES bytes in single segments"
    transfer "$what to the backend" "$BULK_BYTES" 0 -- --slow
    expect_no_stall "$what"
    transfer "$what to the client" 0 "$BULK_BYTES" --slow --
    expect_no_stall "$what"
    transfer "$what each way" "$BULK_BYTES" "$BULK_BYTES" --slow -- --slow
    expect_no_stall "$what"
    pass "$what, to a slow backend, to a slow client, and both ways: each byte in its place, no stall"
}

# The sender is gone as soon as its kernel has taken the last byte, most of which are still on this side of the link.
check_slow_link() {
    transfer "upload over a slow link" "$BULK_BYTES" 0 --leave --
    transfer "download over a slow link" 0 "$BULK_BYTES" -- --leave
    transfer "both ways over a slow link" "$BULK_BYTES" "$BULK_BYTES" --
    pass "$BULK_BYTES bytes with a FIN behind them over $LINK_RATE, up, down, and both ways: each byte, then the FIN"
}

require_root
require ip tc python3
build
make_link "$NEAR_ADDRESS" "$FAR_ADDRESS"
across_the_link
start_near auto
check_huge
stop lb
part_segments
for relay in copy splice auto; do
    on_loopback
    start_near "$relay"
    check_single_bytes "over loopback"
    stop lb
    across_the_link
    start_near "$relay"
    check_single_bytes "over the link"
    # A copy knows no slots.
    [[ $relay == copy ]] || check_segments
    stop lb
done
start_near auto
slow_down
check_slow_link

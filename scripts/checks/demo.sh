#!/usr/bin/env bash
# `l4lb demo` serves its three backends in turn, and Ctrl-C ends it.
# shellcheck source=../lib.sh
source "$(dirname "$0")/../lib.sh"

ADDRESS=127.0.0.1:9090

expect_ports_free() {
    local port
    for port in 8081 8082 8083 9090; do
        ! accepts_connections "127.0.0.1:$port" || fail "port $port, which the demo uses, is taken"
    done
}

# The port of the backend that answers.
ask_demo() { curl -sS --max-time 5 "http://$ADDRESS/" | sed -nE 's/^Received request on server running on port ([0-9]+)$/\1/p'; }

backend_after() {
    case $1 in
        8081) echo 8082 ;;
        8082) echo 8083 ;;
        8083) echo 8081 ;;
        *) fail "the answer names no backend of the demo: '$1'" ;;
    esac
}

expect_in_turn() {
    local answers=() next
    next=$(ask_demo)
    answers+=("$next")
    for _ in 2 3 4 5 6; do
        next=$(backend_after "$next")
        answers+=("$(ask_demo)")
        expect "not in turn: ${answers[*]}" "${answers[-1]}" = "$next"
    done
    pass "six requests went to ${answers[*]}"
}

require curl
build
expect_ports_free
start demo "$L4LB" demo
wait_until 10 "the demo says what to try" grep -q 'Ctrl-C stops it' "$WORK/demo.out"
expect_in_turn
signal INT demo
await_exit demo 5
expect "exit code after Ctrl-C" "$EXIT" = 0
pass "Ctrl-C ends it with exit code 0 after $EXIT_MS ms"

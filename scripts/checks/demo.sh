#!/usr/bin/env bash
# `l4lb demo` serves its three backends in turn, also on other ports, and Ctrl-C ends it.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

ADDRESS=127.0.0.1:9090

expect_ports_free() {
    local port
    for port in 8081 8082 8083 9090 9091; do
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

status_of() { curl -sS --max-time 5 -o "$WORK/answer" -w '%{http_code}' "$@"; }

# The page is for every user of this machine, the figures only for those with the token.
expect_dashboard() {
    local url page token
    url=$(sed -n 's/^dashboard: //p' "$WORK/demo.out")
    page=${url%%#*}
    token=${url##*#token=}
    expect "the page" "$(status_of "$page")" = 200
    grep -q '<title>l4lb</title>' "$WORK/answer" || fail "$page is not the dashboard"
    expect "the API without the token" "$(status_of "${page}v1/status")" = 401
    expect "the API with the token" "$(status_of -H "Authorization: Bearer $token" "${page}v1/status")" = 200
    [[ ! -e ${TMPDIR:-/tmp}/l4lb-demo-${PID[demo]}.token ]] || fail "the file of the token is still there"
    pass "the dashboard is at $page, and the token that the demo prints opens it"
}

require curl
build
expect_ports_free
start demo "$L4LB" demo
wait_until 10 "the demo says what to try" grep -q 'Ctrl-C stops it' "$WORK/demo.out"
expect_in_turn
expect_dashboard
signal INT demo
await_exit demo 5
expect "exit code after Ctrl-C" "$EXIT" = 0
pass "Ctrl-C ends it with exit code 0 after $EXIT_MS ms"

# Where its ports are taken, others in a row are not; the pool is that of the manual.
# free_ports_in_a_row COUNT: the first of them.
free_ports_in_a_row() {
    local base port
    for _ in {1..20}; do
        base=$(free_ports 1)
        for ((port = base + 1; port < base + $1; port++)); do
            if ((port > 65535)) || accepts_connections "127.0.0.1:$port"; then continue 2; fi
        done
        echo "$base" && return
    done
    fail "no $1 ports in a row are free"
}

BASE=$(free_ports_in_a_row 5)
ADDRESS=127.0.0.1:$BASE
start moved "$L4LB" demo --port-base "$BASE"
wait_until 10 "the demo says what to try" grep -q 'Ctrl-C stops it' "$WORK/moved.out"
expect_between "the port that answers" $((BASE + 2)) "$(ask_demo)" $((BASE + 4))
token=$(sed -n 's/^dashboard: .*#token=//p' "$WORK/moved.out")
expect "the backends of the pool of the manual" \
    "$(curl -sS --max-time 5 -H "Authorization: Bearer $token" "http://127.0.0.1:$((BASE + 1))/v1/backends?pool=web" |
        grep -oE '"name":"[abc]"' | sort | tr -d '\n')" = '"name":"a""name":"b""name":"c"'
signal INT moved
await_exit moved 5
pass "on ports $BASE to $((BASE + 4)) it has the pool web with the backends a, b and c"

# The demo of discovery: backends come and go by themselves, and no request fails.
CHANGES=4

changes() { grep -c ' s  127\.0\.0\.1:' "$WORK/discover.out" || true; }

has_changed() { (($(changes) >= CHANGES)); }

ask_discover() {
    local url
    url=$(sed -n 's/^dashboard: //p' "$WORK/discover.out")
    curl -sS --max-time 5 -H "Authorization: Bearer ${url##*#token=}" "${url%%#*}$1"
}

# has_events COUNT MESSAGE: so many events at least begin with it.
has_events() { (($(ask_discover 'v1/events?limit=200' | grep -oE "\"message\":\"$2" | wc -l) >= $1)); }

BASE=$(free_ports_in_a_row 9)
start discover env RUNTIME_DIRECTORY="$WORK/discover.run" "$L4LB" demo --discover --port-base "$BASE"
wait_until 10 "the demo says what to try" grep -q 'Ctrl-C stops it' "$WORK/discover.out"
wait_until 60 "$CHANGES backends have come or gone" has_changed
# Three at the start.
wait_until 10 "the API has seen more than three backends come" has_events 4 'discovered by dns-srv:_http._tcp.web.test'
wait_until 10 "the API has seen a backend go" has_events 1 'dns-srv:_http._tcp.web.test lists it no more'
expect "the state of the source" "$(ask_discover v1/discovery | grep -o '"state":"[a-z]*"')" = '"state":"found"'
RUNTIME_DIRECTORY=$WORK/discover.run "$L4LB" doctor >"$WORK/doctor.out" || fail "the doctor has failed"
grep -qE '^ok +source +dns-srv:_http._tcp.web.test of pool web: found' "$WORK/doctor.out" ||
    fail "the doctor does not show the source: $(grep source "$WORK/doctor.out")"
signal INT discover
await_exit discover 40
expect "exit code after Ctrl-C" "$EXIT" = 0
LAST=$(tail -n 1 "$WORK/discover.out")
[[ $LAST =~ ^([0-9]+)\ requests\ answered,\ 0\ failed$ ]] || fail "requests of the demo: $LAST"
expect "requests of the demo" "${BASH_REMATCH[1]}" -gt 100
pass "with --discover: $(changes) backends came or went, $LAST"

#!/usr/bin/env bash
# Where the time of a loaded l4lb goes: what share is the kernel's, what ours, and our own functions that take most.
# Usage: scripts/profile.sh [--seconds N] [--svg FILE] [keep-alive | short | bulk]...       all three, 10 s each
#        keep-alive: wrk over connections that stay, short: wrk with a connection a request, bulk: iperf3
# Needs perf, wrk and iperf3; a flame graph (--svg, and the load goes into its name) needs inferno as well.
# shellcheck source=lib/harness.sh
source "$(dirname "$0")/lib/harness.sh"

SPAN=10
# Past the start of the load and of its connections.
WARM_UP=1
# An odd number: it does not go along with timers of whole milliseconds.
SAMPLES_PER_SECOND=997
FUNCTIONS=15
FUNCTIONS_OF_LIBC=5
CONNECTIONS=64
STREAMS=8
SVG=

usage() {
    sed -n 's/^# //; 2,5p' "$0" >&2
    exit 2
}

# Hardware counters where there are some; a virtual machine often has none, and its clock serves.
choose_event() {
    local event
    for event in cycles cpu-clock; do
        perf record -q -e "$event" -o "$WORK/probe.data" -- "$L4LB" --version >/dev/null 2>&1 || continue
        [[ $event == cpu-clock ]] || perf stat -e "$event" -- true 2>&1 | grep -qE "^ +[0-9]" || continue
        EVENT=$event
        return
    done
    fail "perf cannot sample here: see /proc/sys/kernel/perf_event_paranoid"
}

# --- loads ---------------------------------------------------------------------------------------------------------

start_balancer() {
    start_unchecked lb "$1" --workers 1
    TARGET=$(address_of lb)
}

start_http() {
    local port
    port=$(free_ports 1)
    start_http_backend backend "$port"
    start_balancer "$port"
}

start_load() {
    local seconds=$((SPAN + WARM_UP + 1)) port
    case $1 in
        keep-alive)
            start_http
            start load wrk -t1 -c"$CONNECTIONS" -d"$seconds" "http://$TARGET/"
            ;;
        short)
            start_http
            start load wrk -t1 -c"$CONNECTIONS" -d"$seconds" -H 'Connection: close' "http://$TARGET/"
            ;;
        bulk)
            port=$(free_ports 1)
            start backend iperf3 -s -B 127.0.0.1 -p "$port" --forceflush
            wait_until 10 "iperf3 listens" grep -q 'Server listening' "$WORK/backend.out"
            start_balancer "$port"
            start load iperf3 -c "${TARGET%:*}" -p "${TARGET##*:}" -P "$STREAMS" -t "$seconds"
            ;;
        *) usage ;;
    esac
}

# --- looking -------------------------------------------------------------------------------------------------------

record() {
    perf record -q -e "$EVENT" -F "$SAMPLES_PER_SECOND" --call-graph fp -p "${PID[lb]}" -o "$WORK/perf.data" \
        -- sleep "$SPAN" >"$WORK/perf.log" 2>&1 || fail "perf record: exit code $?"
}

# Percents of samples by what is asked for, most first.
report() { perf report -i "$WORK/perf.data" --no-children -g none --stdio -q "$@" 2>>"$WORK/perf.log"; }

print_shares() {
    report --fields overhead,dso | awk -v ours_is="$(basename "$L4LB")" '
        NF < 2 { next }
        { share = $1 + 0; name = $2 }
        name == "[vdso]" || name == "[unknown]" { other += share; next }
        # The kernel itself, and its modules.
        name ~ /^\[/ { kernel += share; next }
        name == ours_is { ours += share; next }
        name ~ /^libc|^ld-/ { libc += share; next }
        { other += share }
        END { printf "kernel %.1f %%, l4lb %.1f %%, libc %.1f %%, other %.1f %%\n", kernel, ours, libc, other }'
}

# The N functions of a file that take most. awk reads to the end, so that perf never writes to a closed pipe.
top() { report --fields overhead,symbol --dso "$2" | awk -v n="$1" 'NF > 1 && ++lines <= n'; }

print_functions() {
    echo "of our own, $FUNCTIONS at most:"
    top "$FUNCTIONS" "$(basename "$L4LB")"
    echo "of libc, $FUNCTIONS_OF_LIBC at most:"
    top "$FUNCTIONS_OF_LIBC" libc.so.6
}

draw() {
    local svg=${SVG%.svg}-$1.svg
    perf script -i "$WORK/perf.data" 2>>"$WORK/perf.log" | inferno-collapse-perf >"$WORK/stacks" 2>>"$WORK/perf.log"
    inferno-flamegraph --title "l4lb, $1" "$WORK/stacks" >"$svg"
    pass "flame graph: $svg"
}

profile() {
    local load=$1 name
    start_load "$load"
    sleep "$WARM_UP"
    is_running load || fail "$load: the load has ended before it was looked at"
    record
    await_exit load $((WARM_UP + 10))
    expect "$load: exit code of the load" "$EXIT" = 0
    printf '\n-- %s, event %s: ' "$load" "$EVENT"
    print_shares
    print_functions
    grep -hE 'Requests/sec|SUM.*receiver' "$WORK/load.out" || fail "$load: the load reports no rate"
    [[ -z $SVG ]] || draw "$load"
    for name in lb backend; do
        stop "$name"
    done
}

while [[ ${1:-} == --* ]]; do
    case $1 in
        --seconds)
            [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || usage
            SPAN=$2
            ;;
        --svg)
            [[ -n ${2:-} ]] || usage
            SVG=$2
            ;;
        *) usage ;;
    esac
    shift 2
done
[[ $# -gt 0 ]] || set -- keep-alive short bulk

require perf wrk iperf3 python3
if [[ -n $SVG ]]; then
    command -v inferno-flamegraph >/dev/null || fail "--svg needs inferno: cargo install inferno --locked"
fi
build
choose_event
for load in "$@"; do
    profile "$load"
done

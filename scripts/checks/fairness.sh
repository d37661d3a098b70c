#!/usr/bin/env bash
# The latency of a small request beside streams, through one worker: a ping of 50 bytes every 4 ms beside 20 and 100
# streams that take all they can get. What a turn moves is bounded however many streams there are, and the idle backend
# of the ping, which is checked meanwhile, is never taken for dead.
# --long: also HAProxy, splicing, in interleaved rounds: in the median l4lb keeps the ping waiting no longer, and 999 of
# 1,000 of its turns last no longer than 5 ms. L4LB_BEFORE=FILE: another l4lb beside them, of whose rate so much is
# left.
# Cases 41 and 83, goal G10 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

STREAMS_FEW=20
STREAMS_MANY=100
SECONDS_EACH=3
ROUNDS=1
PROXIES=(l4lb)
# Of what a worker takes and gives in a turn (src/worker/budget.rs), taken alone, and what its last session goes beyond
# it.
TURN_BYTES_MAX=$((3 << 20))
TURN_SECONDS_MAX=0.005
RATE_LEFT_MIN=0.95
# The ping is to wait for the proxy, not for the streams on the other processor.
NICE_PROXY=-15
NICE_STREAMS=-10
NICE_PING=-20
NICE_NEIGHBOUR=-20
if [[ ${1:-} == --long ]]; then
    ROUNDS=7
    SECONDS_EACH=5
    PROXIES=(l4lb haproxy)
    [[ -z ${L4LB_BEFORE:-} ]] || PROXIES+=(before)
fi

# Where the ping and the streams come in, and where they go.
read -r -a PORTS <<<"$(free_ports 4 | tr '\n' ' ')"
PING_IN=127.0.0.1:${PORTS[0]} STREAMS_IN=127.0.0.1:${PORTS[1]} STREAMS_OUT=127.0.0.1:${PORTS[2]} METRICS=127.0.0.1:${PORTS[3]}

write_configs() {
    cat >"$WORK/lb.toml" <<END
global = { workers = 1, log = { level = "warn" } }
admin = { metrics = "$METRICS" }
listener = [
    { name = "ping", bind = "$PING_IN", pool = "ping" },
    { name = "streams", bind = "$STREAMS_IN", pool = "streams" },
]
[[pool]]
name = "ping"
health = { interval = "100ms", timeout = "50ms", fall = 1 }
backend = [{ address = "127.0.0.1:$(port_of echo)" }]
[[pool]]
name = "streams"
health = { type = "off" }
backend = [{ address = "$STREAMS_OUT" }]
END
    cat >"$WORK/haproxy.cfg" <<END
global
    nbthread 1
    maxconn 2000
    maxpipes 1000
$(haproxy_defaults tcp 1h)
    option splice-auto
    option splice-request
    option splice-response
listen ping
    bind $PING_IN
    server one 127.0.0.1:$(port_of echo)
listen streams
    bind $STREAMS_IN
    server one $STREAMS_OUT
END
}

# start_proxy NAME: on a processor of its own.
start_proxy() {
    local command
    case $1 in
    l4lb) command=("$L4LB" -c "$WORK/lb.toml") ;;
    before) command=("$L4LB_BEFORE" -c "$WORK/lb.toml") ;;
    haproxy) command=(haproxy -db -f "$WORK/haproxy.cfg") ;;
    esac
    start lb taskset -c "$PROXY_CPU" nice -n "$NICE_PROXY" "${command[@]}"
    wait_until 10 "$1 listens" accepts_connections "$PING_IN"
}

metric() { awk -v name="$1" '$1 == name { print $2 }' <<<"$PAGE"; }

read_metrics() { PAGE=$(curl -sSf --max-time 10 "http://$METRICS/metrics"); }

# The most that 999 of 1,000 turns took, by its histogram.
p999_of_turns() {
    awk '/^l4lb_turn_seconds_bucket/ { split($1, part, "\""); le[++n] = part[2]; count[n] = $2 }
        END { for (i = 1; i <= n; i++) if (count[i] >= 0.999 * count[n]) { print le[i]; exit } }' <<<"$PAGE"
}

# measure PROXY STREAMS: sets P50 and P99 (µs) and RATE (Gbit/s).
measure() {
    local proxy=$1 streams=$2 said moved
    start_proxy "$proxy"
    start_peer bulk --on "$LOAD_CPU" "$NICE_STREAMS" bulk "$STREAMS_IN" "$streams" --listen "$STREAMS_OUT"
    wait_until 20 "the streams are there" grep -q "^streams=$streams$" "$WORK/bulk.out"
    ask bulk mark >/dev/null
    said=$(taskset -c "$LOAD_CPU" nice -n "$NICE_PING" python3 "$ROOT/scripts/lib/peers" ping "$PING_IN" \
        --seconds "$SECONDS_EACH")
    moved=$(ask bulk mark)
    P50=$(value_of p50 "$said") P99=$(value_of p99 "$said")
    RATE=$(awk -v bytes="$(value_of bytes "$moved")" -v s="$(value_of seconds "$moved")" 'BEGIN { printf "%.1f", 8 * bytes / s / 1e9 }')
    say "$proxy, $streams streams: ping p50 $P50 µs, p99 $P99 µs, max $(value_of max "$said") µs; $RATE Gbit/s"
    [[ $proxy != l4lb ]] || judge_turns "$streams"
    stop bulk
    stop lb
}

# Of l4lb alone, and nothing that depends on what else runs on this machine.
judge_turns() {
    local turns taken failed p999
    read_metrics
    turns=$(metric 'l4lb_worker_turns_total{worker="0"}')
    taken=$(metric l4lb_from_backend_bytes_total)
    failed=$(metric 'l4lb_checks_total{state="failed"}')
    p999=$(p999_of_turns)
    say "l4lb, $1 streams: $((taken / turns / 1024)) KiB a turn, p99.9 of turns at most $p999 s, failed checks $failed"
    expect "bytes of a turn beside $1 streams" $((taken / turns)) -le "$TURN_BYTES_MAX"
    expect "failed checks of an idle backend beside $1 streams" "$failed" = 0
    [[ $ROUNDS == 1 || -v PID[neighbour] ]] || expect_at_most "p99.9 of turns beside $1 streams" "$p999" "$TURN_SECONDS_MAX"
}

# median PROXY STREAMS FIELD: of the figures of all rounds.
median() { awk -v field="$3" '{ print $field }' "$WORK/figures-$1-$2" | sort -g | sed -n "$((ROUNDS / 2 + 1))p"; }

judge_rounds() {
    local streams=$1 field
    for field in 1 2; do
        expect_at_most "p$((field == 1 ? 50 : 99)) beside $streams streams in µs, where HAProxy has the most that is" \
            "$(median l4lb "$streams" $field)" "$(median haproxy "$streams" $field)"
    done
    [[ -z ${L4LB_BEFORE:-} ]] || expect_at_most "of the rate before, $streams streams" "$RATE_LEFT_MIN" \
        "$(awk -v now="$(median l4lb "$streams" 3)" -v before="$(median before "$streams" 3)" 'BEGIN { print now / before }')"
    pass "beside $streams streams: p50 and p99 of $ROUNDS rounds no longer than those of HAProxy"
}

require taskset nice curl python3
[[ $ROUNDS == 1 ]] || require haproxy
build
read -r PROXY_CPU LOAD_CPU <<<"$(python3 -c 'import os; cpus = sorted(os.sched_getaffinity(0)); print(cpus[0], cpus[-1])')"
start_echo echo
write_configs
for ((round = 0; round < ROUNDS; round++)); do
    for streams in "$STREAMS_FEW" "$STREAMS_MANY"; do
        for proxy in "${PROXIES[@]}"; do
            measure "$proxy" "$streams"
            echo "$P50 $P99 $RATE" >>"$WORK/figures-$proxy-$streams"
        done
    done
done
# A worker that falls behind finds all that the sockets hold: each turn could be as long as there are streams.
start neighbour taskset -c "$PROXY_CPU" nice -n "$NICE_NEIGHBOUR" sh -c 'while :; do :; done'
say "and with a neighbour on its processor, which takes three quarters of it:"
measure l4lb "$STREAMS_MANY"
stop neighbour
for streams in "$STREAMS_FEW" "$STREAMS_MANY"; do
    [[ $ROUNDS == 1 ]] || judge_rounds "$streams"
done
[[ $ROUNDS != 1 ]] || pass "turns are bounded beside $STREAMS_FEW and $STREAMS_MANY streams, and checks are served"

#!/usr/bin/env bash
# Measures how evenly sessions are spread over the workers, and what that costs: accept = "reuseport" against "balance".
# Usage: scripts/spread.sh      judges nothing; the figures are of this machine
# shellcheck source=lib/harness.sh
source "$(dirname "$0")/lib/harness.sh"

WAYS=(reuseport balance)
# Long sessions, opened one after another; each setting so many times, because the hash is a matter of luck.
TIMES=3
SHORT_SECONDS=5
BULK_SECONDS=4

# start_workers WAY WORKERS PORT: l4lb runs as `lb` in front of that port.
start_workers() {
    WORKERS=$2
    cat >"$WORK/config.toml" <<END_OF_CONFIG
global = { workers = $2, drain_timeout = "0s" }
listener = [{ bind = "$(free_address)", accept = "$1" }]
[[pool]]
health = { type = "off" }
backend = [{ address = "127.0.0.1:$3" }]
END_OF_CONFIG
    RUST_LOG=info,l4lb::session=off start_l4lb lb -c "$WORK/config.toml"
    ADDRESS=$(address_of lb)
}

# shares KEY: that figure of each worker, in one line.
shares() {
    local before
    before=$(log_count lb ' worker_stats worker=')
    signal USR1 lb
    wait_until 5 "each worker logs its counts" log_count_is lb ' worker_stats worker=' $((before + WORKERS))
    tail -n "$WORKERS" <(grep ' worker_stats worker=' "$WORK/lb.log") | sed -E "s/.* $1=([0-9]+).*/\1/" | tr '\n' ' '
}

measure_long() {
    local way workers count try
    start_echo echo
    for workers in 2 4; do
        for count in 8 32 1000; do
            for way in "${WAYS[@]}"; do
                for ((try = 0; try < TIMES; try++)); do
                    start_workers "$way" "$workers" "$(port_of echo)"
                    start_peer client hold "$ADDRESS" "$count"
                    wait_until 60 "all are served" holds_all "$count"
                    say "$count long sessions, $workers workers, $way: sessions $(shares sessions)handed over $(shares handed_over)"
                    stop client
                    stop lb
                done
            done
        done
    done
    stop echo
}

holds_all() { [[ $(value_of held "$(ask client count)") == "$1" ]]; }

measure_short() {
    local way try port before after served
    port=$(free_ports 1)
    start_http_backend backend "$port"
    for ((try = 0; try < TIMES; try++)); do
        for way in "${WAYS[@]}"; do
            start_workers "$way" 2 "$port"
            before=$(cpu_ms "${PID[lb]}")
            wrk -t1 -c64 -d"$SHORT_SECONDS" -H 'Connection: close' "http://$ADDRESS/" >"$WORK/wrk.out" 2>&1
            after=$(cpu_ms "${PID[lb]}")
            served=$(awk '/requests in/ { print $1 }' "$WORK/wrk.out")
            say "$served short sessions, $way: $(((after - before) * 1000 / served)) us of CPU each, accepted $(shares accepted)handed over $(shares handed_over)"
            stop lb
        done
    done
    stop backend
}

measure_bulk() {
    local way try port before
    port=$(free_ports 1)
    start iperf3-server iperf3 -s --forceflush -B 127.0.0.1 -p "$port"
    wait_until 10 "iperf3 listens" grep -q 'Server listening' "$WORK/iperf3-server.out"
    for ((try = 0; try < TIMES; try++)); do
        for way in "${WAYS[@]}"; do
            start_workers "$way" 2 "$port"
            before=$(cpu_ms "${PID[lb]}")
            timeout 30 iperf3 -c 127.0.0.1 -p "${ADDRESS##*:}" -P 4 -t "$BULK_SECONDS" --json >"$WORK/iperf3.json"
            say "4 streams, 2 workers, $way: $(iperf_figures "$(($(cpu_ms "${PID[lb]}") - before))"), handed over $(shares handed_over)"
            stop lb
        done
    done
    stop iperf3-server
}

# iperf_figures CPU_MS: what was received, and the CPU time that it took l4lb.
iperf_figures() {
    python3 - "$WORK/iperf3.json" "$1" <<'END_OF_SCRIPT'
import json, sys
end = json.load(open(sys.argv[1]))["end"]
streams = sorted(stream["receiver"]["bits_per_second"] / 1e9 for stream in end["streams"])
received = end["sum_received"]["bytes"] / 1e9
print(f"{sum(streams):.1f} Gbit/s, slowest {streams[0]:.1f}, fastest {streams[-1]:.1f}, {int(sys.argv[2]) / received:.0f} ms of CPU per GB")
END_OF_SCRIPT
}

require python3 wrk iperf3
build
measure_long
measure_short
measure_bulk

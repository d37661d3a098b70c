#!/usr/bin/env bash
# Real programs through l4lb: wrk, iperf3, redis-benchmark, curl; and a backend that dies under load.
# --long: files of 1 GiB instead of 256 MiB.
# Case 2 and goal G4 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

MIB=256
[[ ${1:-} != --long ]] || MIB=1024

# wrk NAME ARGS...: fails on any socket error or wrong status; the rate is in $RATE.
run_wrk() {
    local name=$1
    shift
    wrk -t1 -c64 -d5 "$@" "http://$WEB/" >"$WORK/wrk.out" 2>&1 || fail "wrk $name: exit code $?"
    ! grep -E 'Socket errors|Non-2xx' "$WORK/wrk.out" || fail "wrk $name: errors"
    RATE=$(awk '/^Requests\/sec:/ { printf "%d", $2 }' "$WORK/wrk.out")
    expect "wrk $name: requests a second" "${RATE:-0}" -gt 0
    pass "wrk $name: $RATE requests/s, no error"
}

check_wrk() {
    run_wrk "keep-alive"
    run_wrk "Connection: close" -H 'Connection: close'
}

check_iperf() {
    local port way rate
    port=$(free_ports 1)
    start iperf3-server iperf3 -s --forceflush -B 127.0.0.1 -p "$port"
    wait_until 10 "iperf3 listens" grep -q 'Server listening' "$WORK/iperf3-server.out"
    start_unchecked iperf "$port"
    port=$(address_of iperf)
    port=${port##*:}
    for way in "" -R; do
        # shellcheck disable=SC2086 # no way at all is no argument
        timeout 30 iperf3 -c 127.0.0.1 -p "$port" -P 8 -t 2 --json $way >"$WORK/iperf3.json" ||
            fail "iperf3 ${way:-forward}: exit code $?: $(grep '"error"' "$WORK/iperf3.json")"
        rate=$(iperf_mbits)
        pass "iperf3 -P 8 ${way:-forward}: $rate Mbit/s, each stream moved bytes"
    done
    stop iperf
    stop iperf3-server
}

# Mbit/s received over all streams; fails when one of them got nothing.
iperf_mbits() {
    python3 - "$WORK/iperf3.json" <<'END'
import json, sys
end = json.load(open(sys.argv[1]))["end"]
assert len(end["streams"]) == 8, end["streams"]
assert all(stream["receiver"]["bytes"] > 0 for stream in end["streams"]), end["streams"]
print(int(end["sum_received"]["bits_per_second"] / 1e6))
END
}

check_redis() {
    local port
    port=$(free_ports 1)
    start redis-server redis-server --bind 127.0.0.1 --port "$port" --save '' --appendonly no --dir "$WORK"
    wait_until 10 "redis listens" accepts_connections "127.0.0.1:$port"
    start_unchecked redis "$port"
    port=$(address_of redis)
    timeout 60 redis-benchmark -h 127.0.0.1 -p "${port##*:}" -n 20000 -q -t set,get --csv >"$WORK/redis.out" 2>"$WORK/redis.log" ||
        fail "redis-benchmark: exit code $?"
    ! grep -iE 'error' "$WORK/redis.out" "$WORK/redis.log" || fail "redis-benchmark: errors"
    expect "redis-benchmark: kinds of request that were answered" "$(grep -cE '"(SET|GET)","[1-9]' "$WORK/redis.out")" = 2
    pass "redis-benchmark: $(sed -nE 's/^"(SET|GET)","([0-9]+).*/\1 \2/p' "$WORK/redis.out" | paste -sd, -) requests/s"
    stop redis
    stop redis-server
}

check_files() {
    local url sum
    mkdir "$WORK/files"
    head -c "${MIB}M" /dev/urandom >"$WORK/original"
    sum=$(sha256_of "$WORK/original")
    start_peer file-server files "$WORK/files"
    wait_until 10 "the file server listens" grep -q '^port=' "$WORK/file-server.out"
    start_unchecked files "$(port_of file-server)"
    url=http://$(address_of files)/copy
    curl -sS --fail --max-time 300 -T "$WORK/original" "$url" || fail "curl upload: exit code $?"
    expect "sha256 of the upload" "$(sha256_of "$WORK/files/copy")" = "$sum"
    pass "curl upload of $MIB MiB: same sha256"
    curl -sS --fail --max-time 300 -o "$WORK/back" "$url" || fail "curl download: exit code $?"
    expect "sha256 of the download" "$(sha256_of "$WORK/back")" = "$sum"
    pass "curl download of $MIB MiB: same sha256"
    rm -rf "$WORK/original" "$WORK/back" "$WORK/files"
    stop files
    stop file-server
}

sha256_of() { sha256sum "$1" | cut -d ' ' -f 1; }

# One of three backends is killed and started again while clients open a connection a request.
check_death() {
    local victim=$1 figures
    start_peer clients requests "$WEB" --seconds 60
    wait_until 10 "all three backends serve" serves_from 3
    stop "backend-$victim"
    ask clients mark >/dev/null
    wait_until 10 "the dead backend is seen as down" log_has web "backend=127.0.0.1:$victim .* to=down"
    sleep 2
    figures=$(ask clients count)
    expect "new connections that failed after the kill ($figures)" "$(value_of failed "$figures")" = 0
    expect "new connections that were served after the kill" "$(value_of ok "$figures")" -gt 100
    pass "a backend killed under load: $figures"
    ask clients mark >/dev/null
    start_http_backend "backend-$victim" "$victim"
    wait_until 10 "the backend is seen as up" log_has web "backend=127.0.0.1:$victim .* from=down to=up"
    wait_until 5 "it serves again" serves_from 3
    figures=$(ask clients count)
    expect "new connections that failed when it came back ($figures)" "$(value_of failed "$figures")" = 0
    pass "started again it serves: $figures"
    stop clients
}

serves_from() { [[ $(ask clients count | grep -oE 'ports=[0-9,]+' | tr ',' '\n' | wc -l) == "$1" ]]; }

require wrk iperf3 redis-server redis-benchmark curl python3 sha256sum
build
read -r -a PORTS <<<"$(free_ports 3)"
for port in "${PORTS[@]}"; do
    start_http_backend "backend-$port" "$port"
done
start_l4lb web -l "$(free_address)" "${PORTS[@]/#/-b127.0.0.1:}" --health-interval 500ms
WEB=$(address_of web)
check_wrk
check_death "${PORTS[1]}"
check_iperf
check_redis
check_files

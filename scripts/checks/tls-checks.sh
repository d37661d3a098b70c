#!/usr/bin/env bash
# What a health check over TLS costs l4lb, beside the check-ssl of HAProxy against the same server, in rounds by turns;
# and what a session beside these checks waits. --full: 10,000 backends every 5 s instead of some hundred every second.
# Figures are medians of the rounds.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

BACKENDS=300
INTERVAL_MS=1000
SECONDS_MEASURED=1.5
ROUNDS=3
CHECKERS=(l4lb haproxy)
if [[ ${1:-} == --full ]]; then
    BACKENDS=10000
    INTERVAL_MS=5000
    SECONDS_MEASURED=15
fi
# Processor time of a check beside HAProxy's, whose cryptography is that of OpenSSL.
RATIO_MAX=1.2
# Of the checks that are due.
SHARE_MIN=30

# Every address of 127.0.0.0/8 at one port: as many backends as there are names for.
start_server() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=web.test \
        -addext subjectAltName=DNS:web.test -keyout "$WORK/key.pem" -out "$WORK/ca.pem" 2>"$WORK/openssl.log"
    cat "$WORK/ca.pem" "$WORK/key.pem" >"$WORK/server.pem"
    cat >"$WORK/server.cfg" <<END
global
    nbthread 1
    maxconn 4000
    stats socket ipv4@127.0.0.1:${PORTS[4]}
$(haproxy_defaults http 10s)
frontend web
    bind 0.0.0.0:$PORT backlog 8192 ssl crt $WORK/server.pem
    http-request return status 200
END
    start server haproxy -db -f "$WORK/server.cfg"
    wait_until 10 "the server listens" accepts_connections "127.0.0.1:$PORT"
}

address_of_backend() { echo "127.$((1 + $1 / 62500)).$(($1 / 250 % 250)).$((1 + $1 % 250)):$PORT"; }

write_configs() {
    local index address
    {
        printf 'global = { workers = 1, log = { level = "warn" } }\nadmin = { metrics = "%s" }\n' "$METRICS"
        printf '[[listener]]\nname = "ping"\nbind = "%s"\npool = "ping"\n' "$PING_IN"
        printf '[[listener]]\nname = "web"\nbind = "%s"\npool = "web"\n' "$WEB_IN"
        printf '[[pool]]\nname = "ping"\nhealth = { type = "off" }\nbackend = [{ address = "127.0.0.1:%s" }]\n' "$(port_of echo)"
        printf '[[pool]]\nname = "web"\nhealth = { type = "tls", tls = { verify = "none" }, timeout = "%sms", ' "$INTERVAL_MS"
        printf 'interval = "%sms", fast_interval = "%sms" }\n' "$INTERVAL_MS" "$INTERVAL_MS"
    } >"$WORK/lb.toml"
    cat >"$WORK/haproxy.cfg" <<END
global
    nbthread 1
    maxconn 4000
    spread-checks 10
$(haproxy_defaults tcp 1h)
    timeout check ${INTERVAL_MS}ms
    default-server no-ssl-reuse check check-ssl verify none inter ${INTERVAL_MS}ms fastinter ${INTERVAL_MS}ms
listen ping
    bind $PING_IN
    server one 127.0.0.1:$(port_of echo) no-check
listen web
    bind $WEB_IN
END
    for ((index = 0; index < BACKENDS; index++)); do
        address=$(address_of_backend "$index")
        printf '[[pool.backend]]\naddress = "%s"\n' "$address" >>"$WORK/lb.toml"
        printf '    server s%s %s\n' "$index" "$address" >>"$WORK/haproxy.cfg"
    done
}

start_checker() {
    case $1 in
        l4lb) start checker env RUNTIME_DIRECTORY="$WORK/checker.run" "$L4LB" -c "$WORK/lb.toml" ;;
        haproxy) start checker haproxy -db -f "$WORK/haproxy.cfg" ;;
    esac
    wait_until 20 "$1 listens" accepts_connections "$PING_IN"
}

# Handshakes that the server has made, whoever has asked for them.
handshakes() {
    exec {stats}<>"/dev/tcp/127.0.0.1/${PORTS[4]}"
    echo "show info" >&"$stats"
    sed -n 's/^CumSslConns: //p' <&"$stats"
    exec {stats}>&-
}

have_been_made() { (($(handshakes) >= $1)); }

# Processor time of all threads in microseconds.
cpu_us() { cat "/proc/$1"/task/*/schedstat | awk '{ sum += $1 } END { printf "%d", sum / 1000 }'; }

# measure CHECKER ROUND: microseconds a check, and how long a ping beside the checks takes.
measure() {
    local name=$1 before cpu made spent due figures
    before=$(handshakes)
    start_checker "$name"
    wait_until 60 "$name has checked half of them" have_been_made $((before + BACKENDS / 2))
    before=$(handshakes)
    cpu=$(cpu_us "${PID[checker]}")
    spent=$(now_ms)
    figures=$(python3 "$ROOT/scripts/lib/peers" ping "$PING_IN" --seconds "$SECONDS_MEASURED")
    made=$(($(handshakes) - before))
    cpu=$(($(cpu_us "${PID[checker]}") - cpu))
    spent=$(($(now_ms) - spent))
    due=$((BACKENDS * spent / INTERVAL_MS))
    if [[ $name == l4lb ]]; then
        curl -sSf --max-time 20 "http://$METRICS/metrics" >"$WORK/metrics"
        expect_at_most "failed checks of l4lb" "$(awk '/^l4lb_checks_total.*failed/ { print $2 }' "$WORK/metrics")" $((made / 100))
    fi
    stop checker
    expect "checks of $name in percent of those that are due" $((100 * made / due)) -ge "$SHARE_MIN"
    say "round $2: $name: $made checks of $due that are due, $((cpu / made)) us each; ping $figures"
    echo $((cpu / made)) >>"$WORK/$name.us"
}

median_of() { sort -n "$WORK/$1.us" | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

require haproxy openssl curl python3
build
read -r -a PORTS <<<"$(free_ports 5 | tr '\n' ' ')"
PORT=${PORTS[0]} PING_IN=127.0.0.1:${PORTS[1]} WEB_IN=127.0.0.1:${PORTS[2]} METRICS=127.0.0.1:${PORTS[3]}
start_server
start_echo echo
write_configs
for ((round = 1; round <= ROUNDS; round++)); do
    for checker in "${CHECKERS[@]}"; do measure "$checker" "$round"; done
done
for checker in "${CHECKERS[@]}"; do say "$checker: $(median_of "$checker") us of a processor for a check, the median of $ROUNDS rounds"; done
RATIO=$(awk -v own="$(median_of l4lb)" -v theirs="$(median_of haproxy)" 'BEGIN { printf "%.2f", own / theirs }')
expect_at_most "processor time of a check beside that of HAProxy" "$RATIO" "$RATIO_MAX"
pass "a check of l4lb takes $RATIO of the processor time of one of HAProxy, $BACKENDS backends every $INTERVAL_MS ms"

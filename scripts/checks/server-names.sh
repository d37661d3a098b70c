#!/usr/bin/env bash
# Routes by the server that a client of TLS names, with real ones: curl and openssl reach three servers of openssl by name,
# each with a certificate of its own, and by protocol; who names none is served by the pool of the listener, or reset.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

SERVERS=(a.example.com other.example.com default.test)

start_servers() {
    local index name
    for index in "${!SERVERS[@]}"; do
        name=${SERVERS[$index]}
        make_server_certificate "$name"
        start "$name" openssl s_server -accept "127.0.0.1:${PORTS[$index]}" -cert "$WORK/$name.pem" -key "$WORK/$name.key" \
            -alpn h2,http/1.1 -www -quiet
        wait_until 10 "$name listens" accepts_connections "127.0.0.1:${PORTS[$index]}"
    done
}

start_balancer() {
    local index name
    {
        for name in lenient strict; do
            printf '[[listener]]\nname = "%s"\nbind = "%s"\npool = "default.test"\ntls = "passthrough"\n' "$name" "${IN[$name]}"
            [[ $name == lenient ]] || echo 'on_no_sni = "reject"'
            printf 'route = [{ sni = ["*.example.com"], pool = "other.example.com" }, { sni = ["a.example.com"], '
            printf 'pool = "a.example.com" }, { alpn = ["h2"], pool = "other.example.com" }]\n'
        done
        for index in "${!SERVERS[@]}"; do
            printf '[[pool]]\nname = "%s"\nhealth = { type = "off" }\n' "${SERVERS[$index]}"
            printf 'backend = [{ address = "127.0.0.1:%s" }]\n' "${PORTS[$index]}"
        done
    } >"$WORK/balancer.toml"
    start_l4lb balancer -c "$WORK/balancer.toml"
}

# The certificate proves which server has answered.
check_curl() {
    local asked=$1 port=${IN[lenient]##*:}
    curl -sS --fail --max-time 10 --cacert "$WORK/ca.pem" --http1.1 --no-alpn --resolve "$asked:$port:127.0.0.1" -o "$WORK/page" \
        "https://$asked:$port/" || fail "curl $asked: exit code $?"
}

# The subject of the certificate that openssl gets with these options.
subject() {
    openssl s_client -connect "${IN[lenient]}" "$@" </dev/null 2>"$WORK/client.log" |
        sed -n 's/^subject=CN *= *//p'
}

# Succeeds when the connection is reset or closed without a certificate.
is_refused() {
    local shown
    shown=$(openssl s_client -connect "${IN[strict]}" "$@" </dev/null 2>/dev/null || true)
    [[ $shown != *subject=* ]]
}

require openssl curl
build
read -r -a PORTS <<<"$(free_ports 5 | tr '\n' ' ')"
declare -A IN=([lenient]=127.0.0.1:${PORTS[3]} [strict]=127.0.0.1:${PORTS[4]})
start_servers
start_balancer
for name in "${SERVERS[@]}"; do
    check_curl "$name"
    expect "the certificate for $name" "$(subject -servername "$name")" = "$name"
done
pass "curl and openssl find each server by its name"
expect "a name below the wildcard" "$(subject -servername x.y.example.com)" = other.example.com
expect "a name in capitals" "$(subject -servername A.EXAMPLE.COM)" = a.example.com
expect "the name of the wildcard itself" "$(subject -servername example.com)" = default.test
expect "a protocol" "$(subject -servername example.com -alpn h2)" = other.example.com
expect "no name and a protocol" "$(subject -noservername -alpn h2)" = other.example.com
expect "no name" "$(subject -noservername)" = default.test
pass "wildcards, protocols and no name lead where the routes say"
is_refused -noservername || fail "a client that names no server was served by the listener that rejects it"
wait_until 5 "the refused client is logged" log_has balancer " session .*listener=strict .*reason=no_sni"
wait_until 5 "the log has name, protocol and route" log_has balancer " session .*sni=a.example.com .*route=2"
pass "who names no server is reset where the listener rejects it"

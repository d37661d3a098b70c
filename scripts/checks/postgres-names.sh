#!/usr/bin/env bash
# PostgreSQL by server name, with real servers and psql: two servers share one listener, each with a certificate of its own;
# sslmode require, prefer and disable, direct TLS where psql has it, cancelled queries, and a server without TLS.
# Case 132.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

POSTGRES_BIN=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
NAMES=(a.example.com b.example.com plain.test)

# Replaces this shell by a command: the server refuses to run as root.
as_user() {
    if [[ $(id -u) == 0 ]]; then exec setpriv --reuid=nobody --regid=nogroup --clear-groups "$@"; else exec "$@"; fi
}

start_server() {
    local index=$1 name=${NAMES[$1]} data="$WORK/${NAMES[$1]}.data"
    mkdir -p "$data"
    make_server_certificate "$name"
    [[ $(id -u) != 0 ]] || chown nobody "$data" "$WORK/$name.key" "$WORK/$name.pem"
    chmod 600 "$WORK/$name.key"
    (as_user "$POSTGRES_BIN/initdb" -D "$data" -U tester --auth=trust --no-sync -E UTF8 --locale=C) \
        >"$WORK/initdb.log" 2>&1
    {
        printf "listen_addresses = '127.0.0.1'\nport = %s\nunix_socket_directories = ''\n" "${PORTS[$index]}"
        printf "fsync = off\nshared_buffers = '1MB'\nmax_connections = 10\ncluster_name = '%s'\n" "$name"
        [[ $name == plain.test ]] ||
            printf "ssl = on\nssl_cert_file = '%s'\nssl_key_file = '%s'\n" "$WORK/$name.pem" "$WORK/$name.key"
    } >>"$data/postgresql.conf"
    start "$name" as_user "$POSTGRES_BIN/postgres" -D "$data"
    wait_until 20 "$name serves" "$POSTGRES_BIN/pg_isready" -q -h 127.0.0.1 -p "${PORTS[$index]}"
}

start_balancer() {
    local name index
    {
        for name in lenient strict; do
            printf '[[listener]]\nname = "%s"\nbind = "127.0.0.1:%s"\npool = "b.example.com"\ntls = "postgres"\n' \
                "$name" "${IN[$name]}"
            [[ $name == lenient ]] || echo 'on_no_sni = "reject"'
            printf 'route = [{ sni = ["a.example.com"], pool = "a.example.com" }, '
            printf '{ sni = ["plain.test"], pool = "plain.test" }]\n'
        done
        for index in "${!NAMES[@]}"; do
            printf '[[pool]]\nname = "%s"\nhealth = { type = "off" }\n' "${NAMES[$index]}"
            printf 'backend = [{ address = "127.0.0.1:%s" }]\n' "${PORTS[$index]}"
        done
    } >"$WORK/balancer.toml"
    start_l4lb balancer -c "$WORK/balancer.toml"
}

# Runs psql through a listener, by that name of the server, with these further parameters of the connection.
sql() {
    local listener=$1 name=$2 options=$3 query=$4
    PGCONNECT_TIMEOUT=10 "$POSTGRES_BIN/psql" -XAtq -c "$query" \
        "host=$name hostaddr=127.0.0.1 port=${IN[$listener]} user=tester dbname=postgres sslrootcert=$WORK/ca.pem $options"
}

# The server that answers, and whether by TLS.
who() {
    sql "$1" "$2" "$3" "select current_setting('cluster_name') || ' ' || ssl from pg_stat_ssl where pid = pg_backend_pid()" \
        2>>"$WORK/psql.log"
}

is_refused() { ! sql "$@" 'select 1' >>"$WORK/psql.log" 2>&1; }

sleeps() {
    [[ $(sql lenient b.example.com sslmode=require \
        "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'" \
        2>>"$WORK/psql.log") == 1 ]]
}

check_cancel() {
    start sleeper env PGCONNECT_TIMEOUT=10 "$POSTGRES_BIN/psql" -XAtq -c 'select pg_sleep(60)' \
        "host=b.example.com hostaddr=127.0.0.1 port=${IN[lenient]} user=tester dbname=postgres sslmode=require"
    wait_until 10 "the query runs" sleeps
    # psql cancels by a connection of its own, without encryption.
    signal INT sleeper
    wait_until 10 "the query is cancelled" log_has sleeper 'canceling statement due to user request'
}

require openssl setpriv
[[ -n $POSTGRES_BIN ]] || fail "needs postgresql, which is not installed"
build
read -r -a PORTS <<<"$(free_ports 5 | tr '\n' ' ')"
declare -A IN=([lenient]=${PORTS[3]} [strict]=${PORTS[4]})
chmod 755 "$WORK"
for index in "${!NAMES[@]}"; do start_server "$index"; done
start_balancer
for listener in lenient strict; do
    for mode in require prefer verify-full; do
        for name in a.example.com b.example.com; do
            expect "$name with sslmode=$mode" "$(who "$listener" "$name" "sslmode=$mode")" = "$name true"
        done
    done
done
pass "psql finds two servers by name at one listener, each with its certificate"
if "$POSTGRES_BIN/psql" --version | grep -qE ' (1[7-9]|[2-9][0-9])'; then
    expect "direct TLS" "$(who lenient a.example.com 'sslmode=require sslnegotiation=direct')" = "a.example.com true"
    pass "direct TLS is routed by its hello"
fi
expect "sslmode=disable" "$(who lenient a.example.com sslmode=disable)" = "b.example.com false"
is_refused strict a.example.com sslmode=disable || fail "a client without encryption was served by the listener that rejects it"
wait_until 5 "it is logged" log_has balancer ' session .*listener=strict .*reason=no_sni'
pass "sslmode=disable goes to the pool of the listener, or is reset"
check_cancel
pass "a query is cancelled through the pool of the listener"
is_refused lenient plain.test sslmode=require || fail "a server without TLS has served a client that requires it"
wait_until 5 "it is logged" log_has balancer ' session .*pool=plain.test .*reason=tls_refused'
pass "a server without TLS is tls_refused, and its client reset"

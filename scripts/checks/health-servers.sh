#!/usr/bin/env bash
# Each check that knows a protocol against the real server of Debian: up while it runs, down once it is stopped, up
# again after its start; with the server's own words where it is there and cannot serve. No check leaves MariaDB in the
# middle of a handshake: it blocks the hosts of clients that do.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

SERVERS=(redis postgres mysql smtp grpc mqtt https)
# Of each of the pools of MariaDB, before its count of broken handshakes is looked at.
MYSQL_CHECKS=5
POOLS=18
# The one that has the modules of Debian's packages.
PYTHON=/usr/bin/python3
POSTGRES_BIN=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)

# PostgreSQL does not run as root, and the others need not.
as_nobody() {
    [[ $(id -u) == 0 ]] || exec "$@"
    exec setpriv --reuid=nobody --regid=nogroup --clear-groups "$@"
}

# A folder of the servers.
make_home() {
    mkdir "$WORK/$1"
    [[ $(id -u) != 0 ]] || chown nobody:nogroup "$WORK/$1"
}

# For web.test, signed by itself.
make_certificate() {
    make_home tls
    (as_nobody openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=web.test \
        -addext subjectAltName=DNS:web.test -addext basicConstraints=critical,CA:FALSE \
        -keyout "$WORK/tls/key.pem" -out "$WORK/tls/web.pem") >"$WORK/openssl.log" 2>&1 || fail "openssl req"
}

# At the same time: both take seconds.
make_databases() {
    local postgres mysql
    make_home postgres
    make_home mysql
    (as_nobody "$POSTGRES_BIN/initdb" -D "$WORK/postgres/data" -A trust -U postgres --no-sync --no-instructions) \
        >"$WORK/initdb.log" 2>&1 &
    postgres=$!
    (as_nobody mariadb-install-db --no-defaults --datadir="$WORK/mysql/data" --skip-test-db --skip-name-resolve \
        --innodb-log-file-size=4M --innodb-flush-log-at-trx-commit=0) >"$WORK/install-db.log" 2>&1 &
    mysql=$!
    wait "$postgres" || fail "initdb"
    wait "$mysql" || fail "mariadb-install-db"
    echo "CREATE USER IF NOT EXISTS 'l4lb'@'%';" >"$WORK/mysql/init.sql"
}

start_server() {
    local port=${PORT_OF[$1]}
    case $1 in
        redis)
            start redis as_nobody redis-server --bind 127.0.0.1 --port "$port" --save '' --dir / \
                --tls-port "${PORT_OF[redis-tls]}" --tls-auth-clients no --tls-ca-cert-file "$WORK/tls/web.pem" \
                --tls-cert-file "$WORK/tls/web.pem" --tls-key-file "$WORK/tls/key.pem"
            ;;
        https)
            start https as_nobody openssl s_server -accept "127.0.0.1:$port" -www -quiet \
                -cert "$WORK/tls/web.pem" -key "$WORK/tls/key.pem"
            ;;
        postgres)
            start postgres as_nobody "$POSTGRES_BIN/postgres" -D "$WORK/postgres/data" -h 127.0.0.1 -p "$port" \
                -k "$WORK/postgres" -c fsync=off
            ;;
        mysql)
            start mysql as_nobody mariadbd --no-defaults --datadir="$WORK/mysql/data" --socket="$WORK/mysql/socket" \
                --bind-address=127.0.0.1 --port="$port" --init-file="$WORK/mysql/init.sql" \
                --innodb-buffer-pool-size=8M --innodb-flush-log-at-trx-commit=0
            ;;
        smtp) start smtp as_nobody "$PYTHON" -m aiosmtpd --nosetuid --listen "127.0.0.1:$port" ;;
        grpc) start_grpc ;;
        mqtt)
            printf 'listener %s 127.0.0.1\nallow_anonymous true\n' "$port" >"$WORK/mqtt.conf"
            start mqtt as_nobody mosquitto -c "$WORK/mqtt.conf"
            ;;
    esac
}

# In order, so that it can start again. PostgreSQL waits for its clients unless it is interrupted.
end_server() {
    local how=TERM
    [[ $1 != postgres ]] || how=INT
    signal "$how" "$1"
    await_exit "$1" 15
}

# The service "shop" serves, "warehouse" does not. The messages are those of grpc.health.v1: a string, and an enum.
start_grpc() {
    start grpc as_nobody "$PYTHON" -c "
from concurrent import futures
import grpc
STATUS = {b'': b'\x08\x01', b'\x0a\x04shop': b'\x08\x01', b'\x0a\x09warehouse': b'\x08\x02'}
def check(request, context):
    if request not in STATUS:
        context.abort(grpc.StatusCode.NOT_FOUND, 'unknown service')
    return STATUS[request]
server = grpc.server(futures.ThreadPoolExecutor(4))
handlers = {'Check': grpc.unary_unary_rpc_method_handler(check)}
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler('grpc.health.v1.Health', handlers),))
server.add_insecure_port('127.0.0.1:${PORT_OF[grpc]}')
server.start()
server.wait_for_termination()"
}

# pool NAME SERVER KEYS PORT: a pool with one backend, and a listener of its own on that port.
pool() {
    cat <<END
[[listener]]
name = "$1"
bind = "127.0.0.1:$4"
pool = "$1"
[[pool]]
name = "$1"
health = { $3, interval = "2s", timeout = "${5:-2s}", fast_interval = "100ms", rise = 1, fall = 2 }
backend = [{ name = "one", address = "127.0.0.1:${PORT_OF[$2]}" }]
END
}

start_balancer() {
    {
        pool redis redis 'type = "redis"' "${LISTENERS[0]}"
        pool postgres postgres 'type = "postgres"' "${LISTENERS[1]}"
        pool mysql mysql 'type = "mysql", user = "l4lb"' "${LISTENERS[2]}"
        pool smtp smtp 'type = "smtp", domain = "lb.test"' "${LISTENERS[3]}"
        pool grpc grpc 'type = "grpc", service = "shop"' "${LISTENERS[4]}"
        pool mqtt mqtt 'type = "mqtt", client_id = "l4lb-check"' "${LISTENERS[5]}"
        pool postgres-stranger postgres 'type = "postgres", user = "stranger"' "${LISTENERS[6]}"
        pool mysql-stranger mysql 'type = "mysql"' "${LISTENERS[7]}"
        pool mysql-refused mysql 'type = "mysql", user = "nobody"' "${LISTENERS[8]}"
        pool script redis 'steps = [{ send = "PING\r\n", expect = "PONG" }, { send = "PING\r\n", expect = "+OK" }]' "${LISTENERS[9]}" 1s
        pool grpc-server grpc 'type = "grpc"' "${LISTENERS[10]}"
        pool grpc-down grpc 'type = "grpc", service = "warehouse"' "${LISTENERS[11]}"
        pool grpc-unknown grpc 'type = "grpc", service = "attic"' "${LISTENERS[12]}"
        pool mqtt-closed mqtt-closed 'type = "mqtt"' "${LISTENERS[13]}"
        pool wrong-server redis 'type = "grpc"' "${LISTENERS[14]}"
        pool https https "type = \"https\", path = \"/\", host = \"web.test\", tls = { ca_file = \"$WORK/tls/web.pem\" }" "${LISTENERS[15]}"
        pool redis-tls redis-tls "type = \"redis\", tls = { ca_file = \"$WORK/tls/web.pem\", server_name = \"web.test\" }" "${LISTENERS[16]}"
        pool redis-name redis-tls "type = \"redis\", tls = { ca_file = \"$WORK/tls/web.pem\" }" "${LISTENERS[17]}"
    } >"$WORK/lb.toml"
    start_l4lb lb -c "$WORK/lb.toml"
}

ctl() { RUNTIME_DIRECTORY=$WORK/lb.run "$L4LB" ctl "$@"; }

# state_is HEALTH POOL...: all of them are.
state_is() {
    ctl backends --json | python3 -c 'import json, sys
health = {row["pool"]: row["health"] for row in json.load(sys.stdin)}
sys.exit(not all(health[pool] == sys.argv[1] for pool in sys.argv[2:]))' "$@"
}

says_why() { log_has lb "health pool=$1 .*to=down.*$2"; }

preauth_aborts() {
    mariadb --no-defaults --socket="$WORK/mysql/socket" --user=root --skip-column-names \
        --execute="SHOW GLOBAL STATUS LIKE 'Aborted_connects_preauth'" | awk '{ print $2 }'
}

checks_of() {
    curl -sSf --max-time 10 --unix-socket "$(admin_socket lb)" "http://localhost/metrics" |
        awk -v pool="pool=\"$1\"" '/^l4lb_backend_checks_total/ && index($0, pool) { sum += $NF } END { print sum + 0 }'
}

has_checked() { (($(checks_of "$1") >= $2)); }

require redis-server openssl mariadb mariadbd mariadb-install-db mosquitto python3 curl setpriv
[[ -n $POSTGRES_BIN ]] || fail "needs postgresql, which is not installed"
"$PYTHON" -c 'import aiosmtpd, grpc' || fail "needs python3-aiosmtpd and python3-grpcio"
build
chmod 711 "$WORK"
declare -A PORT_OF
read -r -a PORTS <<<"$(free_ports $((${#SERVERS[@]} + 2 + POOLS)) | tr '\n' ' ')"
LISTENERS=("${PORTS[@]:$((${#SERVERS[@]} + 2))}")
for index in "${!SERVERS[@]}"; do PORT_OF[${SERVERS[$index]}]=${PORTS[$index]}; done
PORT_OF[mqtt-closed]=${PORTS[${#SERVERS[@]}]}
PORT_OF[redis-tls]=${PORTS[$((${#SERVERS[@]} + 1))]}

make_certificate
make_databases
printf 'listener %s 127.0.0.1\nallow_anonymous false\n' "${PORT_OF[mqtt-closed]}" >"$WORK/mqtt-closed.conf"
start mqtt-closed as_nobody mosquitto -c "$WORK/mqtt-closed.conf"
for server in "${SERVERS[@]}"; do start_server "$server"; done
for server in redis redis-tls postgres smtp grpc mqtt mqtt-closed https; do
    wait_until 20 "$server listens" accepts_connections "127.0.0.1:${PORT_OF[$server]}"
done
# By its socket: a connection that is only opened counts as one that was lost.
wait_until 30 "mysql serves" preauth_aborts
start_balancer
wait_until 20 "all servers are up" state_is up "${SERVERS[@]}" postgres-stranger mysql-stranger grpc-server redis-tls
ABORTS=$(preauth_aborts)
pass "up: ${SERVERS[*]}"

wait_until 10 "those that cannot serve are down" state_is down script mysql-refused grpc-down grpc-unknown mqtt-closed wrong-server redis-name
while read -r pool words; do
    wait_until 5 "the log says why $pool is down: $words" says_why "$pool" "$words"
done <<'END'
script step 2 of 2: timed out after 1s while waiting for the answer
mysql-refused login: the backend reports .*Access denied
grpc-down NOT_SERVING
grpc-unknown the call ended without a health status
mqtt-closed code 5, not authorized
wrong-server answer is not HTTP/2
redis-name certificate is for web.test, not 127.0.0.1
END
pass "a server that is there and cannot serve is down, with its own words"

for pool in mysql mysql-stranger mysql-refused; do
    wait_until 20 "$MYSQL_CHECKS checks of $pool" has_checked "$pool" "$MYSQL_CHECKS"
done
expect "connections that MariaDB has lost before the login" "$(preauth_aborts)" = "$ABORTS"
pass "no check leaves MariaDB in the middle of a handshake"

for server in "${SERVERS[@]}"; do end_server "$server"; done
wait_until 10 "all are down" state_is down "${SERVERS[@]}" redis-tls
pass "stopped: all are down"

for server in "${SERVERS[@]}"; do start_server "$server"; done
wait_until 20 "all are up again" state_is up "${SERVERS[@]}" redis-tls
pass "started: all are up"

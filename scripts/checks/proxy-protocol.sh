#!/usr/bin/env bash
# The PROXY protocol with real servers behind l4lb: HAProxy, nginx and aiosmtpd learn the address of the client, in both
# versions, and are up by checks that begin with a header of their own. With real balancers in front of it: HAProxy, nginx
# and another l4lb, and the address is that of the client still.
# Case 126.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

# The client connects from here, so that it is not taken for l4lb.
CLIENT=127.0.0.9
# That which has the packages of Debian.
PYTHON=/usr/bin/python3

start_servers() {
    cat >"$WORK/haproxy.cfg" <<END
$(haproxy_defaults http 10s)
frontend web
    bind 127.0.0.1:$HAPROXY_PORT accept-proxy
    http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst_port]\n"
END
    start haproxy haproxy -db -f "$WORK/haproxy.cfg"
    mkdir "$WORK/nginx"
    cat >"$WORK/nginx.conf" <<END
daemon off;
master_process off;
pid $WORK/nginx/pid;
error_log stderr info;
events {}
http {
    access_log off;
    client_body_temp_path $WORK/nginx/body;
    proxy_temp_path $WORK/nginx/proxy;
    fastcgi_temp_path $WORK/nginx/fastcgi;
    uwsgi_temp_path $WORK/nginx/uwsgi;
    scgi_temp_path $WORK/nginx/scgi;
    server {
        listen 127.0.0.1:$NGINX_PORT proxy_protocol;
        set_real_ip_from 127.0.0.1;
        real_ip_header proxy_protocol;
        location / { return 200 "\$remote_addr \$proxy_protocol_port \$proxy_protocol_server_port\n"; }
    }
}
END
    start nginx nginx -c "$WORK/nginx.conf"
    cat >"$WORK/smtp.py" <<'END'
import asyncio, sys
from aiosmtpd.smtp import SMTP

class Handler:
    async def handle_PROXY(self, server, session, envelope, proxy_data):
        print("proxy", proxy_data.src_addr, proxy_data.src_port, proxy_data.dst_port, flush=True)
        return True

async def serve(port):
    loop = asyncio.get_running_loop()
    make = lambda: SMTP(Handler(), proxy_protocol_timeout=5)
    server = await loop.create_server(make, "127.0.0.1", port)
    await server.serve_forever()

asyncio.run(serve(int(sys.argv[1])))
END
    start smtp "$PYTHON" "$WORK/smtp.py" "$SMTP_PORT"
    wait_until 10 "HAProxy listens" accepts_connections "127.0.0.1:$HAPROXY_PORT"
    wait_until 10 "nginx listens" accepts_connections "127.0.0.1:$NGINX_PORT"
    wait_until 10 "aiosmtpd listens" accepts_connections "127.0.0.1:$SMTP_PORT"
}

# One listener for each server, which are all down until a check has passed.
start_balancer() {
    local version=$1 pool
    {
        for pool in haproxy nginx smtp; do
            printf '[[listener]]\nname = "%s"\nbind = "%s"\npool = "%s"\n' "$pool" "${FRONT[$pool]}" "$pool"
        done
        pool_of haproxy "$HAPROXY_PORT" "$version" 'type = "http", path = "/"'
        pool_of nginx "$NGINX_PORT" "$version" 'type = "http", path = "/"'
        pool_of smtp "$SMTP_PORT" "$version" 'type = "smtp"'
    } >"$WORK/balancer.toml"
    start_l4lb balancer -c "$WORK/balancer.toml"
    for pool in haproxy nginx smtp; do
        wait_until 10 "$pool is up by its checks" log_has balancer "pool=$pool .* to=up"
    done
}

pool_of() {
    cat <<END
[[pool]]
name = "$1"
proxy_protocol = $3
backend = [{ address = "127.0.0.1:$2" }]
health = { $4, interval = "1s", fast_interval = "100ms", rise = 1, initial_state = "down" }
END
}

# The server answers with what it takes for the client, and curl says where it came from.
check_http() {
    local pool=$1 url=http://${FRONT[$1]}/ said port
    said=$(curl -sS --fail --max-time 10 --interface "$CLIENT" -w '%{local_port}' "$url") || fail "curl $pool: exit code $?"
    port=${said##*$'\n'}
    expect "client and destination as $pool sees them" "${said%$'\n'*}" = "$CLIENT $port ${FRONT[$pool]##*:}"
}

check_smtp() {
    local port
    port=$(python3 - "${FRONT[smtp]}" "$CLIENT" <<'END'
import smtplib, sys
host, port = sys.argv[1].rsplit(":", 1)
with smtplib.SMTP(host, int(port), timeout=10, source_address=(sys.argv[2], 0)) as smtp:
    print(smtp.sock.getsockname()[1])
    assert smtp.noop()[0] == 250
END
    )
    wait_until 5 "aiosmtpd has the address of the client" \
        grep -qE "^proxy (b')?$CLIENT'? $port ${FRONT[smtp]##*:}$" "$WORK/smtp.out"
}

# Balancers in front, each at a port of its own, and l4lb behind them, which passes on what they say.
start_fronts() {
    cat >"$WORK/inner.toml" <<END
[[listener]]
name = "inner"
bind = "$INNER"
proxy_protocol = { from = ["127.0.0.1"] }
$(pool_of nginx "$NGINX_PORT" '"v2"' 'type = "http", path = "/"')
END
    start_l4lb inner -c "$WORK/inner.toml"
    wait_until 10 "nginx is up by its checks" log_has inner "pool=nginx .* to=up"
    cat >"$WORK/fronts.cfg" <<END
$(haproxy_defaults tcp 10s)
listen v1
    bind ${FRONT[haproxy-v1]}
    server l4lb $INNER send-proxy
listen v2
    bind ${FRONT[haproxy-v2]}
    server l4lb $INNER send-proxy-v2 check inter 200ms
END
    start fronts haproxy -db -f "$WORK/fronts.cfg"
    cat >"$WORK/front.conf" <<END
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
master_process off;
pid $WORK/nginx/front.pid;
error_log stderr info;
events {}
stream {
    server {
        listen ${FRONT[nginx-v1]};
        proxy_pass $INNER;
        proxy_protocol on;
    }
}
END
    start front nginx -c "$WORK/front.conf"
    cat >"$WORK/outer.toml" <<END
[[listener]]
bind = "${FRONT[l4lb]}"
[[pool]]
proxy_protocol = { version = "v2", tlvs = ["crc32c", "unique_id"] }
backend = [{ address = "$INNER" }]
health = { type = "tcp", interval = "200ms", fast_interval = "100ms", rise = 1, initial_state = "down" }
END
    start_l4lb outer -c "$WORK/outer.toml"
    wait_until 10 "the inner l4lb is up by checks of the outer one" log_has outer 'to=up'
    for name in haproxy-v1 haproxy-v2 nginx-v1; do
        wait_until 10 "$name listens" accepts_connections "${FRONT[$name]}"
    done
}

check_fronts() {
    local name wrong
    for name in haproxy-v1 haproxy-v2 nginx-v1 l4lb; do
        check_http "$name"
    done
    wait_until 5 "the log has the client and the balancer in front" log_has inner " session .*client=$CLIENT:.* peer=127.0.0.1:"
    wrong=$(grep -cE 'reason=(proxy_bad|preread_timeout)' "$WORK/inner.log" || true)
    expect "headers that were refused" "$wrong" = 0
}

check_stranger() {
    ! curl -sS --max-time 5 --interface "$CLIENT" "http://$INNER/" >"$WORK/stranger.out" 2>&1 ||
        fail "a client that is no balancer in front was served"
    wait_until 5 "the refused client is logged" log_has inner "reason=\"?proxy_untrusted"
}

require haproxy nginx curl python3
"$PYTHON" -c "import aiosmtpd" || fail "needs python3-aiosmtpd"
build
read -r -a PORTS <<<"$(free_ports 11 | tr '\n' ' ')"
HAPROXY_PORT=${PORTS[0]} NGINX_PORT=${PORTS[1]} SMTP_PORT=${PORTS[2]} INNER=127.0.0.1:${PORTS[3]}
declare -A FRONT=()
for name in haproxy nginx smtp haproxy-v1 haproxy-v2 nginx-v1 l4lb; do
    FRONT[$name]=127.0.0.1:${PORTS[4 + ${#FRONT[@]}]}
done
start_servers
for version in '"v1"' '"v2"' '{ version = "v2", tlvs = ["crc32c", "unique_id"] }' '{ version = "v1", check = "local" }'; do
    start_balancer "$version"
    check_http haproxy
    check_http nginx
    check_smtp
    stop balancer
    pass "$version: HAProxy, nginx and aiosmtpd are up and know the client"
done
start_fronts
check_fronts
check_stranger
pass "behind HAProxy, nginx and another l4lb the client is known, and no one else is let in"

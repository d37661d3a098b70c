#!/usr/bin/env bash
# The PROXY protocol with real servers behind l4lb: HAProxy, nginx and aiosmtpd learn the address of the client, in both
# versions, and are up by checks that begin with a header of their own.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

# The client connects from here, so that it is not taken for l4lb.
CLIENT=127.0.0.9
# That which has the packages of Debian.
PYTHON=/usr/bin/python3

start_servers() {
    cat >"$WORK/haproxy.cfg" <<END
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
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

require haproxy nginx curl python3
"$PYTHON" -c "import aiosmtpd" || fail "needs python3-aiosmtpd"
build
read -r HAPROXY_PORT NGINX_PORT SMTP_PORT FRONT1 FRONT2 FRONT3 <<<"$(free_ports 6 | tr '\n' ' ')"
declare -A FRONT=([haproxy]="127.0.0.1:$FRONT1" [nginx]="127.0.0.1:$FRONT2" [smtp]="127.0.0.1:$FRONT3")
start_servers
for version in '"v1"' '"v2"' '{ version = "v2", tlvs = ["crc32c", "unique_id"] }' '{ version = "v1", check = "local" }'; do
    start_balancer "$version"
    check_http haproxy
    check_http nginx
    check_smtp
    stop balancer
    pass "$version: HAProxy, nginx and aiosmtpd are up and know the client"
done

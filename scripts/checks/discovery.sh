#!/usr/bin/env bash
# Backends by the DNS of dnsmasq: they come and go with its answers, 200 addresses come by TCP, a service has its ports
# and tiers, and a name server that is away takes nothing out of service.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

MANY=200

start_dnsmasq() {
    start dnsmasq dnsmasq --no-daemon --conf-file=/dev/null --no-resolv --no-hosts --bind-interfaces \
        --listen-address=127.0.0.1 --port="$PORT" --user="$(id -un)" --pid-file= --log-facility=- --local-ttl=1 \
        --addn-hosts="$WORK/hosts" --local=/test/ \
        --srv-host="_http._tcp.web.test,one.test,$BACKEND,10,60" --srv-host="_http._tcp.web.test,two.test,$BACKEND,20,40"
    wait_until 10 "dnsmasq answers" log_has dnsmasq 'started'
}

# say NAME ADDRESS...: from now on the name has these addresses.
say_hosts() {
    local name=$1 address
    shift
    {
        printf '127.0.8.1 one.test\n127.0.8.2 two.test\n'
        for address in "$@"; do printf '%s %s\n' "$address" "$name"; done
    } >"$WORK/hosts"
    [[ -z ${PID[dnsmasq]:-} ]] || signal HUP dnsmasq
}

ctl() { RUNTIME_DIRECTORY=$WORK/lb.run "$L4LB" ctl "$@"; }

backends_are() {
    local pool=$1 found
    shift
    found=$(ctl backends "$pool" --json | python3 -c 'import json, sys
print(" ".join(sorted("%s@%s%s" % (b["address"].split(":")[0], b["weight"], "/%d" % b["priority"] if b["priority"] else "") for b in json.load(sys.stdin))))')
    [[ $found == "$*" ]]
}

count_is() { [[ $(ctl backends "$1" --json | python3 -c 'import json, sys; print(len(json.load(sys.stdin)))') == "$2" ]]; }

state_is() { ctl discover --json | python3 -c 'import json, sys
sys.exit(not all(row["state"] == sys.argv[1] for row in json.load(sys.stdin)))' "$1"; }

require dnsmasq
build
PORT=$(free_ports 1)
BACKEND=$(free_ports 1)
say_hosts web.test 127.0.8.11 127.0.8.12
start_dnsmasq
cat >"$WORK/lb.toml" <<END
listener = [{ bind = "$(free_address)", pool = "web" }]
[[pool]]
name = "web"
health = { type = "off" }
[[pool.discover]]
type = "dns"
name = "web.test"
port = $BACKEND
resolver = ["127.0.0.1:$PORT"]
interval = "100ms"
[[pool]]
name = "service"
health = { type = "off" }
[[pool.discover]]
type = "dns"
name = "_http._tcp.web.test"
record = "srv"
resolver = ["127.0.0.1:$PORT"]
interval = "100ms"
END
start_l4lb lb -c "$WORK/lb.toml"
wait_until 10 "two addresses" backends_are web 127.0.8.11@1 127.0.8.12@1
wait_until 10 "a service with two tiers" backends_are service 127.0.8.1@60 127.0.8.2@40/1
pass "two addresses, and a service with a weight and two tiers"

say_hosts web.test 127.0.8.12 127.0.8.13
wait_until 10 "another one in place of the first" backends_are web 127.0.8.12@1 127.0.8.13@1
pass "one has come, one has gone"

mapfile -t all < <(seq -f '127.0.9.%g' 1 "$MANY")
say_hosts web.test "${all[@]}"
wait_until 10 "$MANY addresses" count_is web "$MANY"
pass "$MANY addresses, which fit into no datagram"

stop dnsmasq
wait_until 15 "asking fails" state_is failed
expect "backends without a name server" "$(ctl backends web --json | grep -o '"eligible":true' | wc -l)" = "$MANY"
say_hosts web.test 127.0.8.14
start_dnsmasq
wait_until 20 "the name server is back" backends_are web 127.0.8.14@1
pass "a name server that was away took nothing out of service"

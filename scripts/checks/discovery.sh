#!/usr/bin/env bash
# Backends by the DNS of dnsmasq: they come and go with its answers, 200 addresses come by TCP, a service has its ports
# and tiers, and a name server that is away takes nothing out of service. Backends by a file, which is renamed, broken
# and swapped as Kubernetes does it, and by an HTTP server that comes and goes.
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

# list ADDRESS...: a list of these, as JSON.
list() {
    local address all=()
    for address in "$@"; do all+=("{\"address\": \"$address:$BACKEND\"}"); done
    (IFS=,; printf '[%s]\n' "${all[*]}")
}

# Puts the list of these addresses in the place of that file.
put() {
    local file=$1
    shift
    list "$@" >"$file.new"
    mv "$file.new" "$file"
}

state_of() { ctl discover --json | python3 -c 'import json, sys
print(next(row["state"] + " " + (row["note"] or "") for row in json.load(sys.stdin) if row["pool"] == sys.argv[1]))' "$1"; }
state_begins() { [[ $(state_of "$1") == "$2"* ]]; }

start_http() { start http python3 -m http.server --bind 127.0.0.1 --directory "$WORK/served" "$HTTP"; }

require dnsmasq
build
PORT=$(free_ports 1)
HTTP=$(free_ports 1)
BACKEND=$(free_ports 1)
say_hosts web.test 127.0.8.11 127.0.8.12
start_dnsmasq
{
    printf 'listener = [{ bind = "%s", pool = "web" }]\n' "$(free_address)"
    pool_of_dns web web.test "127.0.0.1:$PORT" 100ms "port = $BACKEND"
    pool_of_dns service _http._tcp.web.test "127.0.0.1:$PORT" 100ms 'record = "srv"'
} >"$WORK/lb.toml"
mkdir -p "$WORK/served" "$WORK/map/..1"
list 127.0.8.21 >"$WORK/map/..1/web.json"
ln -s ..1 "$WORK/map/..data"
ln -s ..data/web.json "$WORK/map/web.json"
put "$WORK/served/web.json" 127.0.8.31
start_http
cat >>"$WORK/lb.toml" <<END
[[pool]]
name = "file"
health = { type = "off" }
discover = [{ type = "file", path = "map/web.json", interval = "1h" }]
[[pool]]
name = "http"
health = { type = "off" }
discover = [{ type = "http", url = "http://127.0.0.1:$HTTP/web.json", interval = "100ms", obsolete = 0 }]
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
wait_until 15 "asking fails" state_begins web failed
wait_until 15 "asking fails" state_begins service failed
expect "backends without a name server" "$(ctl backends web --json | grep -o '"eligible":true' | wc -l)" = "$MANY"
say_hosts web.test 127.0.8.14
start_dnsmasq
wait_until 20 "the name server is back" backends_are web 127.0.8.14@1
pass "a name server that was away took nothing out of service"

wait_until 10 "the list of the file" backends_are file 127.0.8.21@1
mkdir "$WORK/map/..2"
list 127.0.8.21 127.0.8.22 >"$WORK/map/..2/web.json"
ln -s ..2 "$WORK/map/..data_tmp"
mv -T "$WORK/map/..data_tmp" "$WORK/map/..data"
rm -r "$WORK/map/..1"
wait_until 10 "the list of another version" backends_are file 127.0.8.21@1 127.0.8.22@1
printf '[\n{"address": "127.0.8.23"}]\n' >"$WORK/map/..2/web.json"
wait_until 10 "its line" state_begins file "failed $WORK/map/web.json:2: address: port missing"
expect "backends of a broken list" "$(ctl backends file --json | grep -o '"eligible":true' | wc -l)" = 2
put "$WORK/map/..2/web.json" 127.0.8.23
wait_until 10 "the list put right" backends_are file 127.0.8.23@1
pass "a file is followed through links and renames, and a broken one changes nothing"

wait_until 10 "the list of the server" backends_are http 127.0.8.31@1
put "$WORK/served/web.json" 127.0.8.32 127.0.8.33
wait_until 10 "its other list" backends_are http 127.0.8.32@1 127.0.8.33@1
stop http
wait_until 10 "the server is away" state_begins http "failed cannot connect"
rm "$WORK/served/web.json"
start_http
wait_until 10 "the server has no list" state_begins http "failed the server answers 404"
expect "backends without a list" "$(ctl backends http --json | grep -o '"eligible":true' | wc -l)" = 2
put "$WORK/served/web.json" 127.0.8.31
wait_until 10 "the list is back" backends_are http 127.0.8.31@1
pass "a server that lists backends was away and without a list, which took nothing out of service"

#!/usr/bin/env bash
# Host names of backends, as this machine resolves them: by a name server of resolv.conf(5), by the file of hosts, and
# while neither knows them. Root only: it has a network of its own, and other files in the place of those of /etc.
# Case 100 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

# dnsmasq at the port of name servers, in a network where nothing else is.
start_dnsmasq() {
    start dnsmasq dnsmasq --no-daemon --conf-file=/dev/null --no-resolv --no-hosts --bind-interfaces \
        --listen-address=127.0.0.1 --user="$(id -un)" --pid-file= --log-facility=- --local-ttl=1 \
        --addn-hosts="$WORK/names" --local=/test/
    wait_until 10 "dnsmasq answers" log_has dnsmasq 'started'
}

# name_has NAME ADDRESS...: from now on the name has these addresses.
name_has() {
    local name=$1 address
    shift
    for address in "$@"; do printf '%s %s\n' "$address" "$name"; done >"$WORK/names"
    [[ -z ${PID[dnsmasq]:-} ]] || signal HUP dnsmasq
}

ctl() { RUNTIME_DIRECTORY=$WORK/lb.run "$L4LB" ctl "$@"; }

# backends_are NAME/ADMIN...: the pool has these, and no others.
backends_are() {
    local found
    found=$(ctl backends web --json | python3 -c 'import json, sys
print(" ".join(sorted("%s/%s" % (b["name"], b["admin"]) for b in json.load(sys.stdin))))')
    [[ $found == "$*" ]]
}

reason_has() {
    ctl backends web --json | python3 -c 'import json, sys
sys.exit(not any(sys.argv[1] in (b["health_reason"] or "") for b in json.load(sys.stdin)))' "$1"
}

met() { [[ $(curl --silent --max-time 5 "http://$LISTEN/") == "$1" ]]; }

in_own_network() {
    ip link set lo up
    for file in hosts resolv.conf; do
        : >"$WORK/$file"
        mount --bind "$WORK/$file" "/etc/$file"
    done
    printf 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n' >"$WORK/resolv.conf"
}

require_root
require dnsmasq curl unshare
build
if [[ -z ${OWN_NETWORK:-} ]]; then
    OWN_NETWORK=1 L4LB=$L4LB unshare --net --mount -- "$0" "$@"
    exit
fi
in_own_network
LISTEN=127.0.0.1:9090
for last in 1 2 3; do
    mkdir -p "$WORK/served/$last"
    echo "$last" >"$WORK/served/$last/index.html"
    start "server$last" python3 -m http.server --bind "127.0.8.$last" --directory "$WORK/served/$last" 8080
    wait_until 10 "server $last listens" accepts_connections "127.0.8.$last:8080"
done
name_has web.test 127.0.8.1
start_dnsmasq
cat >"$WORK/lb.toml" <<END
global = { resolve = "require" }
listener = [{ bind = "$LISTEN" }]
[[pool]]
name = "web"
health = { type = "off" }
backend = [{ name = "a", address = "web.test:8080" }]
END
start_l4lb lb -c "$WORK/lb.toml"
met 1 || fail "the first client is not served"
backends_are a@127.0.8.1/ready || fail "the pool has $(ctl backends web)"
pass "what the name has at the start serves the first client"

ctl drain web/a >"$WORK/drained.txt"
backends_are a@127.0.8.1/drain || fail "the pool has $(ctl backends web)"
name_has web.test 127.0.8.1 127.0.8.2 127.0.8.3
wait_until 20 "two more, in drain" backends_are a@127.0.8.1/drain a@127.0.8.2/drain a@127.0.8.3/drain
ctl ready web/a >"$WORK/ready.txt"
backends_are a@127.0.8.1/ready a@127.0.8.2/ready a@127.0.8.3/ready || fail "the pool has $(ctl backends web)"
pass "addresses come beside others, and a drain of the name is that of all"

stop dnsmasq
echo '127.0.8.3 web.test' >"$WORK/hosts"
wait_until 30 "the file of hosts counts" backends_are a@127.0.8.3/ready
met 3 || fail "a client was not served"
pass "the file of hosts comes before name servers, of which none answers"

: >"$WORK/hosts"
stop lb
if "$L4LB" check "$WORK/lb.toml" 2>"$WORK/check.txt"; then fail "a name without an address is no mistake"; fi
grep -q 'address: cannot resolve host "web.test"' "$WORK/check.txt" || fail "check says $(<"$WORK/check.txt")"
sed -i /require/d "$WORK/lb.toml"
"$L4LB" check "$WORK/lb.toml" >"$WORK/checked.txt" 2>"$WORK/check.txt" || fail "check needs a name server: $(<"$WORK/check.txt")"
grep -q 'it is down until its name resolves' "$WORK/check.txt" || fail "check says $(<"$WORK/check.txt")"
start_l4lb lb -c "$WORK/lb.toml"
wait_until 10 "the reason is shown" reason_has 'has no address: cannot resolve host "web.test"'
backends_are a/ready || fail "the pool has $(ctl backends web)"
echo '127.0.8.2 web.test' >"$WORK/hosts"
wait_until 30 "the name resolves" backends_are a@127.0.8.2/ready
met 2 || fail "a client was not served"
pass "a name without an address keeps nothing from starting, says why, and serves once it has one"

# sessions_are N: so many are open, whatever the backends are called.
sessions_are() { (($(ctl sessions --json | grep -o '"client":' | wc -l) == $1)); }

sed 's/backend = .*/backend = [{ name = "a", address = "127.0.8.2:8080" }]\non_remove = "reset"/' "$WORK/lb.toml" >"$WORK/literal.toml"
sed 's/health = /on_remove = "reset"\nhealth = /' "$WORK/lb.toml" >"$WORK/named.toml"
exec 5<>"/dev/tcp/${LISTEN/:/\/}"
wait_until 10 "a session is open" sessions_are 1
for form in literal named literal named; do
    cp "$WORK/$form.toml" "$WORK/lb.toml"
    ctl reload >"$WORK/reload.txt"
    if [[ $form == named ]]; then backends_are a@127.0.8.2/ready; else backends_are a/ready; fi ||
        fail "$form: the pool has $(ctl backends web)"
    met 2 || fail "$form: a client was not served"
    # That of curl may be counted for a moment.
    wait_until 10 "$form: the old session alone is left" sessions_are 1
done
printf 'GET / HTTP/1.0\r\n\r\n' >&5
grep -q '^2' <&5 || fail "the session is dead"
exec 5>&-
pass "an address that becomes a name, and the reverse, ends no session and empties no pool"

printf 'nameserver 127.0.0.1\noptions timeout:30 attempts:5\n' >"$WORK/resolv.conf"
start silent python3 -c 'import socket, time
silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
silent.bind(("127.0.0.1", 53))
print("bound", file=__import__("sys").stderr, flush=True)
time.sleep(600)'
wait_until 10 "a name server is silent" log_has silent bound
: >"$WORK/hosts"
ctl reload >"$WORK/reload.txt" || fail "a reload looks up what it knows"
backends_are a@127.0.8.2/ready || fail "the pool has $(ctl backends web)"
stop lb
sed -i 's/^backend = .*/backend = [{ name = "a", address = "web.test:8080" }, { name = "b", address = "127.0.8.3:8080" }]/' "$WORK/lb.toml"
# It waits for the name as long as a start does.
start lb env RUNTIME_DIRECTORY="$WORK/lb.run" "$L4LB" -c "$WORK/lb.toml"
wait_until 60 "lb listens" log_has lb ' listening listener='
met 3 || fail "a client was not served"
wait_until 10 "the reason is shown" reason_has 'has no address: cannot resolve host "web.test"'
pass "a silent name server holds up no start and no reload"

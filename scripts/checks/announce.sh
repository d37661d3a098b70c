#!/usr/bin/env bash
# Two balancers that announce themselves in a real etcd: a client that resolves their name once in a ttl never fails while
# one of them is stopped and started; a killed one leaves with its lease; both come back after etcd was killed. The client
# reads the records as CoreDNS does, or asks a CoreDNS: COREDNS=PATH scripts/checks/announce.sh
# Case 106 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

LEASE_S=5
ROUNDS=2

require etcd curl
build
read -r CLIENT PEER BACKEND PORT DNS < <(free_ports 5)
cat >"$WORK/Corefile" <<END
.:$DNS {
    bind 127.0.0.1
    cache {
        success 9984 1 0
        denial 9984 1 0
        servfail 0
        serve_stale 1h immediate
    }
    etcd lb.test {
        path /skydns
        endpoint http://127.0.0.1:$CLIENT
    }
}
END

start_etcd() {
    start etcd etcd --logger=zap --log-level=warn --data-dir "$WORK/etcd" --listen-client-urls "http://127.0.0.1:$CLIENT" \
        --advertise-client-urls "http://127.0.0.1:$CLIENT" --listen-peer-urls "http://127.0.0.1:$PEER" \
        --initial-advertise-peer-urls "http://127.0.0.1:$PEER" --initial-cluster "default=http://127.0.0.1:$PEER" \
        --heartbeat-interval=50 --election-timeout=500
}

etcd_answers() { curl -sf --max-time 2 "http://127.0.0.1:$CLIENT/v3/kv/range" -d '{"key": "eA=="}' >/dev/null; }

# start_balancer N: one at 127.0.11.N.
start_balancer() {
    cat >"$WORK/lb$1.toml" <<END
[global]
# A cache and the client may each keep an answer for its ttl.
shutdown_delay = "3s"
[announce]
endpoints = ["127.0.0.1:$CLIENT"]
domain = "lb.test"
name = "lb$1"
ttl = "1s"
lease = "${LEASE_S}s"
only_with_backends = true
[fleet]
lease = "${LEASE_S}s"
[[listener]]
name = "web"
bind = "127.0.11.$1:$PORT"
[[pool]]
health = { type = "off" }
backend = [{ address = "127.0.0.1:$BACKEND" }]
END
    start_l4lb "lb$1" -c "$WORK/lb$1.toml"
}

cat >"$WORK/client.py" <<'END'
"""client.py WHAT ETCD DNS PORT [N...]: `listed` ends once the records are those of these balancers; `visits` connects to
them until its input ends, by answers that are kept for a second, and prints what has failed; `greets` is their backend."""
import base64, http.client, json, random, select, socket, struct, sys, time
what, etcd, dns, port = sys.argv[1], *map(int, sys.argv[2:5])

def records():
    """The hosts below web.lb.test, as the plugin of CoreDNS reads them from etcd."""
    begin, end = b"/skydns/test/lb/web/", b"/skydns/test/lb/web0"
    c = http.client.HTTPConnection("127.0.0.1", etcd, timeout=2)
    c.request("POST", "/v3/kv/range", json.dumps({k: base64.b64encode(v).decode() for k, v in
                                                  (("key", begin), ("range_end", end))}))
    answer = json.loads(c.getresponse().read())
    values = [json.loads(base64.b64decode(kv["value"])) for kv in answer.get("kvs", [])]
    assert all(value["port"] == port and value["ttl"] == 1 for value in values), values
    return sorted(value["host"] for value in values)

def query():
    """The A records of web.lb.test, from CoreDNS."""
    name = b"".join(bytes([len(label)]) + label for label in (b"web", b"lb", b"test")) + b"\0"
    number = random.randrange(1 << 16)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(2)
        s.sendto(struct.pack("!6H", number, 0x100, 1, 0, 0, 0) + name + struct.pack("!2H", 1, 1), ("127.0.0.1", dns))
        answer = s.recv(4096)
    at, found = 12 + len(name) + 4, []
    for _ in range(struct.unpack("!H", answer[6:8])[0]):
        while 0 < answer[at] < 0xc0:
            at += 1 + answer[at]
        at += 1 if answer[at] == 0 else 2
        kind, _, ttl, size = struct.unpack("!2HIH", answer[at:at + 10])
        at += 10
        if kind == 1:
            assert ttl <= 1, ttl
            found.append(socket.inet_ntoa(answer[at:at + size]))
        at += size
    return sorted(found)

resolve = query if dns else records
if what == "listed":
    wanted, began = [f"127.0.11.{n}" for n in sys.argv[5:]], time.monotonic()
    while True:
        try:
            if resolve() == wanted:
                break
        except OSError:
            pass
        if time.monotonic() > began + 30:
            sys.exit(f"the records are not those of {wanted} after 30 s")
        time.sleep(0.005)
    print(f"{(time.monotonic() - began) * 1000:.0f}")
elif what == "greets":
    with socket.create_server(("127.0.0.1", port)) as server:
        while True:
            client, _ = server.accept()
            client.sendall(b"x")
            client.close()
else:
    known, until, visits, failed = [], 0, 0, []
    while not select.select([sys.stdin], [], [], 0.002)[0]:
        if time.monotonic() > until:
            try:
                known, until = resolve(), time.monotonic() + 1
            except OSError as error:
                print(f"resolved in vain: {error}", file=sys.stderr)
                continue
        if not known:
            until = 0
            continue
        to = random.choice(known)
        try:
            with socket.create_connection((to, port), timeout=10) as s:
                assert s.recv(1) == b"x", "no greeting"
            visits += 1
        except (OSError, AssertionError) as error:
            failed.append(f"{to}: {error}")
    print(f"{visits} new sessions, {len(failed)} failed: {'; '.join(failed[:3])}")
    sys.exit(1 if failed else 0)
END

# sees N [M...]: balancer N knows these, all with one configuration and the backend up.
sees() {
    local socket
    socket=$(admin_socket "lb$1")
    [[ $("$L4LB" ctl --socket "$socket" fleet --json 2>/dev/null | python3 -c 'import json, sys
fleet = json.load(sys.stdin)
known = [(b["name"], b["differs"], [p["up"] for p in b["pools"].values()]) for b in fleet["balancers"]]
wanted = [(f"lb{n}", False, [1]) for n in sys.argv[1:]]
print(known == wanted and fleet["published"] and not fleet["lost"])' "${@:2}") == True ]]
}

RESOLVER=0
listed() { python3 "$WORK/client.py" listed "$CLIENT" "$RESOLVER" "$PORT" "$@"; }

start_etcd
wait_until 20 "etcd answers" etcd_answers
if [[ -n ${COREDNS:-} ]]; then
    start coredns "$COREDNS" -conf "$WORK/Corefile"
    RESOLVER=$DNS
fi
start backend python3 "$WORK/client.py" greets 0 0 "$BACKEND"
start_balancer 1
start_balancer 2
came=$(listed 1 2) || fail "$came"
pass "two balancers are in DNS, $came ms after they listened"
for n in 1 2; do wait_until 10 "lb$n sees both in the fleet" sees "$n" 1 2; done
pass "each of them shows both in l4lb ctl fleet"

mkfifo "$WORK/visits.in"
exec {visits}<>"$WORK/visits.in"
begin_files visits
python3 "$WORK/client.py" visits "$CLIENT" "$RESOLVER" "$PORT" <&"$visits" >"$WORK/visits.out" 2>"$WORK/visits.log" &
PID[visits]=$!
for ((round = 0; round < ROUNDS; round++)); do
    signal TERM lb1
    left=$(listed 2) || fail "$left"
    wait "${PID[lb1]}" || fail "a stopped balancer ended with $?"
    unset "PID[lb1]"
    start_balancer 1
    came=$(listed 1 2) || fail "$came"
    say "out of DNS $left ms after TERM, in it $came ms after it listened again"
done
echo >&"$visits"
wait "${PID[visits]}" || fail "$(cat "$WORK/visits.out" "$WORK/visits.log")"
unset "PID[visits]"
pass "a balancer was stopped and started $ROUNDS times: $(cat "$WORK/visits.out")"

stop lb1
left=$(listed 2) || fail "$left"
wait_until 10 "lb2 sees itself alone" sees 2 2
pass "a killed balancer was out of DNS after $left ms, with a lease of ${LEASE_S}000 ms"
start_balancer 1
came=$(listed 1 2) || fail "$came"

stop etcd
rm -rf "$WORK/etcd"
start_etcd
wait_until 20 "etcd answers" etcd_answers
came=$(listed 1 2) || fail "$came"
pass "etcd was killed and has lost its data: both are in DNS again, $came ms after it answers"
for n in 1 2; do wait_until 20 "lb$n sees both in the fleet" sees "$n" 1 2; done
pass "and in the fleet"

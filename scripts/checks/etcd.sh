#!/usr/bin/env bash
# Backends by a real etcd of three members: listed, watched, with a lease and without; the leader is killed, the member
# that is watched falls silent, all are killed and restarted, history is compacted. No backend is lost.
# Case 107 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

MEMBERS=3
TRIES=20

start_member() {
    start "etcd$1" etcd --logger=zap --log-level=warn --name "m$1" --data-dir "$WORK/m$1" --initial-cluster "$CLUSTER" \
        --listen-client-urls "http://127.0.0.1:${CLIENT[$1]}" --advertise-client-urls "http://127.0.0.1:${CLIENT[$1]}" \
        --listen-peer-urls "http://127.0.0.1:${PEER[$1]}" --initial-advertise-peer-urls "http://127.0.0.1:${PEER[$1]}" \
        --heartbeat-interval=50 --election-timeout=500
}

# etcd PATH JSON [TOKEN]: the answer of the first member that has one.
etcd_ask() {
    local member
    for ((member = 0; member < MEMBERS; member++)); do
        curl -sf --max-time 2 ${3:+-H "authorization: $3"} "http://127.0.0.1:${CLIENT[$member]}/v3/$1" -d "$2" && return
    done
    return 1
}

b64() { printf %s "$1" | base64 -w 0; }

# put_key NAME ADDRESS [LEASE]: writes that backend.
put_key() {
    local lease=${3:-0}
    etcd_ask kv/put "{\"key\": \"$(b64 "/l4lb/web/$1")\", \"value\": \"$(b64 "{\"address\": \"$2\"}")\", \"lease\": \"$lease\"}" >/dev/null
}

delete_key() { etcd_ask kv/deleterange "{\"key\": \"$(b64 "/l4lb/web/$1")\"}" >/dev/null; }

field() { python3 -c 'import json, sys
answer = json.load(sys.stdin)
print(answer.get("result", answer).get(sys.argv[1], ""))' "$1"; }

ctl() { RUNTIME_DIRECTORY=$WORK/lb.run "$L4LB" ctl "$@"; }

names_are() {
    local found
    found=$(ctl backends web --json | python3 -c 'import json, sys
print(" ".join(sorted(b["name"] for b in json.load(sys.stdin) if b["eligible"])))')
    [[ $found == "$*" ]]
}

state_is() { [[ $(ctl discover --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["state"])') == "$1" ]]; }

can_write() { put_key b1 127.0.9.1:80; }

# The member that l4lb has a connection to.
watched() {
    local member
    for ((member = 0; member < MEMBERS; member++)); do
        ss -Htnp "dport = :${CLIENT[$member]}" | grep -q "pid=${PID[lb]}," && echo "$member" && return
    done
    return 1
}

put_key_elsewhere() {
    local member=$(((silent + 1) % MEMBERS))
    curl -sf --max-time 2 "http://127.0.0.1:${CLIENT[$member]}/v3/kv/put" >/dev/null \
        -d "{\"key\": \"$(b64 /l4lb/web/b5)\", \"value\": \"$(b64 '{"address": "127.0.9.5:80"}')\"}"
}

leader() {
    local member status
    for ((member = 0; member < MEMBERS; member++)); do
        status=$(curl -sf --max-time 2 "http://127.0.0.1:${CLIENT[$member]}/v3/maintenance/status" -d '{}') || continue
        [[ $(python3 -c 'import json, sys
status = json.loads(sys.argv[1])
print(status["leader"] == status["header"]["member_id"])' "$status") == True ]] && echo "$member" && return
    done
    return 1
}

require etcd curl ss
build
mapfile -t PORTS < <(free_ports $((2 * MEMBERS)) | tr ' ' '\n')
CLIENT=("${PORTS[@]:0:MEMBERS}")
PEER=("${PORTS[@]:MEMBERS}")
CLUSTER="m0=http://127.0.0.1:${PEER[0]},m1=http://127.0.0.1:${PEER[1]},m2=http://127.0.0.1:${PEER[2]}"
for ((m = 0; m < MEMBERS; m++)); do start_member "$m"; done
cat >"$WORK/lb.toml" <<END
listener = [{ bind = "$(free_address)", pool = "web" }]
[[pool]]
name = "web"
health = { type = "off" }
[[pool.discover]]
type = "etcd"
prefix = "/l4lb/web/"
endpoints = ["127.0.0.1:${CLIENT[0]}", "127.0.0.1:${CLIENT[1]}", "127.0.0.1:${CLIENT[2]}"]
interval = "200ms"
END
wait_until 20 "etcd takes a key" can_write
start_l4lb lb -c "$WORK/lb.toml"
wait_until 10 "the key that was there" names_are b1
put_key b2 127.0.9.2:80
wait_until 10 "a key that comes" names_are b1 b2
delete_key b1
wait_until 10 "a key that goes" names_are b2
pass "backends come and go with their keys"

figures=$(RUNTIME_DIRECTORY=$WORK/lb.run python3 - "$WORK/lb.run/admin.sock" "${CLIENT[0]}" "$TRIES" <<'END'
import base64, http.client, json, socket, sys, time
path, port, tries = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
class Admin(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
def eligible():
    admin = Admin("l4lb")
    admin.request("GET", "/v1/backends")
    found = {b["name"] for b in json.loads(admin.getresponse().read()) if b["eligible"]}
    admin.close()
    return found
def etcd(what, body):
    # A cluster on a slow disk changes its leader now and then.
    for _ in range(20):
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        c.request("POST", "/v3/" + what, json.dumps(body))
        status = c.getresponse().status
        c.close()
        if status == 200:
            return
        time.sleep(0.5)
    sys.exit(f"etcd answers {status} to {what}")
b = lambda text: base64.b64encode(text.encode()).decode()
took = []
for n in range(tries):
    began = time.monotonic()
    etcd("kv/put", {"key": b(f"/l4lb/web/t{n}"), "value": b(json.dumps({"address": f"127.0.9.{10 + n}:80"}))})
    while f"t{n}" not in eligible():
        assert time.monotonic() < began + 10, "not eligible after 10 s"
    took.append((time.monotonic() - began) * 1000)
etcd("kv/deleterange", {"key": b("/l4lb/web/t"), "range_end": b("/l4lb/web/u")})
took.sort()
print(f"put in etcd to eligible: median {took[tries // 2]:.1f} ms, longest {took[-1]:.1f} ms of {tries}")
END
) || fail "$figures"
wait_until 10 "they have gone" names_are b2
pass "$figures"

lease=$(etcd_ask lease/grant '{"TTL": "8"}' | field ID)
put_key b3 127.0.9.3:80 "$lease"
wait_until 10 "a key with a lease" names_are b2 b3
began=$(now_ms)
wait_until 30 "its lease has ended" names_are b2
pass "a backend whose lease was not renewed left after $(($(now_ms) - began)) ms of 8000"

figures=$(RUNTIME_DIRECTORY=$WORK/lb.run python3 - "$WORK/lb.run/admin.sock" "$L4LB" "${CLIENT[0]}" <<'END'
import http.client, json, signal, socket, subprocess, sys, time
path, l4lb, port = sys.argv[1:]
class Admin(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
def is_eligible():
    admin = Admin("l4lb")
    admin.request("GET", "/v1/backends")
    found = {b["name"] for b in json.loads(admin.getresponse().read()) if b["eligible"]}
    admin.close()
    return "b6" in found
def until(wanted):
    began = time.monotonic()
    while is_eligible() != wanted:
        assert time.monotonic() < began + 20, f"eligible is not {wanted} after 20 s"
        time.sleep(0.001)
    return (time.monotonic() - began) * 1000
came, left, lost = [], [], []
for end in [signal.SIGTERM] * 3 + [signal.SIGKILL] * 2:
    process = subprocess.Popen([l4lb, "register", "--etcd", "127.0.0.1:" + port, "--pool", "web", "--name", "b6",
                                "--address", "127.0.9.6:80", "--ttl", "3s"], stderr=subprocess.DEVNULL)
    try:
        came.append(until(True))
        process.send_signal(end)
        (left if end == signal.SIGTERM else lost).append(until(False))
    finally:
        process.kill()
        status = process.wait()
    assert end == signal.SIGKILL or status in (0, -9), f"it ended with {status}"
print(f"l4lb register: eligible {max(came):.0f} ms after its start, out {max(left):.0f} ms after TERM and "
      f"{max(lost):.0f} ms after KILL with a lease of 3000 ms")
END
) || fail "$figures"
pass "$figures"

killed=$(leader)
began=$(now_ms)
stop "etcd$killed"
wait_until 20 "etcd takes a key without its leader" put_key b4 127.0.9.4:80
wait_until 20 "the key" names_are b2 b4
pass "the leader was killed: a new backend was eligible after $(($(now_ms) - began)) ms"
start_member "$killed"

# Its connections stay, and nothing comes on them.
wait_until 10 "a member is watched" watched >/dev/null
silent=$(watched)
began=$(now_ms)
signal STOP "etcd$silent"
wait_until 20 "etcd takes a key without it" put_key_elsewhere
wait_until 20 "the key" names_are b2 b4 b5
signal CONT "etcd$silent"
pass "the member that was watched fell silent: a new backend was eligible after $(($(now_ms) - began)) ms"

for ((m = 0; m < MEMBERS; m++)); do stop "etcd$m"; done
wait_until 20 "all members are away" state_is failed
names_are b2 b4 b5 || fail "backends are lost without etcd"
for ((m = 0; m < MEMBERS; m++)); do start_member "$m"; done
wait_until 20 "etcd takes a key after a restart" delete_key b5
revision=$(etcd_ask kv/range "{\"key\": \"$(b64 x)\"}" | python3 -c 'import json, sys; print(json.load(sys.stdin)["header"]["revision"])')
# A member that answers late has done it, too.
etcd_ask kv/compaction "{\"revision\": \"$revision\"}" >/dev/null || true
wait_until 20 "the keys after a restart" names_are b2 b4
pass "all members were killed and restarted, and their history was compacted: the backends are those of the keys"

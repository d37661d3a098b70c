#!/usr/bin/env bash
# Clients that close their half together with the request, as `printf ... | socat` and many health checkers do, get
# whole answers, and what they change is answered: each request a thousand times, over TCP and over the unix socket.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

REQUESTS=1000
# So many make an answer of /metrics larger than what the socket takes at once.
BACKENDS=300

write_config() {
    TOKEN=$(head -c 24 /dev/urandom | base64)
    (umask 077 && echo "$TOKEN" >"$WORK/token")
    ADMIN=$(free_address)
    METRICS=$(free_address)
    cat >"$WORK/lb.toml" <<END
admin = { listen = "$ADMIN", token_file = "$WORK/token", metrics = "$METRICS" }
listener = [{ bind = "$(free_address)" }]
[[pool]]
name = "web"
health = { type = "off" }
backend = [
$(for ((n = 1; n <= BACKENDS; n++)); do echo "    { name = \"b$n\", address = \"127.0.0.1:$((10000 + n))\" },"; done)
]
END
}

# ask_all DOOR ADDRESS AUTHORIZATION REQUEST...: prints a line for each request, or why one has failed.
ask_all() {
    timeout 120 python3 - "$REQUESTS" "$@" <<'END'
import json, socket, sys

requests, door, address, token = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
HEAD = f"Host: localhost\r\n" + (f"Authorization: Bearer {token}\r\n" if token else "")

def connect():
    if address.startswith("/"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(30)
        connection.connect(address)
        return connection
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=30)

def exchange(method, path, body):
    request = f"{method} {path} HTTP/1.1\r\n{HEAD}"
    if body:
        request += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    answer = b""
    with connect() as connection:
        connection.sendall((request + "\r\n" + body).encode())
        connection.shutdown(socket.SHUT_WR)
        while chunk := connection.recv(1 << 16):
            answer += chunk
    return answer

def body_of(answer):
    """The body of a whole answer; raises where it was cut."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    assert separator, f"no answer, or not its whole head: {answer[:80]!r}"
    assert b" 200 " in head.split(b"\r\n")[0] + b" ", head[:80]
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    if headers.get(b"transfer-encoding") == b"chunked":
        assert body.endswith(b"0\r\n\r\n"), f"the last chunk is missing after {len(body)} bytes"
    else:
        assert int(headers[b"content-length"]) == len(body), f"{len(body)} bytes of {headers[b'content-length']}"
    return body

for what in sys.argv[5:]:
    method, path = what.split(" ")
    failures, sizes = [], []
    for number in range(requests):
        weight = number % 100 + 1
        body = json.dumps({"weight": weight}) if method == "PATCH" else ""
        try:
            answer = body_of(exchange(method, path, body))
            assert not body or json.loads(answer)["weight"] == weight, answer
            sizes.append(len(answer))
        except (AssertionError, OSError, KeyError, ValueError) as error:
            failures.append(repr(error))
    if failures:
        sys.exit(f"{door}: {what}: {len(failures)} of {requests} answers cut or lost, the first: {failures[0]}")
    print(f"{door}: {what}: {requests} whole answers of {min(sizes)} to {max(sizes)} bytes")
END
}

check_door() {
    local line
    ask_all "$@" >"$WORK/answers.out" || fail "$1: see answers"
    while read -r line; do pass "$line"; done <"$WORK/answers.out"
}

require python3
build
write_config
start_l4lb lb -c "$WORK/lb.toml"
check_door tcp "$ADMIN" "$TOKEN" "GET /health" "GET /metrics" "GET /v1/backends" "PATCH /v1/pools/web/backends/b1"
check_door unix "$(admin_socket lb)" "" "GET /health" "GET /metrics" "GET /v1/backends" "PATCH /v1/pools/web/backends/b2"
check_door metrics "$METRICS" "" "GET /health" "GET /metrics"

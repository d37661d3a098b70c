#!/usr/bin/env bash
# The picture of `l4lb top` in the manual: the screen of a terminal in front of `l4lb demo` with clients of its own, and
# a backend whose tier was set. What the terminal shows is drawn as it is, cell by cell.
#   scripts/picture-of-top.sh src/manual/assets/top.svg
# shellcheck source=lib/harness.sh
source "$(dirname "$0")/lib/harness.sh"

COLUMNS_SHOWN=132
LINES_SHOWN=24
# The charts show a bar for each second.
SECONDS_OF_LOAD=${SECONDS_OF_LOAD:-45}
PORTS=19290

on_terminal() { tmux -L "l4lb-picture-$$" "$@"; }

# Asks again and again over one connection, so many times at once.
KEEPER='
import socket, sys, time
client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
while True:
    client.sendall(b"GET / HTTP/1.1\r\nHost: demo\r\n\r\n" * int(sys.argv[2]))
    client.recv(65536)
    time.sleep(0.05)
'
# Comes and goes, now more often and now less.
VISITOR='
import math, sys, time, urllib.request
began = time.monotonic()
while True:
    urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/", timeout=5).read()
    time.sleep(0.02 + 0.015 * math.sin((time.monotonic() - began) / 4))
'

start_clients() {
    local number
    for number in 1 2 3; do
        start "keeper$number" python3 -c "$KEEPER" "$PORTS" "$number"
    done
    start visitor python3 -c "$VISITOR" "$PORTS"
}

main() {
    local to=${1:?a file to write, such as src/manual/assets/top.svg}
    require tmux python3
    build
    export RUNTIME_DIRECTORY=$WORK
    start demo "$L4LB" demo --port-base "$PORTS"
    wait_until 10 "the demo says what to try" grep -q 'Ctrl-C stops it' "$WORK/demo.out"
    start_clients
    "$L4LB" ctl weight web/b 2 >/dev/null
    "$L4LB" ctl set web/c priority=1 >/dev/null
    UNDO+=("on_terminal kill-server")
    on_terminal -f /dev/null new-session -d -s top -x "$COLUMNS_SHOWN" -y "$LINES_SHOWN" "cd $WORK && exec $L4LB top --socket admin.sock"
    sleep "$SECONDS_OF_LOAD"
    # To the panel of sessions.
    on_terminal send-keys -t top v
    on_terminal send-keys -t top v
    sleep 2
    on_terminal capture-pane -t top -e -p >"$WORK/screen"
    grep -q 'sessions with most bytes' "$WORK/screen" || fail "top does not show its sessions"
    python3 "$ROOT/scripts/lib/screen_svg.py" "$COLUMNS_SHOWN" <"$WORK/screen" >"$to"
    pass "$to"
}

main "$@"

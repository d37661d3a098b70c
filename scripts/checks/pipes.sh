#!/usr/bin/env bash
# A user at the limit of pipes: more streams with stuck readers than pipes, of which a few are left. Streams without a
# pipe are copied, every byte arrives in its place, and the log names the remedy.
# Root only: l4lb runs as another user, in a network namespace.
# Cases 61 and 64, goal G8 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

LISTEN=127.0.0.1:9090
BACKEND=127.0.0.1:7000
NOBODY=65534

# Every other one to the client. All want a pipe.
STREAMS=1100
WORKERS=9
# Of each stream: more than the sockets on its way hold. The first part shows `auto` that it is one.
BYTES=$((1 << 20))
FIRST_BYTES=$((384 << 10))
# Pipes of 64 KiB that the user has beside those of another process: fewer than l4lb plans with, and than auto uses.
PIPES_LEFT=300
PIPES_LEFT_TO_AUTO=20
PAGES_PER_PIPE=16
# Each worker keeps so many for the next stream (src/worker/relay/pipes.rs).
PIPES_KEPT_MAX=$((16 * WORKERS))

# Another process of that user, which leaves it so many pipes.
start_holder() {
    local pages
    pages=$(cat /proc/sys/fs/pipe-user-pages-soft)
    expect "fs.pipe-user-pages-soft, of which $1 pipes are to be left" "$pages" -gt $((PAGES_PER_PIPE * $1))
    start holder python3 "$ROOT/scripts/lib/peers" pipes --user "$NOBODY" $((pages / PAGES_PER_PIPE - $1))
    wait_until 10 "the other pipes are held" grep -q '^held=' "$WORK/holder.out"
}

start_lb() {
    cat >"$WORK/config.toml" <<END
global = { workers = $WORKERS }
listener = [{ bind = "$LISTEN" }]
[[pool]]
relay = "$1"
health = { type = "off" }
backend = [{ address = "$BACKEND" }]
END
    start lb ip netns exec "$NEAR" setpriv --reuid "$NOBODY" --regid "$NOBODY" --clear-groups \
        "$WORK/l4lb" -c "$WORK/config.toml"
    wait_until_listening lb
}

start_crowd() {
    start_peer crowd --in "$NEAR" crowd "$LISTEN" --listen "$BACKEND" --send "$BYTES"
    wait_until 10 "the crowd listens" grep -q '^listening' "$WORK/crowd.out"
}

# check_denied RELAY PIPES: streams relayed so, by a user with PIPES pipes left.
check_denied() {
    local relay=$1 what="relay = $1, $2 pipes left"
    start_holder "$2"
    start_lb "$relay"
    log_has lb 'open files: .* pipes of 64 KiB' || fail "$what: the log does not say which pipes are planned with"
    start_crowd
    expect "$what: streams" "$(ask crowd open "$STREAMS")" = "streams=$STREAMS"
    ask crowd settle >/dev/null
    expect "$what: the first bytes" "$(ask crowd read "$FIRST_BYTES")" = "right=$STREAMS errors=-"
    expect "$what: bytes that are on their way" "$(value_of sent "$(ask crowd settle)")" -lt $((STREAMS * BYTES))
    expect_between "$what: pipes while the readers are stuck" $(($2 * 9 / 10)) "$(pipes_of "${PID[lb]}")" "$2"
    log_has lb 'a pipe is denied.*raise fs.pipe-user-pages-soft' || fail "$what: the log does not say what was denied"
    # The streams, and that nothing comes back.
    expect "$what: all bytes" "$(ask crowd finish)" = "right=$STREAMS errors=-"
    wait_until 10 "$what: all sessions end" log_count_is lb ' session .* reason=done ' "$STREAMS"
    expect "$what: pipes that are kept" "$(pipes_of "${PID[lb]}")" -le "$PIPES_KEPT_MAX"
    signal TERM lb
    await_exit lb 10
    expect "$what: exit code" "$EXIT" = 0
    stop crowd
    stop holder
    pass "$what: $STREAMS streams of $BYTES bytes, each byte in its place; denials are logged"
}

require_root
require ip setpriv sysctl python3
build
# Its user may not look into our directories.
chmod 711 "$WORK"
cp "$L4LB" "$WORK/l4lb"
make_loopback
check_denied splice "$PIPES_LEFT"
check_denied auto "$PIPES_LEFT_TO_AUTO"

# Shared by the checks, which source it first: starts processes, waits with deadlines, measures, judges.
# Whatever a check starts or makes ends with it, also when it fails. No traffic leaves the machine.
# shellcheck shell=bash

set -Eeuo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
GIVEN=${L4LB:-}
L4LB=${L4LB:-${CARGO_TARGET_DIR:-$ROOT/target}/release/l4lb}
CHECK=$(basename "$0" .sh)
WORK=$(mktemp -d "${TMPDIR:-/tmp}/l4lb-$CHECK.XXXXXX")
# The processes that run, by the name that the check gave them.
declare -A PID=()
# What to undo at the end, last first.
UNDO=()

trap on_exit EXIT
trap 'on_error "$LINENO" "$BASH_COMMAND"' ERR

# --- judging -------------------------------------------------------------------------------------------------------

say() { printf '%s: %s\n' "$CHECK" "$*"; }

pass() { printf '%s: ok: %s\n' "$CHECK" "$*"; }

# The verdict of a failed check, what the processes said last, and the end.
fail() {
    trap - ERR
    printf '%s: FAILED: %s\n' "$CHECK" "$*" >&2
    print_evidence >&2
    exit 1
}

# Fails unless `test ARGS...` holds; the first argument says what was to hold.
expect() {
    local what=$1
    shift
    test "$@" || fail "$what: expected $*"
}

expect_at_most() { awk -v a="$2" -v b="$3" 'BEGIN { exit !(a <= b) }' || fail "$1: $2, at most $3 allowed"; }

expect_between() {
    awk -v a="$2" -v x="$3" -v b="$4" 'BEGIN { exit !(a <= x && x <= b) }' || fail "$1: $3, expected $2 to $4"
}

print_evidence() {
    local file
    for file in "$WORK"/*.out "$WORK"/*.log; do
        [[ -s $file ]] || continue
        printf -- '--- the end of %s\n' "$(basename "$file")"
        tail -n 8 "$file" | cut -c 1-400
    done
}

on_error() {
    trap - ERR
    ((BASH_SUBSHELL == 0)) || return 0
    printf '%s: FAILED: line %s: %s\n' "$CHECK" "$1" "$2" >&2
    print_evidence >&2
}

on_exit() {
    local code=$? name index
    trap - EXIT ERR
    set +e
    for name in "${!PID[@]}"; do
        kill -KILL "${PID[$name]}" 2>/dev/null
        wait "${PID[$name]}" 2>/dev/null
    done
    for ((index = ${#UNDO[@]} - 1; index >= 0; index--)); do
        eval "${UNDO[$index]}" >/dev/null 2>&1
    done
    rm -rf "$WORK"
    exit "$code"
}

# --- needs ---------------------------------------------------------------------------------------------------------

require() {
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || fail "needs $tool, which is not installed"
    done
}

require_root() { [[ $(id -u) == 0 ]] || fail "needs root: it makes network namespaces"; }

# What is checked is the code as it is, unless L4LB=FILE names another binary.
build() {
    [[ -n $GIVEN ]] || (cd "$ROOT" && cargo build --release --locked --quiet)
    [[ -x $L4LB ]] || fail "there is no program $L4LB"
}

# pool_of_dns POOL NAME RESOLVER INTERVAL [LINE...]: the configuration of a pool without checks, whose backends come from
# that name; further lines are keys of its source.
pool_of_dns() {
    printf '[[pool]]\nname = "%s"\nhealth = { type = "off" }\n' "$1"
    printf '[[pool.discover]]\ntype = "dns"\nname = "%s"\nresolver = ["%s"]\ninterval = "%s"\n' "$2" "$3" "$4"
    printf '%s\n' "${@:5}"
}

# --- processes -----------------------------------------------------------------------------------------------------

# What an earlier process of that name said must not be taken for what this one says.
begin_files() {
    : >"$WORK/$1.out"
    : >"$WORK/$1.log"
}

# start NAME COMMAND...: stdout goes to NAME.out, stderr to NAME.log.
start() {
    local name=$1
    shift
    begin_files "$name"
    "$@" </dev/null >"$WORK/$name.out" 2>"$WORK/$name.log" &
    PID[$name]=$!
}

# start_peer NAME [--in NETNS] [--on CPU NICE] ROLE ARGS...: a scripted peer that answers what `ask` asks.
start_peer() {
    local name=$1 enter=() commands
    shift
    if [[ $1 == --in ]]; then
        enter=(ip netns exec "$2")
        shift 2
    fi
    if [[ $1 == --on ]]; then
        enter+=(taskset -c "$2" nice -n "$3")
        shift 3
    fi
    begin_files "$name"
    mkfifo "$WORK/$name.in"
    # Open both ways, so that the peer never sees an end; and open before anything is asked.
    exec {commands}<>"$WORK/$name.in"
    "${enter[@]}" python3 "$ROOT/scripts/lib/peers" "$@" <&"$commands" >"$WORK/$name.out" 2>"$WORK/$name.log" &
    PID[$name]=$!
    exec {commands}>&-
}

# ask NAME COMMAND...: prints what the peer answers.
ask() {
    local name=$1 id=${EPOCHREALTIME/./}-$RANDOM
    shift
    echo "$id $*" 1<>"$WORK/$name.in"
    wait_until 60 "$name answers '$*'" grep -q "^$id " "$WORK/$name.out"
    sed -n "s/^$id //p" "$WORK/$name.out"
}

# The value of a key in "key=value key=value".
value_of() { sed -nE "s/(^|.* )$1=([^ ]*).*/\2/p" <<<"$2"; }

# Where the admin socket of l4lb NAME is.
admin_socket() { printf '%s\n' "$WORK/$1.run/admin.sock"; }

# Starts `l4lb ARGS...` as NAME and waits until it listens.
start_l4lb() {
    local name=$1
    shift
    start "$name" env RUNTIME_DIRECTORY="$WORK/$name.run" "$L4LB" "$@"
    wait_until_listening "$name"
}

# start_unchecked NAME PORT ARGS...: l4lb NAME in front of one unchecked backend of 127.0.0.1, so that it sees no
# connection but real ones.
start_unchecked() {
    cat >"$WORK/$1.toml" <<END
listener = [{ bind = "$(free_address)" }]
[[pool]]
health = { type = "off" }
backend = [{ address = "127.0.0.1:$2" }]
END
    start_l4lb "$1" -c "$WORK/$1.toml" "${@:3}"
}

# Starts the small HTTP backend NAME on that port of 127.0.0.1 and waits until it listens.
start_http_backend() {
    start "$1" "$L4LB" backend --port "$2"
    wait_until 10 "$1 listens" accepts_connections "127.0.0.1:$2"
}

wait_until_listening() { wait_until 10 "$1 listens" log_has "$1" ' listening listener='; }

# Where the first listener of l4lb NAME listens.
address_of() { sed -nE 's/.* listening listener=.* address=([^ ]+) .*/\1/p' "$WORK/$1.log" | head -n 1; }

# Starts the echo server NAME; its port is that of `port_of NAME`.
start_echo() {
    start_peer "$1" echo "${2:-127.0.0.1}"
    wait_until 10 "the echo server listens" grep -q '^port=' "$WORK/$1.out"
}

port_of() { value_of port "$(head -n 1 "$WORK/$1.out")"; }

is_running() { kill -0 "${PID[$1]}" 2>/dev/null && [[ $(state_of "${PID[$1]}") != Z ]]; }

has_ended() { ! is_running "$1"; }

state_of() { sed -E 's/.*\) (.).*/\1/' "/proc/$1/stat" 2>/dev/null || echo Z; }

# Waits until NAME has ended; its exit code is in $EXIT, the milliseconds that took in $EXIT_MS.
# shellcheck disable=SC2034 # the checks read them
await_exit() {
    local name=$1 began
    began=$(now_ms)
    wait_until "$2" "$name ends" has_ended "$name"
    EXIT_MS=$(($(now_ms) - began))
    EXIT=0
    wait "${PID[$name]}" || EXIT=$?
    unset "PID[$name]"
}

# Sends a signal to NAME.
signal() { kill -"$1" "${PID[$2]}"; }

# Ends NAME for good, whatever it is doing.
stop() {
    kill -KILL "${PID[$1]}" 2>/dev/null || true
    wait "${PID[$1]}" 2>/dev/null || true
    unset "PID[$1]"
    rm -f "$WORK/$1.in"
}

# A certificate for server $1 that no authority has signed, and its key: $WORK/$1.pem and .key. All of them are in ca.pem.
make_server_certificate() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=$1" \
        -addext "subjectAltName=DNS:$1" -keyout "$WORK/$1.key" -out "$WORK/$1.pem" 2>"$WORK/openssl.log"
    cat "$WORK/$1.pem" >>"$WORK/ca.pem"
}

# haproxy_defaults MODE TIMEOUT: the defaults of a configuration of HAProxy, whose peers may be silent that long.
haproxy_defaults() {
    printf 'defaults\n    mode %s\n    timeout connect 5s\n    timeout client %s\n    timeout server %s\n' "$1" "$2" "$2"
}

# N unused ports, outside the range that the kernel gives to outgoing connections.
free_ports() { python3 "$ROOT/scripts/lib/peers" free-ports "$1"; }

free_address() { echo "127.0.0.1:$(free_ports 1)"; }

# --- a network of our own ------------------------------------------------------------------------------------------

NEAR=l4lb-near-$$
FAR=l4lb-far-$$

# make_link ADDRESS ADDRESS...: two network namespaces with a link between them; the first address is that of $NEAR, the
# others are those of $FAR.
make_link() {
    local namespace address
    for namespace in "$NEAR" "$FAR"; do
        ip netns add "$namespace"
        UNDO+=("ip netns del $namespace")
        ip -n "$namespace" link set lo up
    done
    ip link add near netns "$NEAR" type veth peer name far netns "$FAR"
    ip -n "$NEAR" address add "$1/24" dev near
    for address in "${@:2}"; do
        ip -n "$FAR" address add "$address/24" dev far
    done
    ip -n "$NEAR" link set near up
    ip -n "$FAR" link set far up
}

# start_far_echo NAME ADDRESS: an echo server in $FAR.
start_far_echo() {
    start_peer "$1" --in "$FAR" echo "$2"
    wait_until 10 "the echo server listens" grep -q '^port=' "$WORK/$1.out"
}

# What a socket of `make_loopback` holds.
SOCKET_BYTES_MAX=$((256 << 10))

# The network namespace $NEAR, which has nothing but loopback.
# Usual segments and bounded buffers: without them a stuck stream holds megabytes, of which a thousand are too many.
make_loopback() {
    ip netns add "$NEAR"
    UNDO+=("ip netns del $NEAR")
    ip -n "$NEAR" link set lo up mtu 1500
    ip netns exec "$NEAR" sysctl -q -w net.ipv4.tcp_rmem="4096 131072 $SOCKET_BYTES_MAX" \
        net.ipv4.tcp_wmem="4096 16384 $SOCKET_BYTES_MAX"
}

# --- waiting -------------------------------------------------------------------------------------------------------

now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }

# wait_until SECONDS WHAT COMMAND...: looks again and again until COMMAND holds.
wait_until() {
    local what=$2 deadline
    deadline=$(($(now_ms) + $1 * 1000))
    shift 2
    until "$@"; do
        (($(now_ms) < deadline)) || fail "waited in vain until $what"
        sleep 0.02
    done
}

log_has() { grep -qE -- "$2" "$WORK/$1.log"; }

log_count() { grep -cE -- "$2" "$WORK/$1.log" || true; }

log_count_is() { [[ $(log_count "$1" "$2") == "$3" ]]; }

accepts_connections() { (: <>"/dev/tcp/${1%:*}/${1##*:}") 2>/dev/null; }

# --- measuring -----------------------------------------------------------------------------------------------------

# CPU milliseconds that a process has used, user and system.
cpu_ms() {
    local ticks
    ticks=$(sed -E 's/.*\) //' "/proc/$1/stat" | awk '{ print $12 + $13 }')
    echo $((ticks * 1000 / $(getconf CLK_TCK)))
}

# Percent of one processor that a process uses over so many seconds from now.
cpu_percent() {
    local before began
    before=$(cpu_ms "$1")
    began=$(now_ms)
    sleep "$2"
    awk -v used=$(($(cpu_ms "$1") - before)) -v span=$(($(now_ms) - began)) 'BEGIN { printf "%.2f", 100 * used / span }'
}

# Pipes that a process has open.
pipes_of() { echo $(($(find "/proc/$1/fd" -lname 'pipe:*' | wc -l) / 2)); }

rss_kib() { awk '/^VmRSS:/ { print $2 }' "/proc/$1/status"; }

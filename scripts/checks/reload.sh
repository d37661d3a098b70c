#!/usr/bin/env bash
# Reloads and registrations lose nothing: while wrk asks over kept and over new connections and long sessions exchange
# numbered bytes, the file changes (backends, listeners, workers, timeouts) and a backend is registered, drained, made
# ready and removed through the API, again and again. No request may fail, no session end, no byte be lost. Some 20
# seconds; --full, some 90: 100 of each, 1,000 sessions, and until wrk has done 1,000,000 requests.
# Cases 85 and 87, goal G2 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

RELOADS=30
ROUNDS=30
SESSIONS=200
REQUESTS=10000
RUN_SECONDS_MAX=60
if [[ ${1:-} == --full || ${1:-} == --long ]]; then
    RELOADS=100
    ROUNDS=100
    SESSIONS=1000
    REQUESTS=1000000
    RUN_SECONDS_MAX=540
fi
# A keep-alive connection stays as long as its client wants, a backend that is removed only until its drain_timeout:
# each run of wrk is far shorter than that.
WRK_SECONDS=5
DRAIN_TIMEOUT=30s

# --- the file ------------------------------------------------------------------------------------------------------

WEIGHT=1
WORKERS=4
HAS_SECOND=true
HAS_EXTRA=false
RETRIES=2

write_config() {
    cat <<END_OF_FILE
[global]
workers = $WORKERS
[[listener]]
name = "front"
bind = "$FRONT"
pool = "web"
[[listener]]
name = "talk"
bind = "$TALK"
pool = "echo"
END_OF_FILE
    ! $HAS_EXTRA || printf '[[listener]]\nname = "extra"\nbind = "%s"\npool = "web"\n' "$EXTRA"
    cat <<END_OF_FILE
[[pool]]
name = "web"
retries = $RETRIES
on_remove = "drain"
drain_timeout = "$DRAIN_TIMEOUT"
timeouts = { connect = "$((3 + RETRIES))s" }
health = { interval = "500ms", fast_interval = "100ms" }
[[pool.backend]]
name = "first"
address = "127.0.0.1:$FIRST_PORT"
weight = $WEIGHT
END_OF_FILE
    ! $HAS_SECOND || printf '[[pool.backend]]\nname = "second"\naddress = "127.0.0.1:%s"\n' "$SECOND_PORT"
    cat <<END_OF_FILE
[[pool]]
name = "echo"
on_remove = "keep"
[[pool.backend]]
name = "stays"
address = "127.0.0.1:$(port_of stays)"
END_OF_FILE
    ! $HAS_SECOND || printf '[[pool.backend]]\nname = "comes"\naddress = "127.0.0.1:%s"\n' "$(port_of comes)"
}

# The next change; of which kind it is goes to $CHANGE.
make_change() {
    case $(($1 % 10)) in
        0 | 5) WEIGHT=$((WEIGHT % 5 + 1)) CHANGE=weights ;;
        1 | 4) HAS_SECOND=$(negated "$HAS_SECOND") CHANGE=backends ;;
        2) WORKERS=1 CHANGE=workers ;;
        3 | 8) HAS_EXTRA=$(negated "$HAS_EXTRA") CHANGE=listeners ;;
        6) WORKERS=4 CHANGE=workers ;;
        7) RETRIES=$((RETRIES % 3 + 1)) CHANGE=timeouts ;;
        9) WORKERS=2 CHANGE=workers ;;
    esac
}

negated() { if "$1"; then echo false; else echo true; fi; }

# --- the load ------------------------------------------------------------------------------------------------------

# ask_until_enough WRK_ARGS...: one run of wrk after the other, until the check has seen enough.
ask_until_enough() {
    until [[ -e $WORK/enough ]]; do wrk -t1 -d"$WRK_SECONDS" "$@" "http://$FRONT/"; done
}

# The sum of what all runs of wrk have said: requests and failures.
figures_of_wrk() {
    awk '/requests in/ { requests += $1 }
        /Socket errors/ { gsub(",", ""); connect += $4; read += $6; write += $8; timeout += $10 }
        /Non-2xx/ { status += $NF }
        END { printf "requests=%d connect=%d read=%d write=%d timeout=%d status=%d failed=%d\n",
            requests, connect, read, write, timeout, status, connect + read + write + timeout + status }' \
        "$WORK/kept.out" "$WORK/new.out"
}

# --- the changes ---------------------------------------------------------------------------------------------------

ctl() { "$L4LB" ctl --socket "$(admin_socket lb)" "$@"; }

metrics() { curl -sSf --max-time 10 --unix-socket "$(admin_socket lb)" http://localhost/metrics; }

third_sessions() { metrics | awk '/^l4lb_backend_sessions_total\{.*backend="third"/ { print $NF }'; }

third_has_served_since() { (($(third_sessions) > $1)); }

# register -> drain -> ready -> deregister until the check has seen enough, with one line for each time around. A round
# goes on only when the backend has got a session more: one that is back while it is drained has those that it had.
register_until_enough() {
    local before
    until [[ -e $WORK/enough ]]; do
        ctl add "127.0.0.1:$THIRD_PORT" --pool web --name third
        before=$(third_sessions)
        wait_until 10 "the registered backend serves" third_has_served_since "$before"
        ctl drain web/third
        ctl ready web/third
        ctl remove web/third
        echo "round"
    done
}

rounds() { grep -c '^round$' "$WORK/register.out" || true; }

requests() { value_of requests "$(figures_of_wrk)"; }

extra_serves_as_told() { [[ $(curl -s --max-time 5 -o /dev/null -w '%{http_code}' "http://$EXTRA/") == "$1" ]]; }

# So many reloads have changed what.
declare -A KINDS=()

kinds() {
    local kind told=()
    for kind in "${!KINDS[@]}"; do told+=("$kind ${KINDS[$kind]}"); done
    local IFS=,
    echo "${told[*]}"
}

# The file changes, and is run: what has no effect would prove nothing.
reload() {
    local told
    make_change "$1"
    write_config >"$WORK/lb.toml"
    told=$(ctl --json reload) || fail "reload $1 ($CHANGE) is refused"
    grep -qE '"changes": ?\[ *\{' <<<"$told" || fail "reload $1 ($CHANGE) has changed nothing: $told"
    KINDS[$CHANGE]=$((${KINDS[$CHANGE]:-0} + 1))
    if [[ $CHANGE == listeners ]]; then
        local status=000
        ! $HAS_EXTRA || status=200
        wait_until 5 "the other listener answers with $status" extra_serves_as_told "$status"
    fi
}

change_until_enough() {
    local began=$SECONDS
    RELOADED=0
    until ((RELOADED >= RELOADS && $(rounds) >= ROUNDS && $(requests) >= REQUESTS)); do
        reload "$RELOADED"
        RELOADED=$((RELOADED + 1))
        is_running register || fail "the rounds through the API have ended"
        is_running lb || fail "l4lb has ended"
        ((SECONDS - began < RUN_SECONDS_MAX)) ||
            fail "not done after $RUN_SECONDS_MAX s: $RELOADED reloads, $(rounds) rounds, $(requests) requests"
    done
}

# --- the books -----------------------------------------------------------------------------------------------------

metric() { metrics | awk -v name="$1" '$1 == name { print $2 }'; }

has_no_session() {
    BOOKS=$(ctl --json status | python3 -c 'import json, sys
totals = json.load(sys.stdin)["totals"]
print(*["%s=%d" % pair for pair in [("sessions", totals["sessions"]), ("accepted", totals["accepted"]),
    ("closed", sum(totals["closed"].values()))]])')
    [[ $(value_of sessions "$BOOKS") == 0 ]]
}

check_books() {
    wait_until 10 "no session is left" has_no_session
    expect "sessions accepted ($BOOKS)" "$(value_of accepted "$BOOKS")" = "$(value_of closed "$BOOKS")"
    expect "invariant violations" "$(metric l4lb_invariant_violations)" = 0
    expect "lost wake-ups" "$(metric l4lb_lost_wakeups_total)" = 0
    expect "panics" "$(log_count lb 'panicked')" = 0
}

require curl python3 wrk
build
# Half of the sessions are with a backend that is removed while they last, most of them on workers that end.
start_echo stays
start_echo comes
read -r FIRST_PORT SECOND_PORT THIRD_PORT front talk extra <<<"$(free_ports 6)"
FRONT=127.0.0.1:$front TALK=127.0.0.1:$talk EXTRA=127.0.0.1:$extra
start_http_backend first "$FIRST_PORT"
start_http_backend second "$SECOND_PORT"
start_http_backend third "$THIRD_PORT"
write_config >"$WORK/lb.toml"
RUST_LOG=info,l4lb::session=off start_l4lb lb -c "$WORK/lb.toml"
start_peer talk talk "$TALK" "$SESSIONS"
all_talk() { [[ $(value_of open "$(ask talk count)") == "$SESSIONS" ]]; }
wait_until 30 "$SESSIONS sessions talk" all_talk
BEGAN=$SECONDS
start kept ask_until_enough -c16
start new ask_until_enough -c16 -H 'Connection: close'
start register register_until_enough
change_until_enough
touch "$WORK/enough"
await_exit kept 20
await_exit new 20
await_exit register 30
expect "exit code of the rounds through the API" "$EXIT" = 0
TALKED=$(ask talk finish)
WRK=$(figures_of_wrk)
say "$RELOADED reloads ($(kinds)) and $(rounds) rounds through the API in $((SECONDS - BEGAN)) s:" \
    "wrk: $WRK; $SESSIONS sessions: $TALKED"
expect "requests that failed" "$(value_of failed "$WRK")" = 0
expect "sessions that got every byte ($TALKED)" "$(value_of right "$TALKED")" = "$SESSIONS"
expect "sessions broken" "$(value_of broken "$TALKED")" = 0
check_books
pass "$RELOADED reloads, $(rounds) rounds: 0 of $(value_of requests "$WRK") requests failed, 0 of $SESSIONS sessions broken," \
    "every one of $(value_of bytes "$TALKED") bytes came back; $BOOKS, 0 laws violated, 0 wake-ups lost"

#!/usr/bin/env bash
# At the limit of threads no session is lost: every route of the admin API answers, leases are renewed by
# address and by name, names are resolved, reloads run; one that needs threads is refused, and runs once there are some.
# Once with a limit of tasks (pids.max of a cgroup, version 2 or 1) where this machine lets us make one, and always with
# the limit of threads of a user (RLIMIT_NPROC), which no machine lacks.
# Case 68 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

SESSIONS=20
# A stream that never ends is read for so long.
STREAM_SECONDS=1
# Not root, which RLIMIT_NPROC does not limit.
NOBODY=65534
# The addresses of registered backends with leases: one must be resolved. Nothing listens there, and nothing needs to.
LEASED=(127.0.0.2:9 localhost:9)

write_config() {
    cat >"$WORK/lb.toml" <<END
[global]
workers = $1
access_log = { path = "$WORK/access.txt" }
[admin]
socket = "$WORK/admin.sock"
state_file = "$WORK/state.json"
[[listener]]
bind = "$ADDRESS"
[[pool]]
name = "web"
retries = $2
backend = [{ name = "one", address = "$BACKEND" }]
END
}

# api METHOD PATH [BODY]: the status is in $STATUS, the answer in api.out. A stream that goes on is cut.
api() {
    local body=()
    [[ -z ${3:-} ]] || body=(-H 'Content-Type: application/json' -d "$3")
    STATUS=$(curl -s -o "$WORK/api.out" -w '%{http_code}' --max-time "${TIME_MAX:-40}" --unix-socket "$WORK/admin.sock" \
        -X "$1" "${body[@]}" "http://localhost$2" || true)
}

# expect_answer STATUS METHOD PATH [BODY]
expect_answer() {
    api "${@:2}"
    expect "$2 $3 ($(head -c 300 "$WORK/api.out"))" "$STATUS" = "$1"
}

expect_all_live() {
    local figures
    is_running lb || fail "l4lb has ended: $*"
    figures=$(ask clients ping)
    expect "sessions lost after $* ($figures)" "$(value_of lost "$figures")" = 0
}

# Every operation of the document but the one that ends the process: method, path, and whether it takes a body.
operations() {
    curl -sSf --max-time 10 --unix-socket "$WORK/admin.sock" http://localhost/openapi.json | python3 -c '
import json, sys
for path, methods in json.load(sys.stdin)["paths"].items():
    for method, what in methods.items():
        if path != "/v1/stop": print(method.upper(), path, "body" if "requestBody" in what else "-")'
}

# A backend that every route may do with as it likes; the sessions are on another.
check_every_route() {
    local method path takes bodies body calls=0
    local full='{"address":"127.0.0.3:9","name":"spare","health":"up","level":"info","weight":0}'
    operations >"$WORK/operations"
    expect "operations of the document" "$(wc -l <"$WORK/operations")" -gt 10
    printf '%s\n' 'GET / -' 'GET /app.js -' 'GET /metrics -' 'GET /health -' 'GET /nowhere -' >>"$WORK/operations"
    while read -r method path takes; do
        path=${path//\{pool\}/web} path=${path//\{backend\}/spare} path=${path//\{id\}/9.9.9}
        bodies=("")
        [[ $takes == - ]] || bodies=('{}' '[' "$full")
        TIME_MAX=40
        [[ $path != */stream ]] || TIME_MAX=$STREAM_SECONDS
        for body in "${bodies[@]}"; do
            api "$method" "$path" "$body"
            expect_between "status of $method $path $body" 200 "$STATUS" 499
            calls=$((calls + 1))
        done
    done <"$WORK/operations"
    TIME_MAX=40
    expect_all_live "every route"
    pass "$WHAT: $calls requests to every route are answered"
}

# register STATUS: a backend for each place of LEASED, or the renewal of its lease.
register() {
    local place
    for place in "${LEASED[@]}"; do
        expect_answer "$1" POST /v1/pools/web/backends "{\"address\":\"$place\",\"ttl\":\"1h\",\"weight\":0}"
    done
}

check_leases() {
    register 200
    expect_answer 201 POST /v1/pools/web/backends '{"name":"by-name","address":"localhost:8","weight":0}'
    expect_answer 400 POST /v1/pools/web/backends '{"name":"no-name","address":"no-such-host.invalid:9"}'
    expect_all_live "renewals"
    pass "$WHAT: leases are renewed, by address and by name"
}

check_reloads() {
    local before refusal
    expect_answer 200 POST /v1/config/diff
    write_config 1 3
    expect_answer 200 POST /v1/config/reload
    before=$(log_count lb 'configuration applied')
    signal HUP lb
    wait_until 20 "the reload of a signal is over" log_count_is lb 'configuration applied' $((before + 1))
    signal USR1 lb
    wait_until 20 "the access log is opened again" log_has lb 'access log reopened'
    write_config 3 4
    expect_answer 503 POST /v1/config/reload
    refusal=$(cat "$WORK/api.out")
    [[ $refusal == *'cannot start a thread'* ]] || fail "a reload that needs threads: $refusal"
    log_has lb 'configuration refused, the running one stays' || fail "the refusal is not logged"
    expect_answer 200 GET /v1/config
    grep -q 'global: workers=1 ' "$WORK/api.out" || fail "a refused configuration runs: $(cat "$WORK/api.out")"
    expect_all_live "reloads"
    pass "$WHAT: reloads run, and one that needs a thread is refused: $refusal"
}

# A reload may want the first thread that watches files or asks sources: it is applied without them, and each lack is
# logged.
check_first_threads() {
    write_config 1 5
    echo '[]' >"$WORK/list.json"
    sed -i '1a watch = true' "$WORK/lb.toml"
    printf '[[pool.discover]]\ntype = "file"\npath = "%s"\n' "$WORK/list.json" >>"$WORK/lb.toml"
    expect_answer 200 POST /v1/config/reload
    log_has lb 'the files of the configuration are not watched' || fail "a lack of a thread for the watch is not logged"
    log_has lb 'cannot start the thread that asks sources' || fail "a lack of a thread for sources is not logged"
    expect_all_live "a reload that wants its first threads"
    pass "$WHAT: a reload that would start the first watch and source is applied without them"
}

# Now there are threads: what was refused is run, and the process ends as it should.
check_end() {
    expect_answer 200 POST /v1/config/reload
    expect_all_live "a reload with more workers"
    ask clients finish >/dev/null
    signal TERM lb
    await_exit lb 30
    expect "exit code" "$EXIT" = 0
    expect "panics" "$(log_count lb panicked)" = 0
    pass "$WHAT: with threads again it runs the refused configuration, and ends in order"
}

threads() { sed -n 's/^Threads:[^0-9]*//p' "/proc/${PID[lb]}/status"; }

has_threads() { [[ $(threads) == "$1" ]]; }

# run WHAT COMMAND...: l4lb is started by COMMAND.
run() {
    local rest
    WHAT=$1
    shift
    write_config 1 2
    rm -f "$WORK/state.json" "$WORK/access.txt"
    start lb "$@" "$WORK/l4lb" -c "$WORK/lb.toml"
    wait_until_listening lb
    wait_until 10 "the admin API answers" curl -sf -o /dev/null --unix-socket "$WORK/admin.sock" http://localhost/health
    rest=$(threads)
    start_peer clients hold "$ADDRESS" "$SESSIONS"
    ask clients settle >/dev/null
    register 201
    # One that was started for these and stays for a while would serve the next ones.
    wait_until 30 "no thread is left of what was asked before" has_threads "$rest"
}

check_all() {
    check_leases
    check_every_route
    check_first_threads
    check_reloads
}

# The folder of a cgroup that limits tasks, if one can be made.
make_cgroup() {
    local base
    for base in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/pids; do
        GROUP=$base/l4lb-threads-$$
        mkdir "$GROUP" 2>/dev/null || continue
        UNDO+=("rmdir '$GROUP'")
        [[ ! -w $GROUP/pids.max ]] || return 0
        rmdir "$GROUP"
    done
    return 1
}

check_with_pids_max() {
    run "pids.max"
    echo "${PID[lb]}" >"$GROUP/cgroup.procs" || fail "cannot move l4lb into $GROUP"
    cat "$GROUP/pids.current" >"$GROUP/pids.max"
    check_all
    echo max >"$GROUP/pids.max"
    check_end
    stop clients
}

check_with_rlimit() {
    local as=()
    # Whatever it writes is in there.
    if [[ $(id -u) == 0 ]]; then
        chown -R "$NOBODY" "$WORK"
        as=(setpriv --reuid "$NOBODY" --regid "$NOBODY" --clear-groups)
    fi
    run "RLIMIT_NPROC" "${as[@]}"
    # As its own user: not every root may set the limits of others.
    "${as[@]}" prlimit --pid "${PID[lb]}" --nproc=1:
    check_all
    "${as[@]}" prlimit --pid "${PID[lb]}" --nproc="$("${as[@]}" prlimit --pid "${PID[lb]}" --nproc --output HARD --noheadings --raw)":
    check_end
    stop clients
}

require curl prlimit python3 setpriv
build
# Where every user may run it.
cp "$L4LB" "$WORK/l4lb"
chmod 755 "$WORK" "$WORK/l4lb"
start_echo echo
BACKEND=127.0.0.1:$(port_of echo)
ADDRESS=$(free_address)
if make_cgroup; then
    check_with_pids_max
else
    say "no cgroup that limits tasks can be made here (/sys/fs/cgroup is not ours): RLIMIT_NPROC alone is tried"
fi
check_with_rlimit

#!/usr/bin/env bash
# l4lb as a service: its unit, the system calls that the unit allows, root given up, sockets that systemd passes.
# Goal G23 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

UNIT=$ROOT/config/l4lb.service
TEMPLATE=$ROOT/config/l4lb@.service
EXPOSURE_MAX=1.6
# A user that exists on every machine and owns nothing.
NOBODY=nobody
REQUESTS=200

check_unit() {
    local exposure
    # The program is not where the unit says, and nothing else is wrong.
    systemd-analyze verify "$UNIT" 2>&1 | grep -v '/usr/local/bin/l4lb is not executable' >"$WORK/verify.out" || true
    expect "complaints of systemd-analyze verify ($(head -n 1 "$WORK/verify.out"))" ! -s "$WORK/verify.out"
    systemd-analyze security --offline=true "$UNIT" >"$WORK/security.out" 2>/dev/null
    exposure=$(sed -nE 's/.*exposure level for .*: ([0-9.]+) .*/\1/p' "$WORK/security.out")
    expect_at_most "exposure of the unit" "${exposure:-10}" "$EXPOSURE_MAX"
    pass "the unit is good and its exposure is $exposure"
}

# The template is the same unit, with the name of the instance in place of that of the service.
check_template() {
    sed -e '1,2d' -e 's/^\(Description=.*\)$/\1, as %i/' -e 's|/etc/l4lb/l4lb.toml|/etc/l4lb/%i.toml|' \
        -e 's#^\(Runtime\|Logs\|State\)Directory=l4lb#&/%i#' -e 's#\(/run\|/var/log\)/l4lb\([ ,]\)#\1/l4lb/%i\2#g' \
        "$UNIT" >"$WORK/expected.service"
    sed '1,/^\[Unit\]$/{/^#/d}' "$TEMPLATE" | diff - "$WORK/expected.service" >"$WORK/template.out" ||
        fail "$TEMPLATE is not $UNIT with the name of an instance: $(head -n 5 "$WORK/template.out")"
    cp "$TEMPLATE" "$WORK/l4lb@one.service"
    systemd-analyze verify "$WORK/l4lb@one.service" 2>&1 | grep -v '/usr/local/bin/l4lb is not executable' >"$WORK/verify.out" || true
    expect "complaints of systemd-analyze verify ($(head -n 1 "$WORK/verify.out"))" ! -s "$WORK/verify.out"
    pass "the template is the unit with the name of an instance"
}

# The system calls of a set of systemd, one a line.
calls_of() {
    local line
    while read -r line; do
        case $line in
            @*) [[ $line == "$1" ]] || calls_of "$line" ;;
            '#'* | '') ;;
            *) echo "$line" ;;
        esac
    done < <(systemd-analyze syscall-filter "$1" 2>/dev/null)
}

make_requests() {
    local answer
    for _ in $(seq "$REQUESTS"); do
        answer=$(curl -s --max-time 5 "http://$ADDRESS/") || fail "$1: no answer"
        [[ -n $answer ]] || fail "$1: an empty answer"
    done
}

# The calls of words of a SystemCallFilter=, sets and single ones; each word has to mean some.
calls_of_words() {
    local word calls
    for word in "$@"; do
        [[ $word == @* ]] || { echo "$word" && continue; }
        calls=$(calls_of "$word")
        [[ -n $calls ]] || fail "no system call is in $word"
        echo "$calls"
    done
}

# What the filter of the unit leaves, as systemd.exec(5) has it: one line adds, one that begins with ~ takes away again.
allow_calls_of_unit() {
    local line words lines=0
    : >"$WORK/allowed.calls"
    while read -r line; do
        lines=$((lines + 1))
        read -r -a words <<<"${line#\~}"
        calls_of_words "${words[@]}" | sort -u >"$WORK/line.calls"
        expect "system calls of '$line'" -s "$WORK/line.calls"
        if [[ $line == '~'* ]]; then
            comm -23 "$WORK/allowed.calls" "$WORK/line.calls" >"$WORK/left.calls"
            expect "system calls that '$line' denies" "$(wc -l <"$WORK/left.calls")" -lt "$(wc -l <"$WORK/allowed.calls")"
        else
            sort -u "$WORK/allowed.calls" "$WORK/line.calls" >"$WORK/left.calls"
        fi
        mv "$WORK/left.calls" "$WORK/allowed.calls"
    done < <(sed -n 's/^SystemCallFilter=//p' "$UNIT")
    expect "lines of the unit's filter" "$lines" -gt 0
    expect "calls of the unit's filter" "$(wc -l <"$WORK/allowed.calls")" -gt 100
}

# A system call denied by the unit breaks the service, which would not show here: there is no systemd to run it.
check_system_calls() {
    local denied
    allow_calls_of_unit
    # Everything that a service does: it writes its access log, opens it again, keeps what was changed, reloads.
    sed "s|^workers = 2|&\naccess_log = { path = \"$WORK/access.log\" }|" "$WORK/plain.toml" >"$WORK/traced.toml"
    printf '[admin]\nstate_file = "%s"\n' "$WORK/state.json" >>"$WORK/traced.toml"
    start lb strace -f -qq -o "$WORK/strace.calls" "$L4LB" -c "$WORK/traced.toml"
    wait_until_listening lb
    make_requests "under strace"
    wait_until 5 "the access log has its lines" grep -q ' session ' "$WORK/access.log"
    mv "$WORK/access.log" "$WORK/access.log.1"
    kill -USR1 "$(pgrep -P "${PID[lb]}")"
    wait_until 5 "the access log is there again" test -e "$WORK/access.log"
    "$L4LB" ctl weight "$BACKEND" 5 >"$WORK/weight.out" || fail "ctl weight: exit code $?"
    wait_until 5 "the state file is there" test -s "$WORK/state.json"
    strace -f -qq -o "$WORK/reload.calls" "$L4LB" ctl reload >"$WORK/reload.out" || fail "ctl reload: exit code $?"
    kill -TERM "$(pgrep -P "${PID[lb]}")"
    await_exit lb 10
    expect "exit code under strace" "$EXIT" = 0
    # What execve(2) and the loader do comes before the filter or is always allowed.
    sed -nE 's/^[0-9]+ +([a-z_0-9]+)\(.*/\1/p' "$WORK"/{strace,reload}.calls | sort -u >"$WORK/used.calls"
    denied=$(comm -23 "$WORK/used.calls" "$WORK/allowed.calls" | grep -vx execve | paste -sd ' ' || true)
    expect "system calls that the unit denies ($denied)" -z "$denied"
    pass "$(wc -l <"$WORK/used.calls") kinds of system calls, all of which the unit allows"
}

# Prints that line of the status of each thread of a process, once each.
of_all_threads() { cat "/proc/$1/task"/*/status | grep -E "^$2:" | tr -s '\t ' ' ' | sort -u; }

check_root_is_given_up() {
    local uid gid
    uid=$(id -u "$NOBODY")
    gid=$(id -g "$NOBODY")
    mkdir "$WORK/log"
    chown "$NOBODY" "$WORK/log"
    chmod 755 "$WORK"
    # Only root can listen there, also where the range of ports for everybody begins lower.
    cat >"$WORK/drop.toml" <<END
[global]
workers = 1
user = "$NOBODY"
access_log = { path = "$WORK/log/access.log" }
[[listener]]
bind = "$LOW_ADDRESS"
[[pool]]
backend = [{ address = "$BACKEND" }]
END
    ADDRESS=$LOW_ADDRESS
    start_l4lb lb -c "$WORK/drop.toml"
    make_requests "as $NOBODY"
    expect "user" "$(of_all_threads "${PID[lb]}" Uid)" = "Uid: $uid $uid $uid $uid"
    expect "group" "$(of_all_threads "${PID[lb]}" Gid)" = "Gid: $gid $gid $gid $gid"
    expect "other groups" "$(of_all_threads "${PID[lb]}" Groups)" = "Groups: $gid "
    expect "capabilities" "$(of_all_threads "${PID[lb]}" 'Cap(Prm|Eff|Amb)')" = \
        "$(printf 'Cap%s: 0000000000000000\n' Amb Eff Prm)"
    expect "new privileges" "$(of_all_threads "${PID[lb]}" NoNewPrivs)" = "NoNewPrivs: 1"
    log_has lb " root privileges dropped.* user=$NOBODY" || fail "the log does not say that root privileges are dropped"
    # A file that only root could open again would end the rotation.
    mv "$WORK/log/access.log" "$WORK/log/access.log.1"
    signal USR1 lb
    wait_until 5 "the access log is there again" test -e "$WORK/log/access.log"
    expect "owner and mode of the access log" "$(stat -c '%U %a' "$WORK/log/access.log")" = "$NOBODY 640"
    expect "lines before the rotation" "$(grep -c ' session ' "$WORK/log/access.log.1")" = "$REQUESTS"
    expect "owner and mode of the admin socket" "$(stat -c '%U %a' "$(admin_socket lb)")" = "$NOBODY 600"
    as_nobody curl -sf --max-time 5 --unix-socket "$(admin_socket lb)" http://l4lb/v1/status >"$WORK/status.out" ||
        fail "the admin socket does not answer $NOBODY"
    pass "listens on $LOW_ADDRESS, then every thread is $NOBODY without a capability, and the log can be rotated"
}

as_nobody() { setpriv --reuid "$NOBODY" --regid "$(id -g "$NOBODY")" --clear-groups "$@"; }

# What only root could open is not opened, and what is open serves further workers.
check_reloads_without_root() {
    sed -i "s/^bind = .*/bind = \"127.0.0.97:98\"/" "$WORK/drop.toml"
    signal HUP lb
    wait_until 10 "the other port is refused" log_has lb 'needs root, which is given up for good'
    sed -i "s/^bind = .*/bind = \"$LOW_ADDRESS\"/; s/^workers = .*/workers = 3/" "$WORK/drop.toml"
    signal HUP lb
    wait_until 10 "the configuration is applied" log_has lb 'configuration applied'
    log_has lb ' accept is balance .*with_socket=1 workers=3' || fail "it does not say who accepts"
    make_requests "with three workers"
    expect "user" "$(of_all_threads "${PID[lb]}" Uid | wc -l)" = 1
    signal TERM lb
    await_exit lb 10
    expect "exit code" "$EXIT" = 0
    [[ ! -e $(admin_socket lb) ]] || fail "its admin socket is still there"
    pass "without root a reload brings workers but no port below 1024, and the end leaves no admin socket"
}

check_who_cannot_give_up_root() {
    start lb as_nobody "$L4LB" -c "$WORK/other.toml"
    await_exit lb 10
    expect "exit code" "$EXIT" = 1
    log_has lb 'cannot become user "root": only root can' || fail "the message does not say why"
    pass "without root it cannot become another user, and the error says so"
}

# A process that was never root has not given it up: a capability may be missing.
check_low_port_without_root() {
    sed "s/^bind = .*/bind = \"$LOW_ADDRESS\"/; s/^user = .*/user = \"$NOBODY\"/" "$WORK/other.toml" >"$WORK/low.toml"
    start lb as_nobody "$L4LB" -c "$WORK/low.toml"
    await_exit lb 10
    expect "exit code" "$EXIT" = 1
    log_has lb 'needs root or CAP_NET_BIND_SERVICE' || fail "the message does not name the capability"
    pass "without root the error names the capability that a port below 1024 needs"
}

# One start with a passed socket. systemd keeps it over a restart; here no process would hold it meanwhile.
check_socket_activation() {
    ADDRESS=$(free_address)
    sed "s/^bind = .*/bind = \"$ADDRESS\"/" "$WORK/plain.toml" >"$WORK/activated.toml"
    # It exits when what it has started does, and waits for the first client.
    start lb systemd-socket-activate --listen "$ADDRESS" --fdname web "$L4LB" -c "$WORK/activated.toml"
    wait_until 10 "the socket is there" grep -q 'Listening on' "$WORK/lb.log"
    make_requests "activated"
    log_has lb ' sockets were passed to this process listener=.* passed=1 opened=0' || fail "no socket was passed"
    log_has lb ' accept is balance ' || fail "it does not say who accepts"
    signal TERM lb
    await_exit lb 10
    expect "exit code" "$EXIT" = 0
    pass "a socket of systemd serves $REQUESTS requests with two workers"
}

require curl pgrep setpriv strace systemd-analyze systemd-socket-activate
require_root
build
PORT=$(free_ports 1)
BACKEND=127.0.0.1:$PORT
start_http_backend backend "$PORT"
ADDRESS=$(free_address)
LOW_ADDRESS=127.0.0.97:97
cat >"$WORK/plain.toml" <<END
[global]
workers = 2
[[listener]]
bind = "$ADDRESS"
[[pool]]
backend = [{ address = "$BACKEND" }]
END
sed 's/^workers = 2/user = "root"/' "$WORK/plain.toml" >"$WORK/other.toml"
chmod 755 "$WORK"
# Of those that are started without another one.
export RUNTIME_DIRECTORY=$WORK/run
check_unit
check_template
check_system_calls
check_root_is_given_up
check_reloads_without_root
check_who_cannot_give_up_root
check_low_port_without_root
check_socket_activation

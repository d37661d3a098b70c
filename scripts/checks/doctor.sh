#!/usr/bin/env bash
# l4lb doctor: on this machine, with few open files, with small settings, and where splice(2) is denied.
# Case 65 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

# diagnose NAME EXIT COMMAND...: runs it; what it prints is in NAME.out.
diagnose() {
    local name=$1 expected=$2
    shift 2
    start "$name" "$@"
    await_exit "$name" 20
    expect "$name: exit code" "$EXIT" = "$expected"
}

# verdict_of NAME FINDING: from the JSON of NAME.
verdict_of() {
    python3 -c 'import json, sys
for finding in json.load(open(sys.argv[1]))["findings"]:
    if finding["name"] == sys.argv[2]:
        print(finding["verdict"], finding.get("remedy", ""))' "$WORK/$1.out" "$2"
}

# The verdict and the remedy match a pattern.
expect_finding() {
    # shellcheck disable=SC2053
    [[ $(verdict_of "$1" "$2") == $3 ]] || fail "$1: $2 is '$(verdict_of "$1" "$2")', expected '$3'"
}

check_this_machine() {
    diagnose plain 0 "$L4LB" doctor -c "$ROOT/config/l4lb.toml"
    grep -qE '^ok +splice +' "$WORK/plain.out" || fail "splice does not work here, or the table does not say so"
    diagnose json 0 "$L4LB" doctor --json
    expect_finding json splice 'ok '
    expect_finding json SO_REUSEPORT 'ok '
    pass "this machine: $(tail -n 1 "$WORK/plain.out")"
}

check_few_open_files() {
    diagnose few 1 prlimit --nofile=40 "$L4LB" doctor --json -c "$ROOT/config/l4lb.toml"
    expect_finding few 'open files' 'fail LimitNOFILE=*'
    grep -q '"found": "40 of user root in this process"' "$WORK/few.out" || fail "it does not say whose limit that is"
    pass "40 open files: $(verdict_of few 'open files')"
}

# Types into $NEAR what NAME says against FINDING, as far as it is a command.
cure() {
    local remedy
    remedy=$(verdict_of "$1" "$2")
    remedy=${remedy#warn }
    [[ $remedy == 'sysctl -w '* ]] || fail "$1: '$remedy' is not to be typed"
    eval "ip netns exec $NEAR ${remedy%% (*}" >>"$WORK/cure.out"
}

# Settings of the network are those of a namespace.
check_small_settings() {
    local finding inside=(ip netns exec "$NEAR")
    make_link 10.75.0.1 10.75.0.2
    "${inside[@]}" sysctl -qw net.core.somaxconn=128 net.ipv4.tcp_migrate_req=0 net.ipv4.ip_local_port_range='9000 9999' \
        net.ipv4.ip_local_reserved_ports=9100-9110
    cat >"$WORK/small.toml" <<END
global = { workers = 2, max_sessions = 5000 }
listener = [{ bind = "127.0.0.1:9090" }, { bind = "127.0.0.1:1090" }]
pool = [{ backend = [{ address = "127.0.0.1:80" }] }]
END
    diagnose small 0 "${inside[@]}" "$L4LB" doctor --json -c "$WORK/small.toml"
    expect_finding small 'accept queue' 'warn sysctl -w net.core.somaxconn=4096'
    expect_finding small 'queue migration' 'warn sysctl -w net.ipv4.tcp_migrate_req=1*'
    expect_finding small 'source ports' 'warn sysctl -w *net.ipv4.ip_local_port_range=*'
    expect_finding small 'own ports' 'warn sysctl -w net.ipv4.ip_local_reserved_ports=9090,9100-9110'
    # What it says is what helps.
    for finding in 'accept queue' 'queue migration' 'own ports'; do
        cure small "$finding"
    done
    diagnose cured 0 "${inside[@]}" "$L4LB" doctor --json -c "$WORK/small.toml"
    for finding in 'accept queue' 'queue migration' 'own ports'; do
        expect_finding cured "$finding" 'ok '
    done
    cure cured 'source ports'
    diagnose wide 0 "${inside[@]}" "$L4LB" doctor --json -c "$WORK/small.toml"
    expect_finding wide 'source ports' 'ok '
    # That makes none of the listeners' ports a source port, and keeps the ports that others have reserved.
    expect_finding wide 'own ports' 'ok '
    expect "reserved ports" "$("${inside[@]}" sysctl -n net.ipv4.ip_local_reserved_ports)" = 1090,9090,9100-9110
    pass "small settings are reported with their remedy"
}

# No listener can do without it, whatever the number of workers; and the doctor says what the server does.
check_denied_setsockopt() {
    local workers deny=(strace -f -qq -o /dev/null -e inject=setsockopt:error=EPERM)
    for workers in 1 2; do
        sed "s/workers = 2/workers = $workers/" "$WORK/small.toml" >"$WORK/workers.toml"
        diagnose shared 1 "${deny[@]}" "$L4LB" doctor --json -c "$WORK/workers.toml"
        expect_finding shared SO_REUSEPORT 'fail allow setsockopt(2)*'
        start lb "${deny[@]}" "$L4LB" -c "$WORK/workers.toml"
        await_exit lb 10
        expect "a start with $workers workers: exit code" "$EXIT" = 1
    done
    pass "setsockopt(2) denied: $(verdict_of shared SO_REUSEPORT)"
}

check_admin_socket_that_is_asked_for() {
    sed '1i admin = { socket = "/proc/no/admin.sock" }' "$WORK/small.toml" >"$WORK/admin.toml"
    diagnose admin 1 "$L4LB" doctor --json -c "$WORK/admin.toml"
    expect_finding admin 'admin socket' 'fail *'
    start lb "$L4LB" -c "$WORK/admin.toml"
    await_exit lb 10
    expect "a start without it: exit code" "$EXIT" = 1
    pass "an admin socket that cannot be made where it is to be: $(verdict_of admin 'admin socket')"
}

check_denied_splice() {
    diagnose denied 0 strace -f -qq -o /dev/null -e inject=splice:error=EPERM "$L4LB" doctor --json
    expect_finding denied splice 'warn *'
    sed 's/^relay = .*/relay = "splice"/' "$ROOT/config/l4lb.toml" >"$WORK/splice.toml"
    diagnose needed 1 strace -f -qq -o /dev/null -e inject=splice:error=EPERM "$L4LB" doctor --json -c "$WORK/splice.toml"
    expect_finding needed splice 'fail *'
    pass "splice(2) denied: $(verdict_of needed splice)"
}

check_wrong_file() {
    echo 'threads = 4' >"$WORK/wrong.toml"
    diagnose wrong 2 "$L4LB" doctor -c "$WORK/wrong.toml"
    pass "a wrong file: $(tail -n 1 "$WORK/wrong.log" | sed 's|.*/||')"
}

require ip prlimit python3 strace sysctl
require_root
build
check_this_machine
check_few_open_files
check_small_settings
check_denied_setsockopt
check_admin_socket_that_is_asked_for
check_denied_splice
check_wrong_file

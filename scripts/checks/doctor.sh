#!/usr/bin/env bash
# l4lb doctor: on this machine, with few open files, with small settings, and where splice(2) is denied.
# shellcheck source=../lib.sh
source "$(dirname "$0")/../lib.sh"

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
    pass "40 open files: $(verdict_of few 'open files')"
}

# Settings of the network are those of a namespace.
check_small_settings() {
    local inside=(ip netns exec "$NEAR")
    make_link 10.75.0.1 10.75.0.2
    "${inside[@]}" sysctl -qw net.core.somaxconn=128 net.ipv4.tcp_migrate_req=0 net.ipv4.ip_local_port_range='9000 9999'
    cat >"$WORK/small.toml" <<END
global = { workers = 2, max_sessions = 5000 }
listener = [{ bind = "127.0.0.1:9090" }]
pool = [{ backend = [{ address = "127.0.0.1:80" }] }]
END
    diagnose small 0 "${inside[@]}" "$L4LB" doctor --json -c "$WORK/small.toml"
    expect_finding small 'accept queue' 'warn sysctl -w net.core.somaxconn=4096'
    expect_finding small 'queue migration' 'warn sysctl -w net.ipv4.tcp_migrate_req=1*'
    expect_finding small 'source ports' 'warn sysctl -w net.ipv4.ip_local_port_range=*'
    expect_finding small 'own ports' 'warn sysctl -w net.ipv4.ip_local_reserved_ports=9090'
    # What it says is what helps.
    "${inside[@]}" sysctl -qw net.core.somaxconn=4096 net.ipv4.tcp_migrate_req=1
    diagnose cured 0 "${inside[@]}" "$L4LB" doctor --json -c "$WORK/small.toml"
    expect_finding cured 'accept queue' 'ok '
    expect_finding cured 'queue migration' 'ok '
    pass "small settings are told with what cures them"
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
check_denied_splice
check_wrong_file

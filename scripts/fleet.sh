#!/usr/bin/env bash
# A fleet on this machine: etcd (three members), CoreDNS (two), Prometheus with the rules of config/, three balancers on
# 127.0.1.1 to 3, backends that register themselves, and an orchestrator that adds and removes both. Prints what to try, and
# ends all of it on Ctrl-C. With Kubernetes as the orchestrator (--kubernetes): not there yet.
#
# Usage: scripts/fleet.sh                       start it
#        scripts/fleet.sh --load SESSIONS SECS  beside it: sessions that the orchestrator scales for
#        scripts/fleet.sh --test                what must hold, as root, in a network namespace of its own: about 2 minutes
#        scripts/fleet.sh --all                 also what takes longer; the log is target/fleet.log
#
# Needs Debian's etcd-server and prometheus, and Go: CoreDNS is built once with the plugins that are needed.
# Cases 109 and 110 of tests/CASES.md.
#
# L4LB=FILE and COREDNS=FILE name programs that are there already.
# shellcheck source=lib/harness.sh
source "$(dirname "$0")/lib/harness.sh"

GO_TRIES=3
FLEET=$ROOT/scripts/lib/fleet
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}

usage() {
    sed -nE '/^# Usage:/,/^#$/s/^# ?//p' "$0"
    exit "$1"
}

# Sets COREDNS. The program of these sources stays below target/.
build_coredns() {
    local sources=$ROOT/scripts/lib/coredns folder try
    [[ -z ${COREDNS:-} ]] || return 0
    command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
    command -v go >/dev/null || fail "needs go, version 1.26 or later, to build CoreDNS"
    folder=$TARGET/coredns-$(cat "$sources"/* | sha256sum | cut -c 1-16)
    COREDNS=$folder/coredns
    [[ ! -x $COREDNS ]] || return 0
    mkdir -p "$folder"
    say "builds CoreDNS, once: about a minute"
    for ((try = 1; try <= GO_TRIES; try++)); do
        # A proxy that does not answer for a moment.
        if (cd "$sources" && go build -mod=readonly -trimpath -buildvcs=false -ldflags "-s -w" -o "$COREDNS.new" .); then
            mv "$COREDNS.new" "$COREDNS"
            return
        fi
        say "try $try of $GO_TRIES to build CoreDNS has failed"
    done
    fail "go cannot build CoreDNS"
}

# Other users run some of the processes of a test: these must get at the program and at their own folders.
prepare() {
    require etcd prometheus promtool python3 setpriv
    build
    build_coredns
    chmod 711 "$WORK"
    mkdir -m 711 "$WORK/fleet"
    install -m 755 "$L4LB" "$WORK/l4lb"
    install -m 755 "$COREDNS" "$WORK/coredns"
}

# run_tests WHICH: in a network namespace of its own, whose ports are all free and whose packets may be dropped.
run_tests() {
    require_root
    require ip nft unshare
    prepare
    unshare --net sh -c 'ip link set lo up && exec "$@"' sh python3 -B "$FLEET" "$1" "$WORK/fleet" "$WORK/l4lb" "$WORK/coredns"
}

case ${1:-} in
    "")
        prepare
        python3 -B "$FLEET" run "$WORK/fleet" "$WORK/l4lb" "$WORK/coredns" &
        PID[fleet]=$!
        trap 'signal TERM fleet 2>/dev/null || true' INT TERM
        while is_running fleet; do
            wait "${PID[fleet]}" || true
        done
        await_exit fleet 10
        exit "$EXIT"
        ;;
    --load)
        (($# == 3)) || usage 2
        python3 -B "$FLEET" load "$2" "$3"
        ;;
    --test) run_tests test ;;
    --all)
        mkdir -p "$TARGET"
        run_tests all 2>&1 | tee "$TARGET/fleet.log"
        ;;
    --kubernetes) fail "--kubernetes is not there yet" ;;
    --help | -h) usage 0 ;;
    *) usage 2 ;;
esac

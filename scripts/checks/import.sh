#!/usr/bin/env bash
# `l4lb import` translates the examples of HAProxy's own package, and `l4lb check` accepts what comes out.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

EXAMPLES=/usr/share/doc/haproxy/examples

# Images of containers leave the documents of packages out: then they come from the package itself.
find_examples() {
    [[ ! -d $EXAMPLES ]] || return 0
    (cd "$WORK" && apt-get download -qq haproxy && dpkg-deb -x haproxy_*.deb package) || fail "cannot fetch the package of haproxy"
    EXAMPLES=$WORK/package/usr/share/doc/haproxy/examples
}

# Files that have no frontend with a backend that l4lb can reach translate to nothing.
expect_nothing() {
    local code=0
    "$L4LB" import "$1" >"$WORK/none.toml" 2>"$WORK/none.notes" || code=$?
    expect "the code of $1" "$code" = 1
    expect "the size of the translation of $1" "$(stat -c %s "$WORK/none.toml")" = 0
}

expect_translated() {
    "$L4LB" import "$1" >"$WORK/l4lb.toml" 2>"$WORK/notes" || fail "$1 is not translated: $(cat "$WORK/notes")"
    # The machine need not allow as many open files as HAProxy had.
    "$L4LB" check "$WORK/l4lb.toml" --max-sessions 1000 >"$WORK/checked" 2>&1 || fail "$1: $(cat "$WORK/checked")"
    expect "listeners of $1" "$(grep -c '^listener ' "$WORK/checked")" = "$2"
    expect "backends of $1" "$(grep -c '^  backend ' "$WORK/checked")" = "$3"
    # Each line with a reason, and the same lines as a comment.
    expect "notes of $1" "$(wc -l <"$WORK/notes")" = "$(grep -c '^#   ' "$WORK/l4lb.toml")"
    pass "$(basename "$1"): $2 listeners, $3 backends, $(wc -l <"$WORK/notes") lines not translated"
}

require haproxy
build
find_examples
expect_translated "$EXAMPLES/basic-config-edge.cfg" 1 4
expect_translated "$EXAMPLES/content-sw-sample.cfg" 1 6
expect_translated "$EXAMPLES/quick-test.cfg" 1 1
expect_translated "$EXAMPLES/socks4.cfg" 1 1
expect_translated "$EXAMPLES/transparent_proxy.cfg" 1 1
expect_translated "$EXAMPLES/wurfl-example.cfg" 1 1
expect_nothing "$EXAMPLES/option-http_proxy.cfg"
expect_nothing /etc/haproxy/haproxy.cfg
pass "files without a frontend that can be translated are refused"

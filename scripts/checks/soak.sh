#!/usr/bin/env bash
# 100,000 connections of every kind, with not a byte and not an end out of place, nothing leaked and all books in
# agreement. --long: 1,000,000.
# Goals G1 and G15 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

# soak WHAT ARGS...
soak() {
    local what=$1
    shift
    L4LB=$L4LB "$ROOT/scripts/soak.sh" "$@" 2>&1 | tee "$WORK/soak.out" || fail "$what: see above"
    pass "$what: $(grep -oE '[0-9]+ connections in .*' "$WORK/soak.out"), without a mismatch"
}

build
soak "every kind" "$@"
soak "every kind, spliced" --relay splice --connections 30000 --seed 3
soak "every kind, copied" --relay copy --connections 20000 --seed 4
# Without resets every counter is known to the byte.
soak "only proper ends" --graceful --connections 10000 --seed 2

#!/usr/bin/env bash
# The integrity soak: very many connections of every kind through the release binary, where every byte and every end is
# looked at, and the counters of the balancer and of both kinds of peers must agree (tests/soak/main.rs).
# Usage: scripts/soak.sh [--long] [--connections N] [--seed N] [--concurrency N] [--workers N] [--graceful]
#        [--relay auto|copy|splice]
# 100,000 connections in about a minute; with --long 1,000,000 in about ten. L4LB=FILE soaks another binary.
set -euo pipefail
cd "$(dirname "$0")/.."

CONNECTIONS=100000
if [[ ${1:-} == --long ]]; then
    CONNECTIONS=1000000
    shift
fi

[[ -n ${L4LB:-} ]] || cargo build --release --locked --quiet
# The peers are those that `cargo test` builds: another profile would build every crate once more.
exec cargo test --locked --quiet --test soak -- \
    --l4lb "${L4LB:-${CARGO_TARGET_DIR:-$PWD/target}/release/l4lb}" --connections "$CONNECTIONS" "$@"

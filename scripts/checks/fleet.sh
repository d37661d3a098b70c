#!/usr/bin/env bash
# The short tests of a whole fleet: three balancers, etcd, CoreDNS and Prometheus, under load.
# Cases 106, 107 and 108 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

build
L4LB=$L4LB "$ROOT/scripts/fleet.sh" --test || fail "scripts/fleet.sh --test"

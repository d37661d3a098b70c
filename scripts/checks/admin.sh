#!/usr/bin/env bash
# The admin API over TCP: what schemathesis thinks up breaks nothing that the OpenAPI document says, and 1,000 stuck clients
# beside a scrape that never pauses for long leave the latency of the data plane as it is.
# shellcheck source=../lib.sh
source "$(dirname "$0")/../lib.sh"

SCHEMATHESIS_VERSION=4.32.5
SCHEMATHESIS_SECONDS_MAX=60
VENV=${CARGO_TARGET_DIR:-$ROOT/target}/schemathesis-$SCHEMATHESIS_VERSION
STUCK=1000
ROUNDS=5
ROUND_SECONDS=3
# A machine with better things to do moves a p99 by as much without any client.
P99_RATIO_MAX=10
SCRAPES_FAILED_PERCENT_MAX=5
SHOWN=(status listeners pools backends events topology config log-level)

# Outside the network namespace: what is missing comes from PyPI.
install_schemathesis() {
    [[ -x $VENV/bin/schemathesis ]] && return
    rm -rf "$VENV"
    python3 -m venv "$VENV" || fail "python3 -m venv does not work: Debian's package is python3-venv"
    "$VENV/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$SCHEMATHESIS_VERSION" ||
        fail "pip cannot install schemathesis $SCHEMATHESIS_VERSION"
}

# Everything else happens where nothing but loopback is: a name that schemathesis thinks up may be one that can be looked up.
enter_namespace() {
    [[ ${ALONE:-} != yes ]] || return 0
    require_root
    install_schemathesis
    build
    ALONE=yes L4LB=$L4LB unshare --net bash -c 'ip link set lo up && exec "$@"' bash "$0" "$@"
    exit
}

start_guarded() {
    TOKEN=$(head -c 24 /dev/urandom | base64)
    (umask 077 && echo "$TOKEN" >"$WORK/token")
    ADMIN=$(free_address)
    cat >"$WORK/lb.toml" <<END
admin = { listen = "$ADMIN", token_file = "$WORK/token", state_file = "$WORK/state.json" }
listener = [{ bind = "$(free_address)" }]
[[pool]]
name = "web"
health = { type = "off" }
backend = [{ name = "a", address = "$BACKEND" }]
END
    RUST_LOG=info,l4lb::session=off start_l4lb lb -c "$WORK/lb.toml"
    ADDRESS=$(address_of lb)
}

# What one request may say is more than a schema can: whether a host is known, and what a duration may be.
write_schemathesis_toml() {
    cat >"$WORK/schemathesis.toml" <<END
[[operations]]
include-name = "POST /v1/pools/{pool}/backends"
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 404, 409]
END
}

# Each route of the document, with every check that schemathesis has; the streams never end, so they are left out.
check_document() {
    local flags=(--header "Authorization: Bearer $TOKEN" --checks all --exclude-path-regex '/stream$' --no-color)
    flags+=(--max-time "$SCHEMATHESIS_SECONDS_MAX" --request-timeout 10 --max-examples 50 --continue-on-failure)
    write_schemathesis_toml
    (cd "$WORK" && timeout $((SCHEMATHESIS_SECONDS_MAX + 30)) "$VENV/bin/schemathesis" run "${flags[@]}" \
        "http://$ADMIN/openapi.json") >"$WORK/schemathesis.out" 2>&1 || {
        cat "$WORK/schemathesis.out"
        fail "schemathesis has found what the document does not say"
    }
    is_running lb || fail "l4lb has ended"
    pass "schemathesis: $(grep -E 'generated|tested' "$WORK/schemathesis.out" | tr -s ' \n' ' ')"
    expect "panics" "$(log_count lb 'panicked')" = 0
    stop lb
}

# In milliseconds, as wrk has found it.
p99_of_round() {
    wrk -t1 -c32 -d"$ROUND_SECONDS" --latency "http://$ADDRESS/" >"$WORK/wrk.out" 2>&1 || fail "wrk: exit code $?"
    ! grep -E 'Socket errors|Non-2xx' "$WORK/wrk.out" || fail "wrk: errors"
    awk '/^ +99%/ { n = $2 + 0; print $2 ~ /us$/ ? n / 1000 : $2 ~ /ms$/ ? n : n * 1000 }' "$WORK/wrk.out"
}

median() { printf '%s\n' "$@" | sort -g | sed -n "$((($# + 1) / 2))p"; }

# Asks for everything again and again, ten times a second, until it is killed; one line each.
scrape_all() {
    local route urls=()
    for route in "${SHOWN[@]}"; do urls+=(-o /dev/null "http://$ADMIN/v1/$route"); done
    while :; do
        if curl -sS --fail --max-time 10 -H "Authorization: Bearer $TOKEN" "${urls[@]}"; then echo ok; else echo failed; fi
        sleep 0.1
    done
}

check_crowd() {
    local round calm=() crowded=() scrapes=0 failed=0
    for ((round = 0; round < ROUNDS; round++)); do
        calm+=("$(p99_of_round)")
        start_peer crowd stick "$ADMIN" "$STUCK"
        wait_until 30 "$STUCK clients are stuck" grep -q '^stuck' "$WORK/crowd.out"
        start scrape scrape_all
        crowded+=("$(p99_of_round)")
        stop scrape
        stop crowd
        scrapes=$((scrapes + $(wc -l <"$WORK/scrape.out")))
        failed=$((failed + $(grep -c failed "$WORK/scrape.out" || true)))
    done
    expect "scrapes beside $STUCK stuck clients" "$scrapes" -gt 0
    expect_at_most "percent of scrapes that failed" $((100 * failed / scrapes)) "$SCRAPES_FAILED_PERCENT_MAX"
    RATIO=$(awk -v a="$(median "${calm[@]}")" -v b="$(median "${crowded[@]}")" 'BEGIN { printf "%.2f", b / a }')
    say "p99 in ms, calm: ${calm[*]}; with $STUCK stuck clients and $scrapes scrapes ($failed failed): ${crowded[*]}"
    expect_at_most "p99 with the crowd, in p99s without" "$RATIO" "$P99_RATIO_MAX"
    pass "p99 with $STUCK stuck admin clients is $RATIO of that without"
}

require curl python3 wrk unshare ip
enter_namespace "$@"
BACKEND=$(free_address)
start_http_backend backend "${BACKEND##*:}"
start_guarded
check_document
start_guarded
check_crowd

#!/usr/bin/env bash
# The admin API over TCP: what schemathesis thinks up breaks nothing that the OpenAPI document says, and 1,000 stuck clients
# beside a scrape that never pauses for long leave the latency of the data plane as it is.
# SCHEMATHESIS_SEED=N makes schemathesis think up other requests.
# Case 101 and goal G20 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

SCHEMATHESIS_VERSION=4.32.5
# Of each operation; bounded by number and not by time, so that a seed stands for the same requests on any machine.
EXAMPLES=75
SEED=${SCHEMATHESIS_SEED:-1}
# For schemathesis that is broken itself.
SCHEMATHESIS_SECONDS_MAX=180
PIP_TRIES=4
VENV=${CARGO_TARGET_DIR:-$ROOT/target}/schemathesis-$SCHEMATHESIS_VERSION
STUCK=1000
ROUNDS=9
ROUND_SECONDS=1
# A loaded machine doubles it without any fault.
P99_RATIO_MAX=10
SCRAPES_FAILED_PERCENT_MAX=5
SHOWN=(status listeners pools backends events topology config log-level)

# Outside the network namespace: what is missing comes from PyPI.
install_schemathesis() {
    local try
    [[ ! -x $VENV/bin/schemathesis ]] || return 0
    for ((try = 1; try <= PIP_TRIES; try++)); do
        rm -rf "$VENV"
        python3 -m venv "$VENV" || fail "python3 -m venv does not work: Debian's package is python3-venv"
        "$VENV/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$SCHEMATHESIS_VERSION" && return
        say "pip: try $try of $PIP_TRIES has failed"
        sleep "$((try * 2))"
    done
    rm -rf "$VENV"
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
    # What was registered with the one before is not wanted.
    rm -f "$WORK/state.json"
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

# Half of the names are ones that there are, so that not everything ends with a 404. What one request may say is more than a
# schema can: whether a host is known, and what a duration may be.
write_schemathesis_toml() {
    cat >"$WORK/schemathesis.toml" <<END
[dictionaries]
pools.values = ["web"]
backends.values = ["a", "b"]
addresses.values = ["127.0.0.1:8081", ":8082", "[::1]:8083"]
durations.values = ["1s", "10s", "1m30s", "24h"]
[parameters]
pool = { dictionary = "pools", probability = 0.5 }
backend = { dictionary = "backends", probability = 0.5 }
"body.name" = { dictionary = "backends", probability = 0.5 }
"body.address" = { dictionary = "addresses", probability = 0.5 }
"body.ttl" = { dictionary = "durations", probability = 0.5 }
# "since" and "reason" go with "ended", which a schema cannot say.
[[operations]]
include-name = "GET /v1/sessions"
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 404]
[[operations]]
include-name = "POST /v1/pools/{pool}/backends"
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 404, 409]
END
}

# Each route of the document, with every check that schemathesis has; the streams never end, so they are left out.
check_document() {
    local flags=(--header "Authorization: Bearer $TOKEN" --checks all --exclude-path-regex '/stream$' --no-color)
    flags+=(--seed "$SEED" --max-examples "$EXAMPLES" --generation-database none --request-timeout 10 --continue-on-failure)
    write_schemathesis_toml
    (cd "$WORK" && timeout "$SCHEMATHESIS_SECONDS_MAX" "$VENV/bin/schemathesis" run "${flags[@]}" \
        "http://$ADMIN/openapi.json") >"$WORK/schemathesis.out" 2>&1 || {
        cat "$WORK/schemathesis.out"
        fail "schemathesis has found what the document does not say; SCHEMATHESIS_SEED=$SEED finds it again"
    }
    is_running lb || fail "l4lb has ended"
    expect "panics" "$(log_count lb 'panicked')" = 0
    pass "schemathesis, seed $SEED:$(grep -E ' generated, ' "$WORK/schemathesis.out" | tr -s ' ')"
    stop lb
}

# In milliseconds, as wrk has found it.
p99_of_round() {
    wrk -t1 -c32 -d"$ROUND_SECONDS" --timeout 10s --latency "http://$ADDRESS/" >"$WORK/wrk.out" 2>&1 || fail "wrk: exit code $?"
    ! grep -E 'Socket errors|Non-2xx' "$WORK/wrk.out" || fail "wrk: errors"
    awk '/^ +99%/ { n = $2 + 0; print $2 ~ /us$/ ? n / 1000 : $2 ~ /ms$/ ? n : n * 1000 }' "$WORK/wrk.out"
}

least() { printf '%s\n' "$@" | sort -g | head -n 1; }

# Asks for everything again and again, ten times a second, until it is killed; one line each.
scrape_all() {
    local route urls=()
    for route in "${SHOWN[@]}"; do urls+=(-o /dev/null "http://$ADMIN/v1/$route"); done
    while :; do
        if curl -sS --fail --max-time 10 -H "Authorization: Bearer $TOKEN" "${urls[@]}"; then echo ok; else echo failed; fi
        sleep 0.1
    done
}

# In turn without and with the crowd. The best rounds are compared: what else the machine does makes a round worse and never
# better, and a data plane that waits for the admin API does so in each round.
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
    RATIO=$(awk -v a="$(least "${calm[@]}")" -v b="$(least "${crowded[@]}")" 'BEGIN { printf "%.2f", b / a }')
    say "p99 in ms, calm: ${calm[*]}; with $STUCK stuck clients and $scrapes scrapes ($failed failed): ${crowded[*]}"
    expect_at_most "the best p99 with the crowd, in best p99s without" "$RATIO" "$P99_RATIO_MAX"
    pass "the best p99 with $STUCK stuck admin clients is $RATIO times that without"
}

require curl python3 wrk unshare ip
enter_namespace "$@"
BACKEND=$(free_address)
start_http_backend backend "${BACKEND##*:}"
start_guarded
check_document
start_guarded
check_crowd

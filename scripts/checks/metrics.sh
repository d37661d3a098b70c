#!/usr/bin/env bash
# A real Prometheus scrapes l4lb under load: the laws between the counters hold on every scrape, each alert and each
# chart of the dashboard finds its series, and an alert fires once it is to. And what a scrape of 10,000 backends takes.
# Case 98 and goal G18 of tests/CASES.md.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

LOAD_SECONDS=10
LAWS_SECONDS=6
# Over which rates are taken: the rules ask for the last minutes, one second of scrapes apart is enough to have them.
SCRAPES_MIN=4
BACKENDS=10000
SCRAPE_MS_MAX=200

scrape() { "$ROOT/scripts/lib/scrape.py" "$@"; }

check_files() {
    local what file
    while read -r what file; do
        # shellcheck disable=SC2086 # two words
        promtool ${what/-/ } "$ROOT/config/$file" >"$WORK/promtool.out" 2>&1 || fail "promtool $what: $file"
    done <<END
check-config prometheus.yml
check-rules alerts.yml
test-rules alerts_test.yml
check-rules alerts_fleet.yml
test-rules alerts_fleet_test.yml
END
    pass "promtool: the configuration, $(cat "$ROOT"/config/alerts.yml "$ROOT"/config/alerts_fleet.yml | grep -c 'alert:') alerts and their tests are good"
}

start_balancer() {
    WEB_PORT=$(free_ports 1)
    start_http_backend web "$WEB_PORT"
    METRICS=$(free_address)
    ADDRESS=$(free_address)
    cat >"$WORK/lb.toml" <<END
[global]
workers = 2
[admin]
metrics = "$METRICS"
[[listener]]
name = "front"
bind = "$ADDRESS"
max_sessions = 1000
[[pool]]
name = "web"
backend = [{ name = "one", address = "127.0.0.1:$WEB_PORT" }]
[pool.health]
interval = "500ms"
fast_interval = "200ms"
END
    start_l4lb lb -c "$WORK/lb.toml"
    URL=http://$METRICS/metrics
}

check_format() {
    curl -sSf --max-time 10 -o "$WORK/page" -w '%{content_type}' "$URL" >"$WORK/type.out"
    expect "content type" "$(cat "$WORK/type.out")" = "text/plain; version=0.0.4; charset=utf-8"
    promtool check metrics <"$WORK/page" >"$WORK/promtool.out" 2>&1 || fail "promtool check metrics"
    curl -sSf --max-time 10 --unix-socket "$(admin_socket lb)" http://localhost/metrics >"$WORK/page" ||
        fail "no metrics on the admin socket"
    pass "promtool check metrics: nothing to say on $(grep -c '^# TYPE' "$WORK/page") metrics"
}

start_prometheus() {
    PROMETHEUS=$(free_address)
    # The files as they are, but every second, and without waiting before an alert fires.
    sed -e "s/127.0.0.1:9902/$METRICS/" -e 's/15s/1s/' "$ROOT/config/prometheus.yml" >"$WORK/prometheus.yml"
    sed -E 's/^( +for: ).*/\10s/' "$ROOT/config/alerts.yml" >"$WORK/alerts.yml"
    start prometheus prometheus --config.file="$WORK/prometheus.yml" --storage.tsdb.path="$WORK/tsdb" \
        --storage.tsdb.retention.time=1h --web.listen-address="$PROMETHEUS" --log.level=warn
    PROMETHEUS=http://$PROMETHEUS
    wait_until 20 "Prometheus is ready" curl -sf --max-time 2 -o /dev/null "$PROMETHEUS/-/ready"
}

has_scraped() {
    local query
    query=$(curl -sf --max-time 2 --data-urlencode 'query=count_over_time(l4lb_build_info[1m])' "$PROMETHEUS/api/v1/query") || return 1
    (($(sed -nE 's/.*"value":\[[^,]*,"([0-9]+)"\].*/\1/p' <<<"$query") >= SCRAPES_MIN))
}

check_under_load() {
    local figures
    start wrk wrk -t1 -c32 -d"$LOAD_SECONDS" -H 'Connection: close' "http://$ADDRESS/"
    figures=$(scrape laws "$URL" "$LAWS_SECONDS")
    expect "sessions under way ($figures)" "$(value_of accepted "$figures")" -gt 0
    pass "under load: the laws held on each of $(value_of scrapes "$figures") scrapes of $(value_of series "$figures") series"
    wait_until 20 "Prometheus has scraped" has_scraped
    figures=$(scrape alerts "$PROMETHEUS")
    pass "Prometheus: $(value_of alerts "$figures") of $(grep -c 'alert:' "$ROOT/config/alerts.yml") alerts find their series"
    figures=$(scrape dashboard "$PROMETHEUS" "$ROOT/config/grafana.json")
    pass "Prometheus: $(value_of expressions "$figures") expressions of the dashboard find their series"
    await_exit wrk 20
}

check_alert_fires() {
    ! scrape firing "$PROMETHEUS" L4lbPoolWithoutBackend || fail "the alert fires while the backend serves"
    stop web
    wait_until 20 "the alert fires" scrape firing "$PROMETHEUS" L4lbPoolWithoutBackend
    pass "L4lbPoolWithoutBackend fires once the only backend has stopped"
    stop prometheus
    stop lb
}

check_many_backends() {
    local figures
    METRICS=$(free_address)
    {
        printf 'listener = [{ bind = "%s" }]\n[admin]\nmetrics = "%s"\n[[pool]]\nhealth = { type = "off" }\nbackend = [\n' \
            "$(free_address)" "$METRICS"
        awk -v n="$BACKENDS" 'BEGIN { for (i = 0; i < n; i++) printf "{ name = \"backend-%d\", address = \"127.1.%d.%d:80\" },\n", i, i / 256, i % 256 }'
        echo ']'
    } >"$WORK/many.toml"
    start_l4lb many -c "$WORK/many.toml"
    figures=$(scrape time "http://$METRICS/metrics" 9)
    expect_at_most "ms to scrape $BACKENDS backends ($figures)" "$(value_of own_ms "$figures")" "$SCRAPE_MS_MAX"
    pass "a scrape of $BACKENDS backends: $(value_of series "$figures") series, $(value_of bytes "$figures") bytes," \
        "built in $(value_of own_ms "$figures") ms, read in $(value_of ms "$figures") ms"
    stop many
}

require curl prometheus promtool python3 wrk
build
check_files
start_balancer
check_format
start_prometheus
check_under_load
check_alert_fires
check_many_backends

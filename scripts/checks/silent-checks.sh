#!/usr/bin/env bash
# A thousand backends of one pool that take connections and say nothing leave the checks of another pool alone: its
# backend is checked as often as configured, and once it has died that is noticed as soon as it should be.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

SILENT=1000
# Checks at a time are an eighth of this.
OPEN_FILES=1024
# Of the backend that answers: checks until it is judged, and of those that the interval allows the part that has to
# come.
CHECKS=20
INTERVAL_MS=200
SHARE=50
# Until its death is noticed and has been looked for.
DEATH_CHECKS_MAX=12

start_silent() {
    start silent python3 -c "
import resource, signal, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
sockets = [socket.create_server(('127.0.0.1', 0), backlog=64) for _ in range($SILENT)]
print(' '.join(str(each.getsockname()[1]) for each in sockets), flush=True)
signal.pause()"
    wait_until 10 "the silent ones listen" test -s "$WORK/silent.out"
}

start_balancer() {
    LIVE_PORT=$(free_ports 1)
    start_http_backend live "$LIVE_PORT"
    {
        printf '[global]\nworkers = 1\n[[listener]]\nbind = "%s"\npool = "silent"\n' "$(free_address)"
        printf '[[listener]]\nname = "live"\nbind = "%s"\npool = "live"\n' "$(free_address)"
        printf '[[pool]]\nname = "silent"\nhealth = { type = "http", interval = "1s", timeout = "1s", fast_interval = "1s" }\n'
        printf 'backend = ['
        # shellcheck disable=SC2046 # a word for each port
        printf '{ address = "127.0.0.1:%s" }, ' $(cat "$WORK/silent.out")
        printf ']\n[[pool]]\nname = "live"\n'
        printf 'health = { type = "http", interval = "%sms", timeout = "200ms", fast_interval = "100ms", fall = 2 }\n' "$INTERVAL_MS"
        printf 'backend = [{ name = "one", address = "127.0.0.1:%s" }]\n' "$LIVE_PORT"
    } >"$WORK/lb.toml"
    start lb prlimit --nofile="$OPEN_FILES:$OPEN_FILES" env RUNTIME_DIRECTORY="$WORK/lb.run" "$L4LB" -c "$WORK/lb.toml"
    wait_until_listening lb
}

# The sum of a family over those of its series that contain LABELS.
count_of() {
    curl -sSf --max-time 10 --unix-socket "$(admin_socket lb)" "http://localhost/metrics" |
        awk -v family="$1{" -v labels="$2" 'index($0, family) == 1 && index($0, labels) { sum += $NF } END { print sum + 0 }'
}

live_checks() { count_of l4lb_backend_checks_total 'pool="live"'; }

silent_are_known() { (($(count_of l4lb_backend_checks_total 'pool="silent"') >= SILENT / 4)); }

have_passed() { (($(live_checks) - $1 >= $2)); }

# As many checks as CHECKS take, and how many of what the time allows they are.
check_rate() {
    local before began spent allowed
    wait_until 30 "a quarter of the silent ones were checked" silent_are_known
    before=$(live_checks)
    began=$(now_ms)
    wait_until 60 "$CHECKS checks of the live backend" have_passed "$before" "$CHECKS"
    spent=$(($(now_ms) - began))
    allowed=$((spent / INTERVAL_MS))
    expect_at_most "checks that were left out, percent of $allowed" $((100 - 100 * CHECKS / (allowed > 0 ? allowed : 1))) "$SHARE"
    pass "$CHECKS checks of the live backend in $spent ms beside $SILENT silent ones, $allowed would be all"
}

is_down() { (($(count_of l4lb_backend_health_transitions_total 'pool="live"') >= 2)); }

# By counts: two failed checks take its health away, and some more may pass while it dies and is noticed.
check_death() {
    local before after
    before=$(live_checks)
    stop live
    wait_until 30 "its death is noticed" is_down
    after=$(live_checks)
    wait_until 10 "it is said" log_has lb 'health pool=live backend=one .* from=up to=down'
    expect_at_most "checks until its death was noticed" $((after - before)) "$DEATH_CHECKS_MAX"
    pass "its death was noticed in $((after - before)) checks"
}

require python3 curl prlimit
build
start_silent
start_balancer
check_rate
check_death

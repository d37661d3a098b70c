#!/usr/bin/env bash
# Runs the checks of scripts/checks/ on the release binary of the code as it is.
# Usage: scripts/check.sh [--long] [NAME...]      all of them, or some: demo programs emfile ...
set -euo pipefail

CHECKS=$(cd "$(dirname "$0")" && pwd)/checks
# Every wait in a check has a deadline of its own; this is for a check that is broken itself.
CHECK_SECONDS_MAX=600
LONG_CHECK_SECONDS_MAX=3600

# How many of the checks that measure no time run at once.
LANES=2

FAILED=0
OUTPUT=$(mktemp -d "${TMPDIR:-/tmp}/l4lb-check.XXXXXX")
trap 'rm -rf "$OUTPUT"' EXIT

# Checks that measure no time, the longest first: they run side by side, and each one's output is printed when it ends.
names_of_untimed() {
    echo fleet segments syscalls dashboard programs health-servers proxy-protocol server-names postgres-names agent namespaces \
        metrics discovery hosts service half-close doctor demo import syslog release
}

# Checks that measure a time or the use of a processor: each one has the machine for itself.
names_of_timed() {
    echo signals threads hasty-clients stuck-log ports silent-checks tls-checks pipes stalled-readers spin fairness idle-memory \
        moves reload discovery-load etcd announce admin emfile soak
}

names_of_all() { echo "$(names_of_untimed) $(names_of_timed)"; }

run_check() {
    local name=$1 began=$SECONDS code=0 verdict=ok
    shift
    printf '\n-- %s\n' "$name"
    timeout --kill-after 10 "$CHECK_SECONDS_MAX" "$CHECKS/$name.sh" "$@" || code=$?
    ((code == 0)) || verdict="FAILED ($code)"
    printf '%-15s %-12s %4d s\n' "$name" "$verdict" $((SECONDS - began)) >"$OUTPUT/$name.verdict"
    return "$code"
}

run_one_by_one() {
    local name
    for name in "$@"; do
        run_check "$name" "${FLAGS[@]}" || FAILED=1
    done
}

run_side_by_side() {
    local name running=0 ended
    local -A name_of=()
    for name in "$@"; do
        if ((running == LANES)); then
            await_one
        fi
        run_check "$name" "${FLAGS[@]}" >"$OUTPUT/$name.out" 2>&1 &
        name_of[$!]=$name
        running=$((running + 1))
    done
    while ((running > 0)); do
        await_one
    done
}

# Waits for one check of run_side_by_side, whose variables these are, and prints what it has printed.
await_one() {
    wait -n -p ended "${!name_of[@]}" || FAILED=1
    cat "$OUTPUT/${name_of[$ended]}.out"
    unset "name_of[$ended]"
    running=$((running - 1))
}

expect_all_are_listed() {
    local listed there
    listed=$(names_of_all | tr ' ' '\n' | sort)
    there=$(basename -s .sh "$CHECKS"/*.sh | sort)
    [[ $listed == "$there" ]] || { echo "check.sh: lists [$listed], but there are [$there]" >&2 && exit 1; }
}

expect_all_are_listed
FLAGS=()
while [[ ${1:-} == --* ]]; do
    FLAGS+=("$1")
    [[ $1 != --long ]] || CHECK_SECONDS_MAX=$LONG_CHECK_SECONDS_MAX
    shift
done
if (($# > 0)); then
    for name in "$@"; do
        [[ -x $CHECKS/$name.sh ]] || { echo "check.sh: no check is called '$name'; there are: $(names_of_all)" >&2 && exit 2; }
    done
    NAMES=("$@")
    run_one_by_one "$@"
else
    read -r -a UNTIMED <<<"$(names_of_untimed)"
    read -r -a TIMED <<<"$(names_of_timed)"
    NAMES=("${UNTIMED[@]}" "${TIMED[@]}")
    run_side_by_side "${UNTIMED[@]}"
    run_one_by_one "${TIMED[@]}"
fi

printf '\n-- summary\n'
for name in "${NAMES[@]}"; do
    cat "$OUTPUT/$name.verdict"
done
exit "$FAILED"

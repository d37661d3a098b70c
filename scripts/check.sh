#!/usr/bin/env bash
# Runs the checks of scripts/checks/ on the release binary of the code as it is.
# Usage: scripts/check.sh [--long] [NAME...]      all of them, or some: demo programs emfile ...
set -euo pipefail

CHECKS=$(cd "$(dirname "$0")" && pwd)/checks
# Every wait in a check has a deadline of its own; this is for a check that is broken itself.
CHECK_SECONDS_MAX=600
LONG_CHECK_SECONDS_MAX=3600

RESULTS=()
FAILED=0

# The quick ones first.
names_of_all() {
    echo release demo doctor signals threads half-close hasty-clients service metrics stuck-log ports silent-checks \
        namespaces segments pipes stalled-readers spin fairness idle-memory dashboard syscalls moves reload admin programs emfile soak
}

run_check() {
    local name=$1 began=$SECONDS verdict=ok
    shift
    printf '\n-- %s\n' "$name"
    timeout --kill-after 10 "$CHECK_SECONDS_MAX" "$CHECKS/$name.sh" "$@" || verdict="FAILED ($?)"
    [[ $verdict == ok ]] || FAILED=$((FAILED + 1))
    RESULTS+=("$(printf '%-14s %-12s %4d s' "$name" "$verdict" $((SECONDS - began)))")
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
[[ $# -gt 0 ]] || read -r -a NAMES <<<"$(names_of_all)"
for name in "${@:-${NAMES[@]}}"; do
    [[ -x $CHECKS/$name.sh ]] || { echo "check.sh: no check is called '$name'; there are: $(names_of_all)" >&2 && exit 2; }
    run_check "$name" "${FLAGS[@]}"
done

printf '\n-- summary\n'
printf '%s\n' "${RESULTS[@]}"
exit $((FAILED > 0))

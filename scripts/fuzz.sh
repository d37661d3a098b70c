#!/usr/bin/env bash
# Fuzzes the targets of tests/fuzz with libFuzzer, one after the other, and prints a table at the end.
# Usage: scripts/fuzz.sh [--seconds N] [TARGET...]      all of them, or some: config flags session ...
# Needs a nightly toolchain ($FUZZ_TOOLCHAIN, default: nightly) and cargo-fuzz. What a run finds stays below the target
# directory and is where the next one begins; the corpus of the repository changes only by hand.
# Goal G21 of tests/CASES.md.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PACKAGE=$ROOT/tests/fuzz
WORK=${CARGO_TARGET_DIR:-$ROOT/target}/fuzz
TOOLCHAIN=${FUZZ_TOOLCHAIN:-nightly}
SECONDS_DEFAULT=300
PROGRESS_SECONDS=30
INPUT_SECONDS_MAX=10
MEMORY_MIB_MAX=2048

ROWS=()
CRASHED=0
RUNNING=

trap '[[ -z $RUNNING ]] || kill "$RUNNING" 2>/dev/null || true' EXIT

give_up() {
    echo "fuzz: $*" >&2
    exit 2
}

names_of_all() { sed -n 's/^name = "\(.*\)"$/\1/p' "$PACKAGE/Cargo.toml" | tail -n +2 | tr '\n' ' '; }

expect_tools() {
    cargo "+$TOOLCHAIN" --version >/dev/null 2>&1 ||
        give_up "no toolchain '$TOOLCHAIN': rustup toolchain install $TOOLCHAIN, or name another in FUZZ_TOOLCHAIN"
    cargo fuzz --version >/dev/null 2>&1 || give_up "no cargo-fuzz: cargo install cargo-fuzz --locked"
}

# No sanitizer: what the targets reach holds no unsafe code, and every assertion is on. That is several times faster.
build() {
    local name=$1
    (cd "$ROOT" && cargo "+$TOOLCHAIN" fuzz build --fuzz-dir "$PACKAGE" --target-dir "$WORK/build" --sanitizer none "$name")
}

program() { echo "$WORK/build/$(rustc "+$TOOLCHAIN" -vV | sed -n 's/^host: //p')/release/$1"; }

# fuzz NAME: runs it for $SECONDS_EACH and adds its row to the table.
fuzz() {
    local name=$1 found=$WORK/corpus/$1 artifacts=$WORK/artifacts/$1 log=$WORK/$1.log
    rm -rf "$artifacts"
    mkdir -p "$found" "$artifacts"
    printf '\n-- %s, for %s s\n' "$name" "$SECONDS_EACH"
    nice "$(program "$name")" "$found" "$PACKAGE/corpus/$name" -max_total_time="$SECONDS_EACH" -print_final_stats=1 \
        -timeout="$INPUT_SECONDS_MAX" -rss_limit_mb="$MEMORY_MIB_MAX" -artifact_prefix="$artifacts/" >"$log" 2>&1 &
    RUNNING=$!
    watch_progress "$log" &
    wait "$RUNNING" || true
    RUNNING=
    wait
    add_row "$name" "$log" "$artifacts"
}

# The last figures, now and then, until the fuzzer has ended.
watch_progress() {
    local waited=0
    while kill -0 "$RUNNING" 2>/dev/null; do
        sleep 1
        waited=$((waited + 1))
        ((waited % PROGRESS_SECONDS != 0)) || figures "$1"
    done
}

figures() { grep -E '^#[0-9]+.* cov: ' "$1" | tail -n 1 | cut -c 1-100 || true; }

figure() { figures "$2" | sed -nE "s/.* $1: ([0-9]+).*/\1/p"; }

statistic() { sed -nE "s/^stat::$1: +//p" "$2"; }

add_row() {
    local name=$1 log=$2 artifacts=$3 crashes corpus
    crashes=$(find "$artifacts" -type f | wc -l)
    corpus=$(figures "$log" | sed -nE 's|.* corp: ([0-9]+/[0-9A-Za-z]+).*|\1|p')
    ROWS+=("$(printf '%-12s %12s %9s %7s %7s %14s %8s' "$name" "$(statistic number_of_executed_units "$log")" \
        "$(statistic average_exec_per_sec "$log")" "$(figure cov "$log")" "$(figure ft "$log")" "$corpus" "$crashes")")
    if ((crashes > 0)) || ! grep -q '^Done ' "$log"; then
        CRASHED=$((CRASHED + 1))
        echo "FAILED: the end of $log"
        tail -n 25 "$log" | cut -c 1-200
        find "$artifacts" -type f -printf 'input: %p\n'
    fi
}

SECONDS_EACH=$SECONDS_DEFAULT
if [[ ${1:-} == --seconds ]]; then
    [[ ${2:-} =~ ^[1-9][0-9]*$ ]] || give_up "--seconds wants a number"
    SECONDS_EACH=$2
    shift 2
fi
read -r -a ALL <<<"$(names_of_all)"
for name in "$@"; do
    [[ -f $PACKAGE/fuzz_targets/$name.rs ]] || give_up "no target is called '$name'; there are: ${ALL[*]}"
done
[[ $# -gt 0 ]] || set -- "${ALL[@]}"
expect_tools
for name in "$@"; do
    build "$name"
done
for name in "$@"; do
    fuzz "$name"
done

printf '\n%-12s %12s %9s %7s %7s %14s %8s\n' target executions exec/s cov ft corpus crashes
printf '%s\n' "${ROWS[@]}"
exit $((CRASHED > 0))

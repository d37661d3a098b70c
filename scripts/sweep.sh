#!/usr/bin/env bash
# Runs the simulation of the worker over many seeds and says how far it is. The first seed that fails ends it, with the
# command that replays it.
# Usage: scripts/sweep.sh [--seeds N] [--first N] [--steps N] [--threads N]
#        1,000,000 seeds from 0 on, of 5,000 steps each, on every processor, unless given otherwise
set -euo pipefail
cd "$(dirname "$0")/.."

export SIM_SEEDS=1000000 SIM_FIRST=0 SIM_PROGRESS=1 RUST_BACKTRACE=0

usage() {
    sed -n 's/^# //; 2,5p' "$0" >&2
    exit 2
}

while [[ $# -gt 0 ]]; do
    [[ ${2:-} =~ ^[0-9]+$ ]] || usage
    case $1 in
        --seeds) SIM_SEEDS=$2 ;;
        --first) SIM_FIRST=$2 ;;
        --steps) export SIM_STEPS=$2 ;;
        --threads) export SIM_THREADS=$2 ;;
        *) usage ;;
    esac
    shift 2
done

exec cargo test --locked --quiet --test sim -- --nocapture --exact sweep::a_sweep_over_seeds_finds_nothing_and_reaches_everything

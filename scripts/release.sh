#!/usr/bin/env bash
# Builds the program as it is shipped, and beside it its line tables: l4lb and l4lb.debug, in the folder that is named.
# gdb and perf find the second by the first where they lie in one folder, or under /usr/lib/debug.
# Usage: scripts/release.sh FOLDER
set -euo pipefail

[[ $# == 1 ]] || { sed -n 's/^# //; 2,4p' "$0" >&2 && exit 2; }
mkdir -p "$1"
FOLDER=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
cargo build --profile lines --locked
BUILT=${CARGO_TARGET_DIR:-target}/lines/l4lb
objcopy --only-keep-debug --compress-debug-sections "$BUILT" "$FOLDER/l4lb.debug"
objcopy --strip-debug "$BUILT" "$FOLDER/l4lb"
(cd "$FOLDER" && objcopy --add-gnu-debuglink=l4lb.debug l4lb)
ls -l "$FOLDER/l4lb" "$FOLDER/l4lb.debug"

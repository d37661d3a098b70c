#!/usr/bin/env bash
# The release is small, has the names of its functions, and says which commit it is built from: in a clone, in a work
# tree and from a package; without one in any other folder. It is built anew when HEAD moves, and only then.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

# rustls with its cryptography, for checks over TLS, is about a sixth of it; the client of etcd, the translation of other
# configurations and the printed one are a tenth.
BYTES_MAX=14900000

# What build.rs says in the folder $1 of a crate, as cargo would run it for the profile $2.
said() { (cd "$1" && env -u GIT_DIR PROFILE="$2" CARGO_PKG_VERSION=1.2.3 CARGO_MANIFEST_DIR="$1" "$WORK/build-script"); }

version() { said "$@" | sed -n 's/^cargo:rustc-env=L4LB_VERSION=//p'; }

# The files whose change has it run again, with their sums.
watched() { said "$1" release | sed -n 's/^cargo:rerun-if-changed=//p' | (cd "$1" && xargs sha1sum); }

git_in() { git -C "$1" -c user.name=l4lb -c user.email=l4lb@localhost "${@:2}" >/dev/null 2>&1; }

make_crate() {
    mkdir -p "$1"
    cp "$ROOT/build.rs" "$1/"
}

check_build_script() {
    local clone=$WORK/clone head before
    rustc --edition 2024 -o "$WORK/build-script" "$ROOT/build.rs"
    make_crate "$WORK/nowhere"
    expect "outside git" "$(version "$WORK/nowhere" release)" = 1.2.3
    make_crate "$clone"
    git_in "$clone" init
    git_in "$clone" add build.rs
    git_in "$clone" commit -m one
    head=$(git -C "$clone" rev-parse --short=12 HEAD)
    expect "in a clone" "$(version "$clone" release)" = "1.2.3 ($head)"
    expect "of a debug build" "$(version "$clone" debug)" = 1.2.3
    make_crate "$clone/inner"
    expect "in a folder of another repository" "$(version "$clone/inner" release)" = 1.2.3
    git_in "$clone" worktree add "$WORK/tree"
    expect "in a work tree" "$(version "$WORK/tree" release)" = "1.2.3 ($head)"
    before=$(watched "$clone")
    echo other >"$clone/other"
    git_in "$clone" add other
    expect "what is looked at, before a commit" "$(watched "$clone")" = "$before"
    git_in "$clone" commit -m two
    expect "what is looked at, behind a commit" "$(watched "$clone")" != "$before"
    expect "behind a commit" "$(version "$clone" release)" = "1.2.3 ($(git -C "$clone" rev-parse --short=12 HEAD))"
    make_crate "$WORK/package"
    echo '{ "git": { "sha1": "0123456789abcdef0123456789abcdef01234567" }, "path_in_vcs": "" }' \
        >"$WORK/package/.cargo_vcs_info.json"
    expect "from a package" "$(version "$WORK/package" release)" = "1.2.3 (0123456789ab)"
    pass "build.rs names the commit wherever there is one"
}

check_program() {
    local bytes
    bytes=$(stat -c %s "$L4LB")
    expect_at_most "bytes of the program" "$bytes" "$BYTES_MAX"
    [[ $("$L4LB" --version) =~ ^l4lb\ [0-9.]+\ \([0-9a-f]{12}\)$ ]] ||
        [[ ! -e $ROOT/.git ]] || fail "the program does not name its commit: $("$L4LB" --version)"
    # Read to its end, so that nm never writes to a closed pipe.
    expect "functions with a name" "$(nm "$L4LB" | grep -c ' [tT] ')" -gt 1000
    pass "$("$L4LB" --version): $bytes bytes, with the names of its functions"
}

require git nm rustc
build
check_build_script
check_program

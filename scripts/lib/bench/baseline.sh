# shellcheck shell=bash
# Another build of ringside, to be measured in turns with ours. Sourced by scripts/bench.sh.

BASELINE_PROGRAM='' BASELINE_NAME='' BASELINE_COMMIT=''

# baseline_build REVISION|PATH: a revision is built below .build/baseline, once.
baseline_build() {
    local commit place
    if [ -f "$1" ] && [ -x "$1" ]; then
        BASELINE_PROGRAM=$(realpath "$1")
        BASELINE_NAME=$1
        return
    fi
    commit=$(git rev-parse --verify --quiet "$1^{commit}") || die "--baseline $1: neither a program nor a revision"
    BASELINE_NAME=$(git describe --always "$commit")
    # shellcheck disable=SC2034 # for spdk.sh
    BASELINE_COMMIT=$commit
    place=$PWD/.build/baseline/$commit
    BASELINE_PROGRAM=$place/ringside
    [ ! -x "$BASELINE_PROGRAM" ] || return 0
    say "building the baseline, $BASELINE_NAME"
    rm -rf "$place"
    mkdir -p "$place/source"
    git archive "$commit" | tar -x -m -C "$place/source"
    (cd "$place/source" && CARGO_TARGET_DIR=$place/../build cargo build --quiet --release -p ringside)
    cp "$place/../build/release/ringside" "$BASELINE_PROGRAM"
}

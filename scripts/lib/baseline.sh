# shellcheck shell=bash
# Ours against another build of ringside, in turns: sourced by scripts/bench.sh, whose settings and functions it uses.
#
# A window of ours and one of the baseline make a pair, within the same seconds. The figure is the ratio of the medians; its
# 95 % interval is that of a bootstrap that draws whole pairs. A pair counts for a class of core distance if both of its
# windows are of that class, and always for `all`.

readonly BASELINE_PAIRS=5 BASELINE_DRAWS=2000

# baseline_binary REVISION|PATH: sets BASELINE_BINARY; a revision is built below .build/baseline, once.
baseline_binary() {
    local commit place
    if [ -f "$1" ] && [ -x "$1" ]; then
        BASELINE_BINARY=$(realpath "$1")
        return
    fi
    commit=$(git rev-parse --verify --quiet "$1^{commit}") || die "'$1' is neither a program nor a revision"
    place=$PWD/.build/baseline/$commit
    BASELINE_BINARY=$place/ringside
    [ ! -x "$BASELINE_BINARY" ] || return 0
    say "building the baseline, $(git describe --always "$commit")"
    rm -rf "$place"
    mkdir -p "$place/source"
    git archive "$commit" | tar -x -m -C "$place/source"
    (cd "$place/source" && CARGO_TARGET_DIR=$PWD/../../build cargo build --quiet --release -p ringside)
    cp "$place/../build/release/ringside" "$BASELINE_BINARY"
}

baseline_summary() {
    say ''
    printf '%-36s %-6s %6s %8s   %s\n' case cores pairs ratio "95 % interval (ours / baseline)"
    local case class
    for case in "${CASES[@]}"; do
        for class in near mixed far all; do
            ratio_of_pairs ringside baseline "${case%%|*}" $class <"$OUT/windows"
        done
    done
}

# ratio_of_pairs OURS THEIRS CASE CLASS <WINDOWS: a line of the table, or nothing if there is no pair. Few pairs have no interval.
ratio_of_pairs() {
    awk -F'|' -v us="$1" -v them="$2" -v name="$3" -v class="$4" -v least=$BASELINE_PAIRS -v draws=$BASELINE_DRAWS '
        function sort(v, n,    i, j, x) {
            for (i = 2; i <= n; i++) { x = v[i]; for (j = i - 1; j > 0 && v[j] > x; j--) v[j + 1] = v[j]; v[j + 1] = x }
        }
        function median(v, n) { sort(v, n); return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2 }
        function ratio_of_medians(draw,    i, k, a, b) {
            for (i = 1; i <= n; i++) { k = draw ? int(rand() * n) + 1 : i; a[i] = ours[k]; b[i] = theirs[k] }
            return median(a, n) / median(b, n)
        }
        $2 == name && ($1 == us || $1 == them) { iops[$1, $7] = $4 + 0; of[$1, $7] = $3; rounds[$7] = 1 }
        END {
            for (r in rounds) {
                if (!((us, r) in iops) || !(iops[them, r] > 0)) continue
                if (class != "all" && (of[us, r] != class || of[them, r] != class)) continue
                n++; ours[n] = iops[us, r]; theirs[n] = iops[them, r]
            }
            if (!n) exit
            printf "%-36s %-6s %6d %8.3f   ", name, class, n, ratio_of_medians(0)
            if (n < least) { printf "- (fewer than %d pairs)\n", least; exit }
            srand(1)
            for (d = 1; d <= draws; d++) drawn[d] = ratio_of_medians(1)
            sort(drawn, draws)
            printf "%.3f to %.3f\n", drawn[int(draws * 0.025) + 1], drawn[int(draws * 0.975)]
        }'
}

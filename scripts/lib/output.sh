# shellcheck shell=bash
# What every script here says and how: one line per fact, problems collected and repeated at the end.
# Not here: what the scripts do. Sourced, never run.

PROBLEMS=()

say() { printf '%s\n' "$*"; }

# warn TEXT: something is not as it could be, but the script goes on and may still succeed.
warn() { printf 'warning: %s\n' "$*" >&2; }

# die TEXT…: the script cannot go on; every further argument is a line that helps.
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
    exit 1
}

# problem TEXT: this part cannot be done; the others are still tried, and `finish` names all of them.
problem() {
    printf 'error: %s\n' "$*" >&2
    PROBLEMS+=("$*")
}

# finish NAME: exit status 1 and the list of problems if there were any.
finish() {
    [ ${#PROBLEMS[@]} -gt 0 ] || return 0
    printf '\n%s: could not be done:\n' "$1" >&2
    printf '  - %s\n' "${PROBLEMS[@]}" >&2
    exit 1
}

# usage FILE: the comment block at the top of a script is its help text.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p;}' "$1"; }

# shellcheck shell=bash
# Installing Debian packages: only what is missing, never removing or upgrading what is there.
# Not here: which packages (setup.sh knows). Sourced after output.sh, never run.

APT_UPDATED=no

# as_root COMMAND…: runs it directly or through sudo; status 1 when neither is possible.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        sudo "$@"
    else
        return 1
    fi
}

# can_be_root: whether as_root has a way at all.
can_be_root() { as_root true; }

# packages_missing PACKAGE…: those that are not installed, one a line.
packages_missing() {
    local package
    declare -A installed=()
    while read -r package; do
        installed[$package]=yes
    done < <(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^.i  *//p')
    for package in "$@"; do
        [ -n "${installed[$package]:-}" ] || printf '%s\n' "$package"
    done
}

# apt ARGUMENTS…: apt-get as root, unattended, waiting for a lock that another apt holds.
apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
        -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 "$@"
}

# apt_update_once: fetches the package lists the first time it is called in a run.
apt_update_once() {
    [ "$APT_UPDATED" = no ] || return 0
    say "fetching the package lists"
    apt update >/dev/null || return 1
    APT_UPDATED=yes
}

# apt_add PACKAGE…: installs without recommended packages; refuses a solution that would remove something.
# Lists that are absent or too old are fetched once, then it is tried again.
apt_add() {
    apt install --no-install-recommends --no-remove "$@" && return 0
    [ "$APT_UPDATED" = no ] || return 1
    apt_update_once && apt install --no-install-recommends --no-remove "$@"
}

# apt_add_stopped PACKAGE…: the same, and services that come with the packages are not started now (invoke-rc.d asks policy-rc.d).
apt_add_stopped() (
    policy=/usr/sbin/policy-rc.d
    if ! [ -e $policy ]; then
        trap 'as_root rm -f $policy' EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
        as_root chmod 755 $policy
    fi
    apt_add "$@"
)

# apt_candidate PACKAGE: the version that apt would install, empty when it knows none.
apt_candidate() {
    apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: //p' | grep -v '^(none)$' || true
}

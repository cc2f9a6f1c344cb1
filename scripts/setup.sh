#!/usr/bin/env bash
# Prepares this machine for ringside: installs what is missing, leaves alone what is there.
#
#   scripts/setup.sh [--only GROUP[,GROUP…]] [--hugepages PAGES]
#
#   build       C compiler and linker for Rust crates, pkg-config
#   dpdk        DPDK with its drivers and test programs, and what its bindings are generated with
#   guest       QEMU, and a small Linux guest under .build/guest that tests and qemu-guest.sh boot
#   hugepages   free 2 MiB pages and a hugetlbfs mount, for malloc bdevs and guest memory
#   bench       valgrind, which counts the instructions of one command
#   dashboards  Prometheus with promtool (its service stays off), and for Python, under .build/dashboards, Grafana's types and
#               Prometheus' own parsers
#   spdk-client SPDK's own RPC client from PyPI, under .build/spdk-client, for the tests of test.sh --with-spdk; only by name
#   lint        shellcheck, for the scripts themselves
#
# All groups but spdk-client when none is named. --hugepages: at least so many pages free (default 512 = 1 GiB, but no more than
# an eighth of memory); the number of pages is never lowered. Needs root or sudo only when something is missing.
# Made for Debian 12 and later on x86-64. Not here: Rust itself (rustup.rs) and building ringside (cargo).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/output.sh
. scripts/lib/output.sh
# shellcheck source=scripts/lib/apt.sh
. scripts/lib/apt.sh

# From this QEMU on, vhost-user-scsi comes back after a target restart and offers the inflight region.
readonly QEMU_WANTED='1:8.2'
readonly BUILD_PACKAGES=(gcc libc6-dev pkg-config)
# 22.11 or newer is needed: Debian 12, Ubuntu 24.04. The drivers come with the development files.
readonly DPDK_PACKAGES=(clang dpdk-dev libclang-dev libdpdk-dev pkg-config)
# Into the guest go e2fsprogs ethtool fio iperf3 libiscsi-bin sg3-utils xfsprogs, onto disks that firmware boots grub (with
# mtools). The host is the other end of the guest's network: ethtool iperf3 iproute2 iputils-ping.
readonly GUEST_PACKAGES=(cpio e2fsprogs ethtool fio grub-common grub-efi-amd64-bin grub-pc-bin iperf3 iproute2 iputils-ping
    kmod libiscsi-bin lz4 mtools ovmf sg3-utils xfsprogs xz-utils zstd)
readonly BENCH_PACKAGES=(valgrind)
readonly DASHBOARD_PACKAGES=(prometheus python3 python3-venv)
readonly LINT_PACKAGES=(shellcheck)
readonly PAGES_DIR=/sys/kernel/mm/hugepages/hugepages-2048kB
readonly LOG=.build/setup.log

main() {
    local groups=build,dpdk,guest,hugepages,bench,dashboards,lint pages='' group
    while [ $# -gt 0 ]; do
        case $1 in
        --only) groups=${2:?--only needs a group} && shift 2 ;;
        --hugepages) pages=${2:?--hugepages needs a number} && shift 2 ;;
        -h | --help) usage "$0" && exit 0 ;;
        *) die "unknown argument '$1'" "see scripts/setup.sh --help" ;;
        esac
    done
    [[ $pages =~ ^[0-9]*$ ]] || die "--hugepages: '$pages' is not a number of pages"
    mkdir -p .build
    : >"$LOG"
    for group in ${groups//,/ }; do
        case $group in
        build) group_build ;;
        dpdk) group_dpdk ;;
        guest) group_guest ;;
        hugepages) group_hugepages "$pages" ;;
        bench) install_group bench "${BENCH_PACKAGES[@]}" || true ;;
        dashboards) group_dashboards ;;
        spdk-client) python_packages spdk-client scripts/spdk-client.txt || true ;;
        lint) install_group lint "${LINT_PACKAGES[@]}" || true ;;
        *) die "--only: no group '$group'" "groups: build dpdk guest hugepages bench dashboards spdk-client lint" ;;
        esac
    done
    finish setup
}

# install_group GROUP PACKAGE…: says what it installs, and starts no service of it; notes a problem and returns 1 when it cannot.
install_group() {
    local group=$1 missing
    shift
    mapfile -t missing < <(packages_missing "$@")
    if [ ${#missing[@]} -eq 0 ]; then
        say "$group: all packages are there"
        return 0
    fi
    say "$group: installing ${missing[*]}"
    if ! can_be_root; then
        problem "$group: no root and no sudo. As root: apt-get install --no-install-recommends ${missing[*]}"
        return 1
    fi
    if ! apt_add_stopped "${missing[@]}" >>"$LOG" 2>&1; then
        apt_complaint
        problem "$group: apt-get could not install ${missing[*]} (see $LOG)"
        return 1
    fi
}

# apt_complaint: the last words of apt, which say why.
apt_complaint() { grep -E '^[EW]:|unmet|Depends|not going to be' "$LOG" | tail -n 8 >&2 || true; }

group_build() {
    install_group build "${BUILD_PACKAGES[@]}" || true
    if ! command -v cargo >/dev/null; then
        problem "build: no cargo in PATH; install Rust with rustup (rust-toolchain.toml names the version)"
    fi
}

group_dpdk() {
    install_group dpdk "${DPDK_PACKAGES[@]}" || return 0
    pkg-config --atleast-version=22.11 libdpdk ||
        problem "dpdk: version $(pkg-config --modversion libdpdk), must be at least 22.11; cargo build --no-default-features does without it"
}

group_guest() {
    install_qemu || true
    install_group guest "${GUEST_PACKAGES[@]}" || return 0
    local kernel
    for kernel in linux-image-cloud-amd64 linux-image-6.12-cloud-amd64; do # they are fetched by name
        [ -e .build/guest/manifest ] || [ -n "$(apt_candidate $kernel)" ] || apt_update_once >>"$LOG" 2>&1 || true
    done
    scripts/guest/build.sh --with-fio --with-net .build/guest || problem "guest: the image could not be built, see above"
}

# install_qemu: the distribution's QEMU if it is new enough, else the one from backports, else the old one.
install_qemu() {
    local candidate
    if command -v qemu-system-x86_64 >/dev/null; then
        say "guest: $(qemu-system-x86_64 --version | head -n 1)"
        return 0
    fi
    if ! can_be_root; then
        problem "guest: no root and no sudo. As root: apt-get install --no-install-recommends qemu-system-x86"
        return 1
    fi
    candidate=$(apt_candidate qemu-system-x86)
    if [ -z "$candidate" ]; then
        apt_update_once >>"$LOG" 2>&1 || true
        candidate=$(apt_candidate qemu-system-x86)
    fi
    if ! dpkg --compare-versions "${candidate:-0}" ge "$QEMU_WANTED" && qemu_from_backports >>"$LOG" 2>&1; then
        say "guest: installed $(qemu-system-x86_64 --version | head -n 1), from backports"
    elif [ -n "$candidate" ] && apt_add qemu-system-x86 >>"$LOG" 2>&1; then
        say "guest: installed $(qemu-system-x86_64 --version | head -n 1)"
        dpkg --compare-versions "$candidate" ge "$QEMU_WANTED" ||
            warn "this QEMU does not reconnect vhost-user-scsi: a target restart ends its guest's disks"
    else
        apt_complaint
        problem "guest: apt-get could not install qemu-system-x86 (see $LOG)"
        return 1
    fi
}

# qemu_from_backports: the suite is named in a private copy of the package sources, so that this machine's own
# sources stay as they are. A qemu-utils from backports that is already here would be removed by the older QEMU.
qemu_from_backports() (
    suite=$(. /etc/os-release && printf '%s-backports' "$VERSION_CODENAME")
    # shellcheck disable=SC2016 # the $(…) are apt's own fields
    uri=$(apt-get indextargets --format '$(LABEL) $(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        sed -n "s/^Debian ${suite%-backports} main //p" | head -n 1)
    [ -n "$uri" ] || return 1
    private=$(mktemp -d)
    # apt leaves files of root behind; the directory is ours
    trap 'as_root rm -rf "$private"' EXIT
    chmod 755 "$private"
    mkdir -p "$private/parts" "$private/lists/partial"
    cat /etc/apt/sources.list >"$private/sources.list" 2>/dev/null || true
    cp /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources "$private/parts" 2>/dev/null || true
    find /var/lib/apt/lists -maxdepth 1 -type f -size +0 -exec cp -t "$private/lists" {} +
    {
        printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n' "$uri" "$suite"
        keyring=/usr/share/keyrings/debian-archive-keyring.gpg
        [ ! -r $keyring ] || printf 'Signed-By: %s\n' $keyring
    } >"$private/parts/ringside-backports.sources"
    options=(-o "Dir::Etc::sourcelist=$private/sources.list" -o "Dir::Etc::sourceparts=$private/parts"
        -o "Dir::State::lists=$private/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=)
    apt "${options[@]}" update &&
        apt "${options[@]}" install --no-install-recommends --no-remove \
            qemu-system-x86/"$suite" qemu-system-common/"$suite" qemu-system-data/"$suite" seabios/"$suite"
)

# group_dashboards: what checks dashboards/ and its rules.
group_dashboards() {
    local absent=no
    command -v prometheus >/dev/null || absent=yes
    install_group dashboards "${DASHBOARD_PACKAGES[@]}" || return 0
    if [ $absent = yes ] && command -v systemctl >/dev/null; then
        as_root systemctl disable prometheus.service >>"$LOG" 2>&1 || true
    fi
    python_packages dashboards dashboards/requirements.txt
}

# python_packages GROUP WANTED: packages from PyPI by their hashes, in .build/GROUP and nowhere else.
python_packages() {
    local group=$1 wanted=$2 there=.build/$1
    if cmp -s "$wanted" "$there/requirements.txt"; then
        say "$group: $(package_names "$wanted") are there"
        return 0
    fi
    say "$group: installing $(package_names "$wanted") into $there"
    if python3 -m venv --clear "$there" >>"$LOG" 2>&1 &&
        "$there/bin/pip" install --quiet --require-hashes -r "$wanted" >>"$LOG" 2>&1; then
        cp "$wanted" "$there/requirements.txt"
    else
        problem "$group: pip could not install $wanted (see $LOG)"
    fi
}

package_names() {
    sed -n 's/^\([a-z-]*\)==.*/\1/p' "$1" | xargs
}

# group_hugepages PAGES: never an error, because ringside falls back to plain memory.
group_hugepages() {
    local wanted=$1 memory_kib free total raised
    memory_kib=$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)
    if [ -z "$wanted" ]; then
        wanted=$((memory_kib / 8 / 2048))
        wanted=$((wanted < 512 ? wanted : 512))
    fi
    if [ ! -d $PAGES_DIR ]; then
        warn "hugepages: this kernel has no 2 MiB pages; ringside falls back to plain memory"
        return 0
    fi
    free=$(<$PAGES_DIR/free_hugepages)
    total=$(<$PAGES_DIR/nr_hugepages)
    if [ "$free" -lt "$wanted" ]; then
        raised=$((total + wanted - free))
        [ $raised -le $((memory_kib / 2 / 2048)) ] || raised=$((memory_kib / 2 / 2048)) # half is for everything else
        [ $raised -gt "$total" ] || raised=$total
        printf '%s' "$raised" | as_root tee $PAGES_DIR/nr_hugepages >/dev/null 2>&1 || true
        free=$(<$PAGES_DIR/free_hugepages)
        if [ "$free" -lt "$wanted" ] && can_be_root; then # memory in pieces: compact it, ask once more
            printf 1 | as_root tee /proc/sys/vm/compact_memory >/dev/null 2>&1 || true
            printf '%s' "$raised" | as_root tee $PAGES_DIR/nr_hugepages >/dev/null 2>&1 || true
            free=$(<$PAGES_DIR/free_hugepages)
        fi
    fi
    if [ "$free" -ge "$wanted" ]; then
        say "hugepages: $free of $(<$PAGES_DIR/nr_hugepages) pages of 2 MiB are free ($wanted wanted)"
    else
        warn "hugepages: $free pages of 2 MiB are free, $wanted wanted. ringside falls back to plain memory."
        printf '         As root: echo %s > %s/nr_hugepages\n' "$raised" $PAGES_DIR >&2
        printf '         To keep it over a restart: vm.nr_hugepages = %s in /etc/sysctl.d/ringside.conf\n' "$raised" >&2
    fi
    mount_hugetlbfs
}

mount_hugetlbfs() {
    if grep -q '^[^ ]* [^ ]* hugetlbfs ' /proc/mounts; then
        say "hugepages: hugetlbfs is mounted on $(sed -n 's/^[^ ]* \([^ ]*\) hugetlbfs .*/\1/p' /proc/mounts | head -n 1)"
    elif as_root mkdir -p /dev/hugepages 2>/dev/null &&
        as_root mount -t hugetlbfs -o pagesize=2M hugetlbfs /dev/hugepages 2>/dev/null; then
        say "hugepages: mounted hugetlbfs on /dev/hugepages"
    else
        warn "hugepages: hugetlbfs is not mounted (only file-backed guest memory needs it)."
        printf '         As root: mkdir -p /dev/hugepages && mount -t hugetlbfs hugetlbfs /dev/hugepages\n' >&2
    fi
}

main "$@"

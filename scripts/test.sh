#!/usr/bin/env bash
# The whole suite: sets the machine up, checks the sources, runs every test. What CI runs.
#
#   scripts/test.sh [--fast] [--no-setup] [--with-spdk PREFIX]
#
#   --fast       without the tests that boot a guest (their names contain `real_guest`)
#   --no-setup   do not install anything; what is missing is skipped or fails by its own message
#   --with-spdk PREFIX
#                the tests of SPDK's bdevs, too, with the SPDK that was installed there. The libdpdk.pc of the DPDK that it
#                was built with has to be found: PKG_CONFIG_PATH, and LD_LIBRARY_PATH where its libraries are not installed.
#                NVMF_TGT names its NVMe-oF target where that is neither in PREFIX/bin nor in PATH, SPDK_RPC its scripts/rpc.py:
#                the client of PyPI, which is used otherwise, is too new for some of the tests before SPDK 26.05
#
# Cheap checks first, the tests last, so that the output ends with the test runner's own summary. The first stage
# that fails ends the run. Runs cargo nextest where it is installed, else cargo test.
# For the tests: GUEST_DIR is where the guest image is built, REAL_GUESTS is `on` or `off`.
# Not here: measurements of time (bench.sh) and what a single test does.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/output.sh
. scripts/lib/output.sh

SKIPPED=() STAGE='' SPDK_PREFIX=''

main() {
    local fast=no setup=yes
    while [ $# -gt 0 ]; do
        case $1 in
        --fast) fast=yes ;;
        --no-setup) setup=no ;;
        --with-spdk)
            SPDK_PREFIX=${2:?a folder has to follow --with-spdk}
            shift
            ;;
        -h | --help) usage "$0" && exit 0 ;;
        *) die "unknown argument '$1'" "see scripts/test.sh --help" ;;
        esac
        shift
    done
    export GUEST_DIR=${GUEST_DIR:-$PWD/.build/guest} REAL_GUESTS=on
    export RUST_BACKTRACE=1 CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}
    trap name_failed_stage EXIT

    [ $setup = no ] || stage setup setup_machine $fast
    command -v cargo >/dev/null || die "no cargo in PATH" "install Rust with rustup; rust-toolchain.toml names the version"
    stage scripts check_scripts
    stage format cargo fmt --all --check
    stage clippy cargo clippy --quiet --workspace --all-targets -- -D warnings
    stage 'without DPDK' cargo check --quiet --workspace --no-default-features --all-targets
    stage documentation env RUSTDOCFLAGS='-D warnings' cargo doc --quiet --workspace --no-deps
    stage loom model
    stage doctests cargo test --quiet --profile ci --workspace --doc
    stage cost check_cost
    select_guests $fast
    select_networks
    select_testpmd
    select_dashboards
    select_spdk
    report_skipped
    [ -z "$SPDK_PREFIX" ] || stage SPDK test_spdk
    stage tests run_tests
}

# name_failed_stage: unless it is the tests, whose runner says more.
name_failed_stage() {
    [ $? -eq 0 ] || [ "$STAGE" = tests ] || printf '\nerror: stage "%s" failed\n' "$STAGE" >&2
}

# stage NAME COMMAND…: a header, the command, how long it took.
stage() {
    local started=$EPOCHREALTIME
    STAGE=$1
    shift
    printf '\n== %s ==\n' "$STAGE"
    "$@"
    # the last stage ends with its own words
    [ "$STAGE" = tests ] || printf '== %s: %s s ==\n' "$STAGE" "$(elapsed "$started")"
}

elapsed() {
    local microseconds=$((${EPOCHREALTIME/./} - ${1/./}))
    printf '%d.%d' $((microseconds / 1000000)) $((microseconds / 100000 % 10))
}

skip() {
    warn "SKIPPED: $*"
    SKIPPED+=("$*")
}

report_skipped() {
    [ ${#SKIPPED[@]} -eq 0 ] || printf '\nSKIPPED: %s\n' "${SKIPPED[@]}"
}

setup_machine() {
    local groups=build,dpdk,hugepages,bench,dashboards,lint
    [ "$1" = yes ] || groups+=,guest
    [ -z "$SPDK_PREFIX" ] || groups+=,spdk-client
    scripts/setup.sh --only "$groups"
}

check_scripts() {
    if ! command -v shellcheck >/dev/null; then
        skip "shellcheck of the scripts: not installed"
        return 0
    fi
    shellcheck -x scripts/*.sh scripts/lib/*.sh scripts/lib/bench/*.sh scripts/guest/*.sh tests/guest/*.sh
    shellcheck -s dash scripts/guest/init
}

# check_cost: instructions a request against the committed baseline, in the release profile.
check_cost() {
    if ! command -v valgrind >/dev/null; then
        skip "instructions a request: no valgrind (scripts/setup.sh --only bench)"
        return 0
    fi
    scripts/cost.sh --check
}

# model: every interleaving of a poller's sleep with its wakers, of a task management function's fence with its shards, and of
# a switch's senders with receivers that close. Compiled differently, hence its own directory.
model() {
    env RUSTFLAGS='--cfg loom' CARGO_TARGET_DIR=.build/loom cargo test --quiet --profile ci -p reactor -p virtio-scsi -p port --lib model
}

# select_guests FAST: whether tests boot guests; their absence is never silent.
select_guests() {
    if [ "$1" = yes ]; then
        REAL_GUESTS=off
        skip "tests named *real_guest*: --fast"
    elif ! command -v qemu-system-x86_64 >/dev/null; then
        REAL_GUESTS=off
        skip "tests named *real_guest*: no qemu-system-x86_64 (scripts/setup.sh --only guest)"
    else
        scripts/guest/build.sh --with-fio --with-net "$GUEST_DIR"
        name_missing_guests
    fi
}

# name_missing_guests: the kinds of guest that there are tests for and that this machine cannot have.
name_missing_guests() {
    local series file
    for series in 6.1 6.12; do
        [ -e "$GUEST_DIR/kernels/$series" ] ||
            skip "tests named *real_guest_with_linux_${series/./_}*: apt knows no such kernel"
    done
    for file in /usr/share/ovmf/OVMF.fd /usr/lib/grub/i386-pc/boot.img /usr/lib/grub/x86_64-efi/linux.mod; do
        [ -e $file ] || skip "tests named *real_guest_is_booted*: no $file (scripts/setup.sh --only guest)"
    done
}

# select_networks: tests of ports over interfaces of the kernel skip themselves; here it is said.
select_networks() {
    unshare --net true 2>/dev/null ||
        skip "tests in a network namespace of their own (*real_guest_net*, target/port-dpdk/tests/{tap,veth,xdp}.rs): it wants root"
}

# select_testpmd: tests with DPDK's driver skip themselves without it; here it is said.
select_testpmd() {
    command -v dpdk-testpmd >/dev/null ||
        skip "tests with testpmd (target/daemon/tests/testpmd.rs): no dpdk-testpmd (scripts/setup.sh --only dpdk)"
}

# select_dashboards: tests of dashboards and rules skip themselves without what checks them; here it is said.
select_dashboards() {
    if ! command -v prometheus >/dev/null || ! command -v promtool >/dev/null; then
        skip "tests with Prometheus (target/daemon/tests/dashboards): no prometheus or promtool (scripts/setup.sh --only dashboards)"
    fi
    [ -x .build/dashboards/bin/python ] ||
        skip "dashboards against Grafana's schema, and OpenMetrics against its parser (target/daemon/tests/{dashboards,process}): no .build/dashboards (scripts/setup.sh --only dashboards)"
}

# select_spdk: SPDK has no packages, so its tests are asked for; their absence is never silent.
select_spdk() {
    if [ -z "$SPDK_PREFIX" ]; then
        skip "tests with SPDK (bindings/spdk-*, target/bdev-spdk, target/daemon/tests/{process,real_guest}/spdk*): no --with-spdk PREFIX"
        return 0
    fi
    [ -e "$SPDK_PREFIX/lib/pkgconfig/spdk_event_bdev.pc" ] ||
        die "no SPDK in $SPDK_PREFIX" "build it with ./configure --prefix=$SPDK_PREFIX, then make && make install"
    export PATH=$SPDK_PREFIX/bin:$PATH
    [ -n "${NVMF_TGT:-}" ] || command -v nvmf_tgt >/dev/null ||
        skip "tests of NVMe-oF (target/daemon/tests/process/spdk/nvmf.rs): no nvmf_tgt in $SPDK_PREFIX/bin or PATH, and no NVMF_TGT"
}

# test_spdk: in a directory of its own, because everything is built against that DPDK. Each test starts SPDK, in a process of
# its own: that takes nextest.
test_spdk() {
    command -v cargo-nextest >/dev/null || die "no cargo nextest" "cargo install cargo-nextest"
    local features=ringside/spdk,bdev-spdk/libspdk,spdk-rs/libspdk,spdk-sys/libdpdk
    export CARGO_TARGET_DIR=$PWD/.build/spdk
    (
        export PKG_CONFIG_PATH=$SPDK_PREFIX/lib/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
        local packages=(-p spdk-sys -p spdk-rs -p spdk-lab -p bdev-spdk -p ringside --features "$features")
        cargo clippy --quiet "${packages[@]}" --all-targets -- -D warnings
        cargo nextest run --cargo-profile ci --config-file scripts/nextest.toml "${packages[@]}" \
            -E 'package(spdk-sys) + package(spdk-rs) + package(bdev-spdk) + test(spdk)'
    )
    unset CARGO_TARGET_DIR
}

run_tests() {
    local arguments=()
    if cargo nextest --version >/dev/null 2>&1; then
        arguments=(--workspace --cargo-profile ci --config-file scripts/nextest.toml)
        [ $REAL_GUESTS = on ] || arguments+=(-E 'not test(real_guest)')
        cargo nextest run "${arguments[@]}"
    else
        arguments=(--workspace --profile ci --lib --bins --tests)
        if [ $REAL_GUESTS = on ]; then
            cargo test "${arguments[@]}"
        else
            cargo test "${arguments[@]}" -- --skip real_guest
        fi
    fi
}

main "$@"

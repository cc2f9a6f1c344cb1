#!/usr/bin/env bash
# Builds the small Linux guest that the tests and qemu-guest.sh boot.
#
#   scripts/guest/build.sh [--with-fio] [--with-net] [--refresh] OUT_DIR
#
# Into OUT_DIR:
#   kernels/6.1/…  one folder for each kernel: vmlinuz (Debian's cloud kernel), vmlinux (the same, unpacked, for a
#                  quick PVH boot), modules.cpio (what a virtio guest needs of it). Besides the distribution's
#                  kernel, 6.12 where apt knows it
#   kernel         a link to the folder of the distribution's kernel
#   base.cpio      busybox, e2fsprogs, xfsprogs, sg3-utils, libiscsi's conformance tests, init and functions.sh
#   fio.cpio       when asked for: fio with its libraries
#   net.cpio       when asked for: iperf3 and ethtool with their libraries
# An initramfs is base.cpio, modules.cpio and what else is wanted, one after the other. Kernels and busybox are
# downloaded and unpacked, never installed. Archives are not compressed: an emulated CPU is slow to unpack.
# Built once: nothing is done while `manifest` names the same inputs. --refresh looks for newer packages.
# Not here: installing the tools this needs (setup.sh --only guest), booting (qemu-guest.sh), disks that firmware
# boots (boot-disk.sh).
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib/output.sh
. "$HERE/../lib/output.sh"

# The first is the guests' kernel, the others are built too where apt knows them.
readonly KERNEL_PACKAGES=(linux-image-cloud-amd64 linux-image-6.12-cloud-amd64)
# In order of loading: sd before virtio_scsi, so that a disk is there when insmod virtio_scsi returns.
readonly MODULES=(virtio_pci scsi_mod sd_mod sg ext4 virtio_scsi)
# There for a script that asks for them (`load` in functions.sh).
readonly LATER_MODULES=(xfs virtio_net)
readonly BASE_TOOLS=(mkfs.ext4 fsck.ext4 e2fsck dumpe2fs tune2fs mkfs.xfs xfs_repair iscsi-test-cu
    sg_inq sg_vpd sg_luns sg_readcap sg_reset sg_turs sg_requests sg_opcodes sg_modes sg_dd sg_raw sg_persist
    sg_sync sg_unmap sg_write_same sg_get_lba_status sg_logs sg_verify sg_compare_and_write sg_wr_mode sg_prevent
    sginfo)
readonly BASE_PACKAGES=(e2fsprogs xfsprogs libiscsi-bin libiscsi7 sg3-utils libsgutils2-1.46-2 libsgutils2-2 libc6)
# Archives that are built when asked for, and the programs in them (extra_tools).
readonly EXTRAS=(fio net)
# shellcheck disable=SC2034 # used by name
readonly FIO_TOOLS=(fio) NET_TOOLS=(iperf3 ethtool)
readonly EXTRA_PACKAGES=(fio iperf3 libiperf0 ethtool)

main() {
    local refresh=no out='' extra
    WANTED=()
    while [ $# -gt 0 ]; do
        case $1 in
        --with-fio) WANTED+=(fio) ;;
        --with-net) WANTED+=(net) ;;
        --refresh) refresh=yes ;;
        -h | --help) usage "$0" && exit 0 ;;
        -*) die "unknown option '$1'" "see scripts/guest/build.sh --help" ;;
        *) out=$1 ;;
        esac
        shift
    done
    [ -n "$out" ] || die "no OUT_DIR" "see scripts/guest/build.sh --help"
    mkdir -p "$out"
    OUT=$(cd "$out" && pwd)
    exec 9>"$OUT/lock"
    flock 9 # tests start guests side by side; the first builds, the others wait
    if [ $refresh = no ] && is_current; then
        say "guest: the image in $out is up to date (kernel $(sed -n 's/^kernel //p' "$OUT/manifest" | paste -sd ' '))"
        return 0
    fi
    for extra in "${EXTRAS[@]}"; do # what is there is not taken away
        wanted "$extra" || [ ! -e "$OUT/$extra.cpio" ] || WANTED+=("$extra")
    done
    require_tools
    STAGE=$OUT/stage.$$
    trap 'rm -rf "$STAGE"' EXIT
    mkdir -p "$STAGE" "$OUT/packages"
    local started=$SECONDS
    printf 'guest: building the image in %s\n' "$out" >&2
    build_kernels
    build_base
    for extra in "${WANTED[@]}"; do build_extra "$extra"; done
    rm -f "$OUT/manifest"
    local file
    for file in kernel kernels base.cpio "${EXTRAS[@]/%/.cpio}"; do
        rm -rf "${OUT:?}/$file"
        [ ! -e "$STAGE/$file" ] || mv "$STAGE/$file" "$OUT/$file"
    done
    { inputs && printf 'kernel %s\n' "${KERNEL_VERSIONS[@]}"; } >"$OUT/manifest"
    say "guest: built in $out in $((SECONDS - started)) s: kernel ${KERNEL_VERSIONS[*]}, base $(size base.cpio)$(
        for extra in "${WANTED[@]}"; do printf ', %s %s' "$extra" "$(size "$extra.cpio")"; done
    )"
}

# wanted EXTRA: whether that archive is to be there.
wanted() { [[ " ${WANTED[*]} " == *" $1 "* ]]; }

# extra_tools EXTRA: the programs of that archive, one a line.
extra_tools() {
    local -n tools=${1^^}_TOOLS
    printf '%s\n' "${tools[@]}"
}

size() { printf '%s MiB' $(($(stat -c %s "$OUT/$1") / 1048576)); }

# inputs: what the archives are made from, apart from the downloaded kernel and busybox.
inputs() {
    dpkg-query -W -f 'package ${Package} ${Version}\n' "${BASE_PACKAGES[@]}" "${EXTRA_PACKAGES[@]}" 2>/dev/null | sort || true
    cat "$HERE/init" "$HERE/functions.sh" "$HERE/build.sh" | sha256sum | sed 's/^/scripts /'
}

# is_current: whether OUT holds everything, made from today's inputs.
is_current() {
    [ -e "$OUT/manifest" ] && [ -e "$OUT/base.cpio" ] && [ -e "$OUT/kernel/vmlinuz" ] || return 1
    local extra
    for extra in "${WANTED[@]}"; do [ -e "$OUT/$extra.cpio" ] || return 1; done
    [ "$(grep -v '^kernel ' "$OUT/manifest")" = "$(inputs)" ]
}

require_tools() {
    local tool extra missing=()
    for tool in cpio depmod modinfo xz zstd lz4 mkfs.ext4 mkfs.xfs sg_inq iscsi-test-cu; do
        PATH=$PATH:/usr/sbin:/sbin command -v $tool >/dev/null || missing+=("$tool")
    done
    for extra in "${WANTED[@]}"; do
        for tool in $(extra_tools "$extra"); do
            PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null || missing+=("$tool")
        done
    done
    [ ${#missing[@]} -eq 0 ] || die "not installed: ${missing[*]}" "run scripts/setup.sh --only guest"
}

# fetch PACKAGE: its .deb under packages/, downloaded unless apt's candidate is already there; prints the path.
fetch() {
    local package=$1 version deb
    version=$(apt-cache policy "$package" | sed -n 's/^  Candidate: //p')
    [ "${version:-(none)}" != '(none)' ] ||
        die "apt knows no package $package" "run apt-get update as root, or scripts/setup.sh --only guest"
    deb=$(find_deb "$package" "$version")
    if [ -z "$deb" ]; then
        rm -f "$OUT/packages/${package}"_*.deb
        (cd "$OUT/packages" && apt-get -q -o APT::Sandbox::User=root -o Acquire::Retries=3 download "$package" >&2) ||
            die "could not download $package $version"
        deb=$(find_deb "$package" "$version")
    fi
    printf '%s\n' "$deb"
}

# find_deb PACKAGE VERSION: apt writes the colon of an epoch as %3a.
find_deb() { find "$OUT/packages" -maxdepth 1 -name "$1_${2//:/%3a}_*.deb" -print -quit; }

# build_kernels: kernels/SERIES for each of KERNEL_PACKAGES, and kernel, a link to the first.
build_kernels() {
    local meta
    KERNEL_VERSIONS=()
    for meta in "${KERNEL_PACKAGES[@]}"; do
        build_kernel "$meta" "$(kernel_package "$meta")"
    done
}

# kernel_package META: the package with the kernel that this one stands for; empty when apt knows none.
kernel_package() {
    apt-cache depends --important "$1" 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1
}

# build_kernel META PACKAGE: a folder under kernels/, unless it is there already.
build_kernel() {
    local tree=$STAGE/tree version series folder
    if [ -z "$2" ]; then
        [ "$1" != "${KERNEL_PACKAGES[0]}" ] || die "apt knows no $1" "run scripts/setup.sh --only guest"
        say "guest: apt knows no $1: no guests with that kernel"
        return 0
    fi
    rm -rf "$tree"
    dpkg -x "$(fetch "$2")" "$tree"
    version=$(basename "$tree"/lib/modules/*)
    [[ $version =~ ^[0-9]+\.[0-9]+ ]] || die "$2: kernel version '$version' has no series"
    series=${BASH_REMATCH[0]}
    folder=$STAGE/kernels/$series
    [ ! -e "$folder" ] || return 0
    mkdir -p "$folder"
    [ -e "$STAGE/kernel" ] || ln -s "kernels/$series" "$STAGE/kernel"
    KERNEL_VERSIONS+=("$version")
    cp "$tree/boot/vmlinuz-$version" "$folder/vmlinuz"
    extract_vmlinux "$folder/vmlinuz" >"$folder/vmlinux"
    if [ "$(head -c 4 "$folder/vmlinux" | tail -c 3)" != ELF ]; then
        warn "guest: no ELF kernel inside vmlinuz $version; guests boot from the bzImage, which takes longer"
        rm "$folder/vmlinux"
    fi
    build_modules "$tree" "$version" "$folder/modules.cpio"
}

# extract_vmlinux BZIMAGE: the kernel inside, on standard output. Header fields: Documentation/arch/x86/boot.rst.
extract_vmlinux() {
    local image=$1 setup_sectors offset length
    setup_sectors=$(field "$image" $((0x1f1)) 1)
    [ "$setup_sectors" -ne 0 ] || setup_sectors=4
    offset=$(((setup_sectors + 1) * 512 + $(field "$image" $((0x248)) 4)))
    length=$(field "$image" $((0x24c)) 4)
    case $(od -An -tx1 -j $offset -N 4 "$image" | tr -d ' ') in
    1f8b*) payload "$image" $offset "$length" | gzip -dc ;;
    # the others are followed by the unpacked size, 4 bytes that their tools do not know
    fd377a58) payload "$image" $offset $((length - 4)) | xz -dc ;;
    28b52ffd) payload "$image" $offset $((length - 4)) | zstd -dc ;;
    02214c18) payload "$image" $offset $((length - 4)) | lz4 -dc ;;
    *) warn "guest: vmlinuz is compressed in a way this script does not know" ;;
    esac
}

field() { od -An -tu"$3" -j "$2" -N "$3" "$1" | tr -d ' '; }

payload() { dd if="$1" bs=1M iflag=skip_bytes,count_bytes skip="$2" count="$3" status=none; }

# build_base: busybox with its applets as links, tools with their libraries, init.
build_base() {
    local root=$STAGE/base busybox=$STAGE/busybox applet
    mkdir -p "$root"/usr/{bin,sbin,lib,lib64} "$root"/{etc,proc,sys,dev,tmp,run,mnt,root}
    local folder
    for folder in bin sbin lib lib64; do ln -s "usr/$folder" "$root/$folder"; done
    dpkg -x "$(fetch busybox-static)" "$busybox"
    install -m 755 "$(find "$busybox" -name busybox -type f -perm -u+x -print -quit)" "$root/bin/busybox"
    add_tools "$root" "${BASE_TOOLS[@]}"
    for applet in $("$root/bin/busybox" --list-full); do
        case $applet in
        init | sbin/init | linuxrc) continue ;; # /init is ours
        esac
        [ -e "$root/$applet" ] || ln -s /bin/busybox "$root/$applet" # a real tool wins
    done
    install -m 755 "$HERE/init" "$root/init"
    install -m 644 "$HERE/functions.sh" "$root/functions.sh"
    ln -s /proc/mounts "$root/etc/mtab"
    pack "$root" "$STAGE/base.cpio"
}

# build_extra EXTRA: its programs, with what libraries base.cpio does not have.
build_extra() {
    local tools
    mapfile -t tools < <(extra_tools "$1")
    mkdir -p "$STAGE/$1"
    add_tools "$STAGE/$1" "${tools[@]}"
    # what base.cpio already has would only be written a second time
    (cd "$STAGE/$1" && find . -type f -exec sh -c '[ ! -e "$1/$2" ] || rm "$2"' _ "$STAGE/base" {} \;)
    pack "$STAGE/$1" "$STAGE/$1.cpio"
}

# add_tools ROOT TOOL…: programs at their own places, with the libraries that ldd names.
add_tools() {
    local root=$1 tool path library
    shift
    for tool in "$@"; do
        path=$(PATH=/usr/sbin:/usr/bin:/sbin:/bin command -v "$tool") || continue
        add_file "$root" "$path"
        while read -r library; do
            add_file "$root" "$library"
        done < <(ldd "$path" | sed -n 's/^[^/]*\(\/[^ ]*\) (0x.*/\1/p')
    done
}

# add_file ROOT PATH: below usr/, because in the guest /bin, /lib … are links into it.
add_file() {
    local to=$1/usr/${2#/usr/}
    to=${to/\/usr\/\//\/usr\/}
    [ -e "$to" ] || install -D -m 755 "$(readlink -f "$2")" "$to"
}

# build_modules TREE VERSION ARCHIVE: MODULES and LATER_MODULES and what they need, uncompressed. /etc/modules names the
# former in an order that loads, /etc/modules.NAME what each of the latter needs besides.
build_modules() {
    local tree=$1/lib/modules/$2 root=$STAGE/modules module
    depmod -b "$1" "$2"
    rm -rf "$root"
    mkdir -p "$root/usr/lib/modules" "$root/etc" # not lib: that is a link in base.cpio, and the kernel would replace it
    declare -A seen=()
    for module in "${MODULES[@]}"; do add_module "$tree" "$module" "$root" modules; done
    for module in "${LATER_MODULES[@]}"; do add_module "$tree" "$module" "$root" "modules.$module"; done
    pack "$root" "$3"
}

# add_module TREE MODULE ROOT LIST: it and what it needs, unless `seen` has it.
add_module() {
    local dependency name
    # modules.dep lists dependencies last-needed-first: the reverse order loads
    while read -r dependency; do
        [ -z "${seen[$dependency]:-}" ] || continue
        seen[$dependency]=yes
        name=$(basename "$dependency")
        name=${name%%.ko*}.ko
        unpacked "$1/$dependency" >"$3/usr/lib/modules/$name"
        printf '/lib/modules/%s\n' "$name" >>"$3/etc/$4"
    done < <(sed -n "s|^\(\(.*/\)\{0,1\}$2\.ko[.a-z]*\):\(.*\)|\1\3|p" "$1/modules.dep" | tr ' ' '\n' | tac)
}

# unpacked FILE: on standard output.
unpacked() {
    case $1 in
    *.xz) xz -dc "$1" ;;
    *.zst) zstd -dc "$1" ;;
    *.gz) gzip -dc "$1" ;;
    *) cat "$1" ;;
    esac
}

# pack ROOT ARCHIVE: newc. cpio pads it to 512 bytes, so that archives can be put one after the other.
pack() { (cd "$1" && find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 >"$2"); }

main "$@"

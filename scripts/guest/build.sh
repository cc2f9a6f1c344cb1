#!/usr/bin/env bash
# Builds the small Linux guest that the tests and qemu-guest.sh boot.
#
#   scripts/guest/build.sh [--with-fio] [--refresh] OUT_DIR
#
# Into OUT_DIR: vmlinuz (Debian's cloud kernel), vmlinux (the same, unpacked, for a quick PVH boot), base.cpio
# (busybox, the modules of a virtio-scsi guest, e2fsprogs, sg3-utils, init and functions.sh) and, when asked for,
# fio.cpio (fio with its libraries, to be appended to base.cpio). The kernel and busybox are downloaded and
# unpacked, never installed. Archives are not compressed: an emulated CPU is slow to unpack.
# Built once: nothing is done while `manifest` names the same inputs. --refresh looks for newer packages.
# Not here: installing the tools this needs (setup.sh --only guest), booting (qemu-guest.sh).
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib/output.sh
. "$HERE/../lib/output.sh"

# In order of loading: sd before virtio_scsi, so that a disk is there when insmod virtio_scsi returns.
readonly MODULES=(virtio_pci scsi_mod sd_mod sg ext4 virtio_scsi)
readonly BASE_TOOLS=(mkfs.ext4 fsck.ext4 e2fsck dumpe2fs tune2fs
    sg_inq sg_vpd sg_luns sg_readcap sg_reset sg_turs sg_requests sg_opcodes sg_modes sg_dd sg_raw sg_persist
    sg_sync sg_unmap sg_write_same sg_get_lba_status sg_logs sg_verify sginfo)
readonly BASE_PACKAGES=(e2fsprogs sg3-utils libsgutils2-1.46-2 libsgutils2-2 libc6)
readonly FIO_TOOLS=(fio)

main() {
    local with_fio=no refresh=no out=''
    while [ $# -gt 0 ]; do
        case $1 in
        --with-fio) with_fio=yes ;;
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
    if [ $refresh = no ] && is_current "$with_fio"; then
        say "guest: the image in $out is up to date ($(sed -n 's/^kernel //p' "$OUT/manifest"))"
        return 0
    fi
    require_tools "$with_fio"
    STAGE=$OUT/stage.$$
    trap 'rm -rf "$STAGE"' EXIT
    mkdir -p "$STAGE" "$OUT/packages"
    local started=$SECONDS
    printf 'guest: building the image in %s\n' "$out" >&2
    build_kernel
    build_base
    rm -f "$STAGE/fio.cpio" "$OUT/manifest"
    [ $with_fio = no ] || build_fio
    local file
    for file in vmlinuz vmlinux base.cpio fio.cpio; do
        if [ -e "$STAGE/$file" ]; then mv -f "$STAGE/$file" "$OUT/$file"; else rm -f "$OUT/$file"; fi
    done
    { inputs && printf 'kernel %s\n' "$KERNEL_VERSION"; } >"$OUT/manifest"
    say "guest: built in $out in $((SECONDS - started)) s: kernel $KERNEL_VERSION, base $(size base.cpio)$(
        [ $with_fio = no ] || printf ', fio %s' "$(size fio.cpio)"
    )"
}

size() { printf '%s MiB' $(($(stat -c %s "$OUT/$1") / 1048576)); }

# inputs: what the archives are made from, apart from the downloaded kernel and busybox.
inputs() {
    dpkg-query -W -f 'package ${Package} ${Version}\n' "${BASE_PACKAGES[@]}" fio 2>/dev/null | sort || true
    cat "$HERE/init" "$HERE/functions.sh" "$HERE/build.sh" | sha256sum | sed 's/^/scripts /'
}

# is_current WITH_FIO: whether OUT holds everything, made from today's inputs.
is_current() {
    [ -e "$OUT/manifest" ] && [ -e "$OUT/base.cpio" ] && [ -e "$OUT/vmlinuz" ] || return 1
    [ "$1" = no ] || [ -e "$OUT/fio.cpio" ] || return 1
    [ "$(grep -v '^kernel ' "$OUT/manifest")" = "$(inputs)" ]
}

require_tools() {
    local tool missing=()
    for tool in cpio depmod modinfo xz zstd lz4 mkfs.ext4 sg_inq; do
        PATH=$PATH:/usr/sbin:/sbin command -v $tool >/dev/null || missing+=("$tool")
    done
    [ "$1" = no ] || command -v fio >/dev/null || missing+=(fio)
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

# build_kernel: vmlinuz, vmlinux and the unpacked modules.
build_kernel() {
    local package tree=$STAGE/kernel
    package=$(apt-cache depends --important linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-.*\)$/\1/p' | head -n 1)
    [ -n "$package" ] || die "apt knows no linux-image-cloud-amd64" "run scripts/setup.sh --only guest"
    dpkg -x "$(fetch "$package")" "$tree"
    KERNEL_VERSION=$(basename "$tree"/lib/modules/*)
    cp "$tree/boot/vmlinuz-$KERNEL_VERSION" "$STAGE/vmlinuz"
    extract_vmlinux "$STAGE/vmlinuz" >"$STAGE/vmlinux"
    if [ "$(head -c 4 "$STAGE/vmlinux" | tail -c 3)" != ELF ]; then
        warn "guest: no ELF kernel inside vmlinuz; guests boot from the bzImage, which takes longer"
        rm "$STAGE/vmlinux"
    fi
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

# build_base: busybox with its applets as links, modules in loading order, tools with their libraries, init.
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
    add_modules "$root"
    install -m 755 "$HERE/init" "$root/init"
    install -m 644 "$HERE/functions.sh" "$root/functions.sh"
    ln -s /proc/mounts "$root/etc/mtab"
    pack "$root" base.cpio
}

build_fio() {
    mkdir -p "$STAGE/fio"
    add_tools "$STAGE/fio" "${FIO_TOOLS[@]}"
    # what base.cpio already has would only be written a second time
    (cd "$STAGE/fio" && find . -type f -exec sh -c '[ ! -e "$1/$2" ] || rm "$2"' _ "$STAGE/base" {} \;)
    pack "$STAGE/fio" fio.cpio
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

# add_modules ROOT: MODULES and what they need, uncompressed, named in /etc/modules in an order that loads.
add_modules() {
    local root=$1 tree=$STAGE/kernel/lib/modules/$KERNEL_VERSION module dependency
    depmod -b "$STAGE/kernel" "$KERNEL_VERSION"
    declare -A seen=()
    mkdir -p "$root/lib/modules"
    for module in "${MODULES[@]}"; do
        # modules.dep lists dependencies last-needed-first: the reverse order loads
        while read -r dependency; do
            [ -z "${seen[$dependency]:-}" ] || continue
            seen[$dependency]=yes
            add_module "$tree/$dependency" "$root"
        done < <(sed -n "s|^\(\(.*/\)\{0,1\}$module\.ko[.a-z]*\):\(.*\)|\1\3|p" "$tree/modules.dep" |
            tr ' ' '\n' | tac)
    done
}

add_module() {
    local file=$1 root=$2 name
    name=$(basename "$file")
    name=${name%%.ko*}.ko
    case $file in
    *.xz) xz -dc "$file" ;;
    *.zst) zstd -dc "$file" ;;
    *.gz) gzip -dc "$file" ;;
    *) cat "$file" ;;
    esac >"$root/lib/modules/$name"
    printf '/lib/modules/%s\n' "$name" >>"$root/etc/modules"
}

# pack ROOT NAME: a newc archive. cpio pads it to 512 bytes, so that archives can be put one after the other.
pack() { (cd "$1" && find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 >"$STAGE/$2"); }

main "$@"

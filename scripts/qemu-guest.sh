#!/usr/bin/env bash
# Boots the small Linux guest of scripts/guest/build.sh on a vhost-user-scsi socket, and runs a script in it.
#
#   scripts/qemu-guest.sh --socket S [--run FILE] [options] [-- extra QEMU arguments]
#
#   --socket S            vhost-user socket of a controller that listens (mode = "server")
#   --disk FILE           instead: a raw file as QEMU's own virtio-scsi disk, without ringside
#   --run FILE            a shell script for the guest; without it you get a shell on the guest's console
#   --env KEY=VALUE       a variable for that script (may be repeated)
#   --with-fio            put fio into the guest
#   --kernel 6.12         another kernel than the distribution's (those in DIR/kernels)
#   --boot bios|uefi      no kernel from the host: firmware loads one from the disk, which boot-disk.sh has made with
#                         a script and parameters on it (no --run, --env, --with-fio, --kernel)
#   --memory 512M         guest memory; --hugepages takes it from 2 MiB pages
#   --memory-path DIR     guest memory from files in DIR, a tmpfs or a hugetlbfs
#   --cpus 2              virtual CPUs
#   --queues N            request queues (default: one per CPU)
#   --virtqueue-size 128  entries of each ring
#   --cmd-per-lun N       what QEMU tells the guest (QEMU's own defaults when not given; see
#   --max-sectors N         `ringside qemu-args` for the values that match a controller)
#   --props TEXT          more properties of the virtio-scsi device, e.g. packed=on
#   --timeout 180         seconds after which QEMU is ended
#   --reboots N           reset the machine N times, each time the script has succeeded; it sees BOOT=1 … N+1
#   --accel tcg           or kvm
#   --bzimage             boot the packed kernel by QEMU's BIOS, not the unpacked one by PVH
#   --verbose             the kernel's own messages too
#   --append TEXT         more kernel arguments
#   --qmp PATH            QEMU's machine protocol on this socket
#   --type-stdin          what standard input says is typed on the guest's console
#   --image-dir DIR       where the guest image is or is built (default: $GUEST_DIR, else .build/guest)
#
# Exit status: with --run the script's own; 124 = out of time, 125 = the guest ended without a result, 2 = bad
# arguments. Everything that the guest prints goes to standard output, what this script says to standard error.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib/output.sh
. "$HERE/lib/output.sh"
# shellcheck source=scripts/lib/guest.sh
. "$HERE/lib/guest.sh"

SOCKET='' DISK='' RUN='' KERNEL='' BOOT='' QMP='' MEMORY_PATH='' WITH_FIO=no TYPE_STDIN=no TYPIST_PID='' MEMORY=512M HUGEPAGES=no CPUS=2 QUEUES='' QUEUE_SIZE=128
CMD_PER_LUN='' MAX_SECTORS='' PROPS='' TIMEOUT=180 REBOOTS=0 ACCEL=tcg BZIMAGE=no VERBOSE=no APPEND=''
readonly UEFI_FIRMWARE=/usr/share/ovmf/OVMF.fd # of the package ovmf
IMAGE_DIR=${GUEST_DIR:-${HERE%/*}/.build/guest}
ENVIRONMENT=() EXTRA=() QEMU=() WORK='' QEMU_PID=''

main() {
    parse_arguments "$@"
    command -v qemu-system-x86_64 >/dev/null || die "no qemu-system-x86_64" "run scripts/setup.sh --only guest"
    local build=()
    [ $WITH_FIO = no ] || build=(--with-fio)
    [ -n "$BOOT" ] || "$HERE/guest/build.sh" "${build[@]}" "$IMAGE_DIR" >/dev/null
    WORK=$(mktemp -d)
    trap end_qemu EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    machine_arguments
    if [ -n "$BOOT" ]; then firmware_arguments; else kernel_arguments; fi
    disk_arguments
    QEMU+=("${EXTRA[@]}")
    if [ -z "$RUN$BOOT" ]; then
        printf 'Starting the guest. Leave with "exit" in its shell, or with Ctrl-A X.\n' >&2
        qemu-system-x86_64 "${QEMU[@]}" -serial mon:stdio
    else
        run_guest
    fi
}

bad() { printf 'qemu-guest: %s; see scripts/qemu-guest.sh --help\n' "$1" >&2 && exit 2; }

parse_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
        --with-fio) WITH_FIO=yes && shift && continue ;;
        --hugepages) HUGEPAGES=yes && shift && continue ;;
        --type-stdin) TYPE_STDIN=yes && shift && continue ;;
        --bzimage) BZIMAGE=yes && shift && continue ;;
        --verbose) VERBOSE=yes && shift && continue ;;
        --interactive) RUN='' && shift && continue ;;
        -h | --help) usage "$0" && exit 0 ;;
        --) shift && EXTRA=("$@") && break ;;
        --*) [ $# -ge 2 ] || bad "$1 needs a value" ;;
        *) bad "unexpected argument '$1'" ;;
        esac
        case $1 in
        --socket) SOCKET=$2 ;;
        --disk) DISK=$2 ;;
        --run) RUN=$2 ;;
        --kernel) KERNEL=$2 ;;
        --boot) BOOT=$2 ;;
        --memory-path) MEMORY_PATH=$2 ;;
        --qmp) QMP=$2 ;;
        --env) ENVIRONMENT+=("$2") ;;
        --memory) MEMORY=$2 ;;
        --cpus) CPUS=$2 ;;
        --queues) QUEUES=$2 ;;
        --virtqueue-size) QUEUE_SIZE=$2 ;;
        --cmd-per-lun) CMD_PER_LUN=$2 ;;
        --max-sectors) MAX_SECTORS=$2 ;;
        --props) PROPS=$2 ;;
        --timeout) TIMEOUT=$2 ;;
        --reboots) REBOOTS=$2 ;;
        --accel) ACCEL=$2 ;;
        --append) APPEND=$2 ;;
        --image-dir) IMAGE_DIR=$2 ;;
        *) bad "unknown option '$1'" ;;
        esac
        shift 2
    done
    check_arguments
}

check_arguments() {
    local number pair
    for number in CPUS QUEUE_SIZE TIMEOUT REBOOTS; do
        [[ ${!number} =~ ^[0-9]+$ ]] || bad "'${!number}' is not a number"
    done
    for number in QUEUES CMD_PER_LUN MAX_SECTORS; do
        [[ ${!number} =~ ^[0-9]*$ ]] || bad "'${!number}' is not a number"
    done
    for pair in "${ENVIRONMENT[@]}"; do
        is_parameter "$pair" || bad "--env: '$pair' is not KEY=VALUE without quotes"
    done
    [ "$TIMEOUT" -ge 10 ] || bad "--timeout: $TIMEOUT s are too few, a boot alone takes several (at least 10)"
    [ -n "$SOCKET" ] || [ -n "$DISK" ] || bad "neither --socket nor --disk"
    [ -z "$SOCKET" ] || [ -z "$DISK" ] || bad "--socket and --disk exclude each other"
    [ -z "$SOCKET" ] || [ -S "$SOCKET" ] || bad "--socket: $SOCKET is no socket (is ringside running?)"
    [ -z "$DISK" ] || [ -w "$DISK" ] || bad "--disk: $DISK cannot be written (truncate -s 256M $DISK makes one)"
    [ -z "$RUN" ] || [ -r "$RUN" ] || bad "--run: cannot read $RUN"
    case $BOOT in
    '') ;;
    bios | uefi) [ -z "$RUN$KERNEL${ENVIRONMENT[*]}" ] || bad "--boot: what runs is on the disk" ;;
    *) bad "--boot: '$BOOT' is neither bios nor uefi" ;;
    esac
    [ "$BOOT" != uefi ] || [ -r "$UEFI_FIRMWARE" ] || bad "--boot uefi: no $UEFI_FIRMWARE (package ovmf)"
    [ -z "$MEMORY_PATH" ] || [ -w "$MEMORY_PATH" ] || bad "--memory-path: $MEMORY_PATH cannot be written"
    case $ACCEL in tcg | kvm) ;; *) bad "--accel: '$ACCEL' is neither tcg nor kvm" ;; esac
}

# make_initrd KERNEL_DIR: base, the kernel's modules, fio when wanted, and an archive with the script and its parameters;
# the kernel unpacks all.
make_initrd() {
    local archives=("$IMAGE_DIR/base.cpio" "$1/modules.cpio") shell=()
    [ $WITH_FIO = no ] || archives+=("$IMAGE_DIR/fio.cpio")
    [ -n "$RUN" ] || shell=(GUEST_SHELL=yes)
    # the guest gives up first, so that it can still say what hangs
    run_archive "$WORK/files" "$RUN" GUEST_TIMEOUT=$((TIMEOUT - TIMEOUT / 6 - 5)) GUEST_BOOTS=$((REBOOTS + 1)) \
        "${shell[@]}" "${ENVIRONMENT[@]}" >"$WORK/run.cpio"
    cat "${archives[@]}" "$WORK/run.cpio" >"$WORK/initrd"
}

machine_arguments() {
    local memory="memory-backend-memfd,id=mem,size=$MEMORY,share=on"
    [ $HUGEPAGES = no ] || memory+=',hugetlb=on,hugetlbsize=2M'
    [ -z "$MEMORY_PATH" ] || memory="memory-backend-file,id=mem,size=$MEMORY,share=on,mem-path=$MEMORY_PATH"
    if [ "$ACCEL" = kvm ]; then
        QEMU=(-accel kvm -cpu host)
    else
        QEMU=(-accel 'tcg,thread=multi' -cpu 'max,la57=off')
    fi
    QEMU+=(-smp "$CPUS" -m "$MEMORY" -object "$memory"
        -machine 'q35,memory-backend=mem,sata=off,smbus=off,usb=off,vmport=off'
        -nodefaults -no-user-config -nographic)
    [ "$REBOOTS" -gt 0 ] || QEMU+=(-no-reboot)
    [ -z "$QMP" ] || QEMU+=(-qmp "unix:$QMP,server=on,wait=off")
}

# kernel_arguments: QEMU puts kernel and initramfs into memory.
kernel_arguments() {
    local folder=$IMAGE_DIR/kernel kernel_args="$KERNEL_ARGS"
    [ -z "$KERNEL" ] || folder=$IMAGE_DIR/kernels/$KERNEL
    [ -e "$folder/vmlinuz" ] || bad "--kernel: $folder has none"
    [ $VERBOSE = yes ] || kernel_args+=' quiet'
    make_initrd "$folder"
    QEMU+=(-initrd "$WORK/initrd" -append "$kernel_args $APPEND")
    if [ $BZIMAGE = no ] && [ -e "$folder/vmlinux" ] && has_qboot; then
        QEMU+=(-bios qboot.rom -kernel "$folder/vmlinux")
    else
        QEMU+=(-kernel "$folder/vmlinuz")
    fi
}

# firmware_arguments: the firmware finds a boot loader on the disk. SeaBIOS needs no argument.
firmware_arguments() {
    [ "$BOOT" = bios ] || QEMU+=(-bios "$UEFI_FIRMWARE")
}

# has_qboot: whether QEMU's package brought the minimal firmware that enters an ELF kernel by PVH.
has_qboot() {
    local folder
    while read -r folder; do
        [ ! -e "$folder/qboot.rom" ] || return 0
    done < <(qemu-system-x86_64 -L help)
    return 1
}

disk_arguments() {
    local device="num_queues=${QUEUES:-$CPUS},virtqueue_size=$QUEUE_SIZE"
    [ -z "$CMD_PER_LUN" ] || device+=",cmd_per_lun=$CMD_PER_LUN"
    [ -z "$MAX_SECTORS" ] || device+=",max_sectors=$MAX_SECTORS"
    [ -z "$PROPS" ] || device+=",$PROPS"
    [ -z "$BOOT" ] || device+=',bootindex=0'
    if [ -n "$DISK" ]; then
        QEMU+=(-device "virtio-scsi-pci,id=scsi0,$device"
            -blockdev "driver=raw,node-name=disk0,file.driver=file,file.filename=$DISK"
            -device 'scsi-hd,bus=scsi0.0,scsi-id=0,lun=0,drive=disk0,vendor=QEMU,product=DISK,serial=disk0')
    else
        QEMU+=(-chardev "socket,id=vhost0,path=$SOCKET,$(reconnect)"
            -device "vhost-user-scsi-pci,id=scsi0,chardev=vhost0,$device")
    fi
}

# reconnect: how this QEMU is told to come back after the target was restarted.
reconnect() {
    if qemu-system-x86_64 --version | grep -Eq 'version (9\.[2-9]|[1-9][0-9]\.)'; then
        printf 'reconnect-ms=500'
    else
        printf 'reconnect=1'
    fi
}

# run_guest: QEMU in the background, its console through two pipes, so that every wait has a deadline.
run_guest() {
    local started=$EPOCHREALTIME result
    mkfifo "$WORK/to-guest" "$WORK/from-guest"
    QEMU+=(-chardev 'stdio,id=console,signal=off' -serial chardev:console)
    if [ "$REBOOTS" -gt 0 ]; then
        mkfifo "$WORK/monitor.in" "$WORK/monitor.out"
        QEMU+=(-chardev "pipe,id=monitor,path=$WORK/monitor" -mon 'chardev=monitor,mode=readline')
        exec 6<>"$WORK/monitor.in" 7<>"$WORK/monitor.out"
    fi
    exec 5<>"$WORK/to-guest"
    if [ $TYPE_STDIN = yes ]; then
        setpriv --pdeathsig TERM cat <&0 >&5 2>/dev/null &
        TYPIST_PID=$!
    fi
    # a script that is killed takes its QEMU with it
    setpriv --pdeathsig TERM qemu-system-x86_64 "${QEMU[@]}" <"$WORK/to-guest" >"$WORK/from-guest" &
    QEMU_PID=$!
    follow_console "$started" <"$WORK/from-guest" && result=0 || result=$?
    end_qemu
    return "$result"
}

# follow_console STARTED: repeats the guest's lines, answers its questions, returns the script's exit status.
follow_console() {
    local deadline=$((${1%.*} + TIMEOUT)) line result='' boot=0 status
    while :; do
        status=0
        IFS= read -r -t $((deadline > EPOCHSECONDS ? deadline - EPOCHSECONDS : 1)) line || status=$?
        line=${line%$'\r'}
        [ -z "$line" ] && [ $status -ne 0 ] || printf '%s\n' "$line"
        if [ $status -gt 128 ] || [ "$EPOCHSECONDS" -ge "$deadline" ]; then
            [ -z "$result" ] || return "$result"
            report "$1" "not done after $TIMEOUT s, QEMU is ended"
            return 124
        elif [ $status -ne 0 ]; then # QEMU is gone
            [ -z "$result" ] || return "$result"
            report "$1" "ended without a result"
            return 125
        fi
        [ -z "$result" ] || continue # only its end is waited for
        case $line in
        GUEST-READY:*) report "$1" "ready" ;;
        GUEST-ASKS-BOOT:*)
            boot=$((boot + 1))
            [ $boot -le $((REBOOTS + 1)) ] || { report "$1" "reset itself more often than asked" && return 125; }
            printf '%s\n' $boot >&5
            ;;
        GUEST-BOOT-DONE:*)
            report "$1" "boot $boot done, resetting"
            printf 'system_reset\n' >&6
            ;;
        GUEST-RESULT:*)
            result=${line#GUEST-RESULT: }
            [[ $result =~ ^[0-9]+$ ]] || result=125
            report "$1" "finished with status $result"
            deadline=$((EPOCHSECONDS + 5)) # to power off, or be ended
            ;;
        *'Kernel panic'*) deadline=$((EPOCHSECONDS + 2)) ;;
        esac
    done
}

# report STARTED TEXT: with the time since the start.
report() {
    local microseconds=$((${EPOCHREALTIME/./} - ${1/./}))
    printf 'guest: %s after %d.%d s\n' "$2" $((microseconds / 1000000)) $((microseconds / 100000 % 10)) >&2
}

# end_qemu: ours only, by its id; and the files of this run.
end_qemu() {
    local tries=0
    if [ -n "$TYPIST_PID" ]; then
        kill "$TYPIST_PID" 2>/dev/null || true
        wait "$TYPIST_PID" 2>/dev/null || true
    fi
    TYPIST_PID=''
    if [ -n "$QEMU_PID" ]; then
        kill "$QEMU_PID" 2>/dev/null || true
        while kill -0 "$QEMU_PID" 2>/dev/null && [ $tries -lt 50 ]; do
            tries=$((tries + 1))
            sleep 0.1
        done
        kill -KILL "$QEMU_PID" 2>/dev/null || true
        wait "$QEMU_PID" 2>/dev/null || true
    fi
    QEMU_PID=''
    [ -z "$WORK" ] || rm -rf "$WORK"
    WORK=''
}

main "$@"

# shellcheck shell=bash
# What the scripts that boot the guest have in common: the words for its kernel, the archive with its script. Not here:
# how it is built and booted. Sourced, never run.

# What only takes time on an emulated CPU is switched off: self-tests, hardening, calibration.
KERNEL_ARGS='console=ttyS0 panic=-1 cryptomgr.notests mitigations=off nokaslr random.trust_cpu=on tsc=reliable'
# shellcheck disable=SC2034 # for those that source this
KERNEL_ARGS+=' no_timer_check rcupdate.rcu_expedited=1 lsm= audit=0 init_on_alloc=0'

# run_archive FOLDER SCRIPT KEY=VALUE…: a newc archive on standard output, with the script (none when empty) as /run.sh
# and its parameters as /params, which the guest's init reads. FOLDER is for its files.
run_archive() {
    local folder=$1 script=$2 pair
    shift 2
    mkdir -p "$folder"
    for pair in "$@"; do
        printf "%s='%s'\n" "${pair%%=*}" "${pair#*=}"
    done >"$folder/params"
    [ -z "$script" ] || cp "$script" "$folder/run.sh"
    (cd "$folder" && find . -type f | cpio --quiet -o -H newc -R 0:0)
}

# is_parameter TEXT: whether it is KEY=VALUE, without quotes.
is_parameter() { [[ $1 =~ ^[A-Za-z_][A-Za-z0-9_]*=[^\']*$ ]]; }

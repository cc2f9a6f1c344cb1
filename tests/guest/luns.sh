# shellcheck shell=dash
# Which disks the guest has found, one line each: LUN target:lun name bytes vendor model.
# Variables: LUNS, when given, is the list that must be found, such as "0:0 0:5 3:0".
# shellcheck source=scripts/guest/functions.sh
. /functions.sh

[ -z "${LUNS:-}" ] || for lun in $LUNS; do disk_at "${lun%:*}" "${lun#*:}" >/dev/null || fail "no LUN $lun"; done
found=''
for device in /sys/class/scsi_disk/*; do
    [ -e "$device" ] || continue
    address=${device##*/}
    address=${address#*:}
    address=${address#*:} # without host and channel
    name=$(basename "$device"/device/block/*)
    printf 'LUN %s %s %s %s %s\n' "$address" "$name" $(($(cat "/sys/block/$name/size") * 512)) \
        "$(sed 's/ *$//' "$device/device/vendor")" "$(sed 's/ *$//' "$device/device/model")"
    found="$found $address"
done
sorted() { printf '%s\n' "$@" | sort -t : -k 1n -k 2n | tr '\n' ' '; }
# shellcheck disable=SC2086 # lists of words
expect "LUNs" "${LUNS:+$(sorted $LUNS)}" "$(sorted $found)"

# shellcheck shell=dash
# libiscsi's SCSI conformance tests on each of DISKS (a list of target:lun), writing ones included. Says for each
# "SUMMARY disk tests ran passed failed" and, one line each, "FAILURE disk …" and "SKIP disk …".
# The buffers are huge pages: QEMU tells the guest seg_max 126, and 126 scattered pages of 4 KiB are fewer than some of
# these tests send at once.
# shellcheck source=scripts/guest/functions.sh
. /functions.sh
echo 64 >/proc/sys/vm/nr_hugepages
export GLIBC_TUNABLES=glibc.malloc.hugetlb=2

conform() {
    local name log=/tmp/log."$1"
    name=$(disk_at "${1%:*}" "${1#*:}") || fail "no disk $1"
    /usr/bin/iscsi-test-cu --dataloss --normal --test=ALL "/dev/$name" >"$log" 2>&1
    sed -n "s/^Suite \(.*\), Test \(.*\) had failures:.*/FAILURE $1 \1.\2/p; s/^ *\(\[FAIL.*\)/FAILURE $1 \1/p" "$log"
    sed -n "s/^ *[0-9]*\. \(test_.*:[0-9]* .*\)/FAILURE $1 \1/p" "$log"
    sed -n "s/.*\[SKIPPED\] /SKIP $1 /p" "$log" | sort -u
    sed -n "s/^ *tests *\([0-9]*\) *\([0-9]*\) *\([0-9]*\) *\([0-9]*\) .*/SUMMARY $1 \1 \2 \3 \4/p" "$log"
}

for disk in $DISKS; do conform "$disk" & done
wait

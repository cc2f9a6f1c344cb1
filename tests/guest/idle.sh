# shellcheck shell=dash
# A guest with nothing to do, until it is ended. Says "IDLE" when the last disk is there. Variables: TARGET=0 LUN=0.
# shellcheck source=scripts/guest/functions.sh
. /functions.sh
disk_at "${TARGET:-0}" "${LUN:-0}" >/dev/null || fail "no disk at target ${TARGET:-0}, LUN ${LUN:-0}"
printf 'IDLE\n'
while :; do sleep 60; done

# shellcheck shell=dash
# Brings the network card up and then does what the console says, a line at a time, until "end"; each line's output ends with
# "DONE status". Says "UP" when the card has its addresses. With BOOT > 1, as after a reset, it does the same again.
# Variables: ADDRESS, the last byte of 198.18.0.x and of fd00::x.
# shellcheck source=scripts/guest/functions.sh
. /functions.sh
echo 0 >/proc/sys/net/ipv6/conf/default/dad_transmits # an address is one at once
load virtio_net

# card_up: with its addresses; at first, and whenever it has come anew.
card_up() {
    wait_for "network card" test -e /sys/class/net/eth0
    ip link set eth0 up
    ip addr add "198.18.0.${ADDRESS:-2}/24" dev eth0 || fail "address"
    ip -6 addr add "fd00::${ADDRESS:-2}/64" dev eth0 || fail "IPv6 address"
}

# offloads on|off: all that the card may do for the kernel, and GRO.
offloads() {
    # what the card was not given stays as it is
    for feature in tx rx tso gso gro rx-gro-hw; do
        /usr/sbin/ethtool -K eth0 $feature "$1" 2>/dev/null
    done
    /usr/sbin/ethtool -k eth0 | grep -E '^(tx-checksumming|tcp-segmentation-offload|generic-receive-offload):'
}

# rebind: takes the card from its driver and gives it back.
rebind() {
    virtio=$(basename "$(readlink -f /sys/class/net/eth0/device)")
    echo "$virtio" >/sys/bus/virtio/drivers/virtio_net/unbind || fail "unbind"
    [ ! -e /sys/class/net/eth0 ] || fail "the card stays without its driver"
    echo "$virtio" >/sys/bus/virtio/drivers/virtio_net/bind || fail "bind"
    card_up
}

# receive PORT: takes one connection in the background, and says nothing until it listens.
receive() {
    nc -l -p "$1" <&3 >/tmp/received &
    receiver=$!
    wait_for "listener" listening "$1"
}

listening() { netstat -lnt | grep -q ":$1 "; }

# received: the checksum of what that connection brought.
received() {
    wait "$receiver" || fail "nc: $?"
    md5sum </tmp/received
}

mkfifo /tmp/silence && exec 3<>/tmp/silence # whoever reads it waits for ever
mount -o remount,size=90% /tmp
card_up
printf 'UP\n'
while read -r line; do
    [ "$line" != end ] || exit 0
    eval "$line" </dev/null
    printf '\nDONE %s\n' $?
done

# shellcheck shell=bash
# Which cases there are, which of them are chosen, and who takes part in them. Sourced by scripts/bench.sh.

# shellcheck disable=SC2034 # for bench.sh
readonly FAMILIES=(ceiling scsi spdk bdevperf net testpmd fio swap scrape idle crowd padding)
readonly SIZES=(64 128 256 512 1024 1280 1518) # RFC 2544 §9.1
CHOSEN=() CASES=() PARTIES=()

# all_cases: a line each: the name, and `short` if it is among those of a run without options.
all_cases() {
    local ring depth disk access direction size
    for access in randread/4k/qd32 net/tx/64B; do
        echo "ceiling/$([[ $access = net/* ]] || echo scsi/)$access/split short"
    done
    for disk in null malloc file; do
        for access in randread/4k randwrite/4k read/128k write/128k; do
            for depth in 1 32 128; do
                for ring in split packed; do echo "scsi/$disk/$access/qd$depth/$ring $(is_short "$disk/$access/$depth/$ring")"; done
                # SPDK's initiator knows split rings only.
                [ -z "$SPDK" ] || [ $disk = file ] || echo "bdevperf/$disk/$access/qd$depth $(is_short "$disk/$access/$depth/split")"
            done
        done
    done
    if [ -n "$SPDK" ]; then
        for disk in null malloc; do
            for access in {randread,randwrite}/4k/qd{1,32,128} read/128k/qd32; do echo "spdk/$disk/$access short"; done
        done
    fi
    for direction in tx rx loop; do
        for size in "${SIZES[@]}"; do
            for ring in split packed; do
                echo "net/$direction/${size}B/$ring $(is_short "$direction/$size/$ring")"
                [ -z "$DPDK" ] || [ $direction = loop ] || echo "testpmd/$direction/${size}B/$ring $(is_short "$direction/$size/$ring")"
            done
            # DPDK's driver with AVX-512.
            [ -z "$DPDK" ] || [ $direction = loop ] || echo "testpmd/$direction/${size}B/packed-vector full"
        done
    done
    if [ -n "$FIO" ]; then
        for disk in tmpfs disk; do
            for access in randread/4k randwrite/4k read/128k; do echo "fio/$disk/$access/qd32 short"; done
        done
    fi
    printf '%s full\n' swap/quiet swap/tables scrape/{20,1000}/randread/4k/qd1 {idle,crowd/64,crowd/256}/null/randread/4k/qd32 idle/malloc/randread/4k/qd32 \
        idle/wake/randread/4k/qd1 crowd/{64,256}/null/randread/4k/qd1 padding/{null/read,malloc/write}/{1lun,2luns}
}

# is_short CASE: `short` or `full`.
is_short() {
    case $1 in
    null/randread/4k/*/split | null/randread/4k/32/packed | malloc/rand*/4k/32/split | malloc/read/128k/32/split) echo short ;;
    file/randread/4k/32/split | file/write/128k/32/split) echo short ;;
    tx/64/split | rx/64/split | loop/64/split | tx/1518/split | rx/1518/split | loop/1518/split) echo short ;;
    *) echo full ;;
    esac
}

# choose_cases: fills CHOSEN.
choose_cases() {
    local name set pattern
    while read -r name set; do
        if [ ${#ONLY[@]} -eq 0 ]; then
            [ "$SET" = full ] || [ "$set" = short ] || continue
            CHOSEN+=("$name")
            continue
        fi
        for pattern in "${ONLY[@]}"; do
            if matches "$name" "$pattern"; then
                CHOSEN+=("$name")
                break
            fi
        done
    done < <(all_cases)
    [ ${#CHOSEN[@]} -gt 0 ] || die "--only ${ONLY[*]}: no case has such a name" "see scripts/bench.sh --full --list"
}

# matches NAME PATTERN
matches() {
    # shellcheck disable=SC2053 # the pattern is one
    case $2 in
    *[*?[]*) [[ $1 == $2 ]] ;;
    *) [[ $1 == *"$2"* ]] ;;
    esac
}

# cases_of FAMILY: its chosen cases, into CASES.
cases_of() {
    local name
    CASES=()
    for name in "${CHOSEN[@]}"; do
        [[ $name != "$1"/* ]] || CASES+=("$name")
    done
}

# parties_of CASE ROUND: who is measured, in turns, into PARTIES. Who is first changes with the rounds, so that nobody always
# follows the same other.
parties_of() {
    PARTIES=(ringside)
    case $1 in
    idle/*) PARTIES=(adaptive busy) ;;
    crowd/*) PARTIES=(beside alone) ;;
    scrape/*) PARTIES=(scraped quiet) ;;
    padding/*) PARTIES=(padded unpadded apart) ;;
    ceiling/* | swap/*) ;;
    scsi/malloc/*/split) PARTIES+=(${BASELINE:+baseline} ${SPDK:+spdk} ${COPY:+copy}) ;;
    scsi/*/packed) PARTIES+=(${BASELINE:+baseline}) ;; # SPDK's target has split rings only
    scsi/* | spdk/* | bdevperf/*) PARTIES+=(${BASELINE:+baseline} ${SPDK:+spdk}) ;;
    net/*) PARTIES+=(${BASELINE:+baseline} ${DPDK:+dpdk}) ;;
    testpmd/*) PARTIES+=(${BASELINE:+baseline} ${DPDK:+dpdk} ${SINK:+sink}) ;;
    fio/*) PARTIES+=(fio) ;;
    esac
    [ $(($2 % 2)) -eq 1 ] || PARTIES=("${PARTIES[@]:1}" "${PARTIES[0]}")
}

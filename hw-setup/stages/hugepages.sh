#!/usr/bin/env bash
# hugepages: 2 MiB and 1 GiB pages on the node of the workers, and where DPDK finds them. It never lowers a number.
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # the answers and the options are for and from the files that source this one

# What the engine's AF_XDP workers take each (4,096 frames of 2 KiB, and one to spare), and what DPDK's pools of packet
# buffers and its own tables fit in.
readonly HUGE_2M_A_WORKER=5 HUGE_2M_DPDK=256

stage_hugepages() {
    local two=${huge_2m:-}
    if [ -z "$two" ]; then
        two=$HUGE_2M_DPDK
        [ "$mode" = dpdk ] || two=$((HUGE_2M_A_WORKER * ${#CORES[@]}))
    fi
    if [ ! -e "$ROOT/sys/kernel/mm/hugepages" ]; then
        REPLY='this kernel has no huge pages (CONFIG_HUGETLBFS)'
        if [ "$mode" = dpdk ]; then blocked "$REPLY: DPDK then needs --no-huge, which no device takes"; else cannot "$REPLY: plain ones are used"; fi
        return 0
    fi
    pool 2048 "$two"
    pool 1048576 "$huge_1g"
    if [ "$mode" = dpdk ]; then
        want mount:/dev/hugepages hugetlbfs
        [ "$huge_1g" -eq 0 ] || want mount:/dev/hugepages1G hugetlbfs
    fi
}

# pool KIB COUNT: so many pages of that size, on the node of the workers.
pool() {
    local size=hugepages-${1}kB node place=/sys/kernel/mm/hugepages now
    node=$(node_of "${CORES[0]}")
    if [ -e "$ROOT/sys/devices/system/node/node$node/hugepages" ]; then place=/sys/devices/system/node/node$node/hugepages; fi
    if ! get "file:$place/$size/nr_hugepages"; then
        [ "$2" -eq 0 ] || cannot "this machine has no pages of $1 KiB"
        return 0
    fi
    now=$REPLY
    if [ "$now" -ge "$2" ]; then
        want "file:$place/$size/nr_hugepages" "$now"
        return 0
    fi
    want "file:$place/$size/nr_hugepages" "$2"
    [ "$1" = 2048 ] || advise "1 GiB pages are scarce once a machine has run: reserve at boot with hugepagesz=1G hugepages=$2"
}

# node_of CORE
node_of() {
    local path
    for path in "$ROOT/sys/devices/system/cpu/cpu$1"/node[0-9]*; do
        if [ -e "$path" ]; then
            printf '%s' "${path##*node}"
            return
        fi
    done
    printf 0
}

# Mounts, by where they are.
get_mount() {
    local where type rest
    slurp /proc/mounts || { WHY='/proc/mounts cannot be read' && return 1; }
    local text=$REPLY
    REPLY=none
    while read -r rest where type rest; do
        [ "$where" != "$1" ] || REPLY=$type
    done <<<"$text"
}
set_mount() {
    local options=() type=$2
    if [ "$2" = none ]; then
        if [ "$1" = /sys/fs/bpf ] && pinned_below "$ROOT$1"; then
            ERROR="$REPLY is pinned there and would be lost: volley unload, or rm it, first"
            return 1
        fi
        run umount "$1"
        return
    fi
    [ -d "$ROOT$1" ] || run mkdir -p "$ROOT$1" || return 1
    case $1 in *1G) options=(-o pagesize=1G) ;; esac
    run mount -t "$type" "${options[@]}" "$type" "$1"
}

# pinned_below DIRECTORY: the first pin there. The kernel's own two, which are there from the start, are none.
pinned_below() {
    local path
    for path in "$1"/*; do
        case ${path##*/} in maps.debug | progs.debug) continue ;; esac
        if [ -d "$path" ]; then
            pinned_below "$path" && return 0
        elif [ -e "$path" ]; then
            REPLY=$path
            return 0
        fi
    done
    return 1
}

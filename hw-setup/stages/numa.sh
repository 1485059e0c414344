#!/usr/bin/env bash
# numa: whether workers and NIC are on the same node. A warning; moving either is up to the user.
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # the answers and the options are for and from the files that source this one

stage_numa() {
    local core node far=() near
    if [ "$NIC_NODE" -lt 0 ]; then
        fine 'the NIC has no node: any core is as near'
        return 0
    fi
    for core in "${CORES[@]}"; do
        node=$(node_of "$core")
        [ "$node" -eq "$NIC_NODE" ] || far+=("$core")
    done
    if [ ${#far[@]} -eq 0 ]; then
        fine "cores $CORE_LIST and the NIC are on node $NIC_NODE"
        return 0
    fi
    ranges "${far[@]}"
    far=("$REPLY")
    word_of "/sys/devices/system/node/node$NIC_NODE/cpulist"
    near=$REPLY
    cannot "core ${far[0]} is on another node than the NIC ($NIC_NODE): every packet crosses the interconnect; choose --cores from $near"
}

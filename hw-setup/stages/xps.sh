#!/usr/bin/env bash
# xps: each worker's core sends on its own queue, so that what the kernel sends for it shares no lock with another.
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # the answers and the options are for and from the files that source this one

get_xps() {
    word_of "/sys/class/net/$NIC/queues/tx-$1/xps_cpus" || { WHY="$NIC has no tx queue $1, or only one" && return 1; }
    plain_mask "$REPLY"
}
set_xps() { write "/sys/class/net/$NIC/queues/tx-$1/xps_cpus" "$2"; }

stage_xps() {
    is_kernels || return 0
    local index paths=()
    paths=("$ROOT/sys/class/net/$NIC/queues"/tx-*)
    if [ ${#paths[@]} -le 1 ]; then
        fine 'one tx queue: nothing to choose'
        return 0
    fi
    for index in "${!CORES[@]}"; do
        [ "$index" -lt ${#paths[@]} ] || break
        mask_of "${CORES[index]}"
        want "xps:$index" "$REPLY"
    done
}

#!/usr/bin/env bash
# queues: one for each worker, and those that --kernel-queues keeps (ethtool -L).
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # the answers and the options are for and from the files that source this one

get_channels() {
    ethtool_says -l || return 1
    current_settings
    pairs rx tx combined
}
set_channels() {
    get_channels || { ERROR=$WHY && return 1; }
    changed_pairs "$REPLY" "$2"
    [ ${#CHANGED[@]} -ne 0 ] || return 0
    run ethtool -L "$NIC" "${CHANGED[@]}" && return
    # A table that somebody set keeps its queues from going; it is among what goes along, and is put back with them.
    local count=${2#*combined=}
    [ "$count" != "$2" ] || count=${2#*rx=}
    case $ERROR in *'indirection table'*) ;; *) return 1 ;; esac
    run ethtool -X "$NIC" equal "${count%% *}" && run ethtool -L "$NIC" "${CHANGED[@]}"
}

stage_queues() {
    is_kernels || return 0
    local now count wanted
    planned_queues
    count=$REPLY
    if ! get channels; then
        if [ "$count" -eq $((${#CORES[@]} + kernel_queues)) ]; then
            fine "$count, and $WHY"
        else
            cannot "$WHY: it has $count for ${#CORES[@]} workers"
        fi
        return 0
    fi
    now=$REPLY wanted=$now
    if [ -n "${NOW[combined]:-}" ] && [ "${MAX[combined]:-0}" -gt 0 ]; then
        with "$wanted" combined "$count"
        wanted=$REPLY
        # Separate queues beside the combined ones would be no worker's.
        [ -z "${NOW[rx]:-}" ] || { with "$wanted" rx 0 && wanted=$REPLY; }
        [ -z "${NOW[tx]:-}" ] || { with "$wanted" tx 0 && wanted=$REPLY; }
    else
        with "$wanted" rx "$count"
        with "$REPLY" tx "$count"
        wanted=$REPLY
    fi
    if [ "$count" -lt $((${#CORES[@]} + kernel_queues)) ]; then
        cannot "the device has at most $count queues for ${#CORES[@]} workers and $kernel_queues of the kernel: name fewer --cores"
    fi
    want channels "$wanted"
}

# is_kernels: whether the kernel's driver keeps the device, so that ethtool has a say.
is_kernels() {
    [ "$mode" = dpdk ] || return 0
    profile dpdk
    case $REPLY in bifurcated*) return 0 ;; esac
    fine 'not needed: DPDK sets it through its own driver'
    return 1
}

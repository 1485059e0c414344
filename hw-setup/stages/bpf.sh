#!/usr/bin/env bash
# bpf: where programs and maps are pinned, and how much memory may be locked.
# shellcheck disable=SC2015,SC2034,SC2153,SC2154  # the answers and the options are for and from the files that source this one

stage_bpf() {
    if [ "$mode" = dpdk ]; then
        fine 'not needed: DPDK loads no XDP program'
        return 0
    fi
    if [ -d "$ROOT/sys/fs/bpf" ]; then
        want mount:/sys/fs/bpf bpf 'pins of volley load live there'
    else
        blocked 'this kernel has no /sys/fs/bpf (CONFIG_BPF_SYSCALL)'
    fi
    local locked
    locked=$(ulimit -l)
    # CAP_IPC_LOCK of capability.h: with it the limit does not count.
    if has_capability 14; then
        fine "locked memory: the limit ($locked KiB) does not bind who has CAP_IPC_LOCK"
    elif [ "$locked" = unlimited ]; then
        fine 'locked memory: unlimited'
    else
        cannot "locked memory is limited to $locked KiB: give the engine CAP_IPC_LOCK (AmbientCapabilities=, --cap-add IPC_LOCK) or LimitMEMLOCK=infinity"
    fi
}
